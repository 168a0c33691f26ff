"""Streaming of one continuation from SGLang: its server-sent events, and their conversion to chunks of steps."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

from msgspec import Struct

from tts_tui.backends.engine.detokenizer import CONTEXT, OVERSHOOT, Separator
from tts_tui.backends.remote.http import Http
from tts_tui.backends.remote.replies import ReplyTokenCounts
from tts_tui.backends.remote.untrusted import Failure, Matched, ServerText
from tts_tui.errors import BackendBadResponse, BackendError, BackendOverloaded, BackendUnavailable, RequestRefused
from tts_tui.protocols import Chunk, Finish, StepRequest, TokenId, Usage

AGAIN_SECONDS = 0.2
"""Seconds after which an abort is repeated: one that arrives before the request itself has no effect."""

Texts = Callable[[Sequence[Sequence[int]]], Awaitable[list[str]]]
"""Function that returns the text of each of several sequences of token ids."""


class Reason(Struct):
    """The reason for which a request ended, as sent by SGLang."""

    type: ServerText | None = None
    matched: Matched | None = None
    message: ServerText | None = None


class Meta(ReplyTokenCounts):
    """The metadata of a request so far: token counts and, with the last event, the reason for its end."""

    finish_reason: Reason | None = None


class SSEPayload(Struct):
    """One event as sent by SGLang. Text and ids are either new or all so far, depending on the server's flags."""

    text: str = ""
    output_ids: list[TokenId] = []
    meta_info: Meta | None = None
    error: Failure | None = None


class StreamEvent(Struct):
    """The new part of a continuation that one event brought.

    Attributes:
        ids: The new token ids.
        text: The new text.
        usage: The tokens that the event adds to the counts.
        finish: How the request ended; set on its last event.
        aborted: Why the server aborted the request; set on its last event.
        unasked: The stop condition that ended the request without having been requested; set on its last event.
    """

    ids: list[int]
    text: str
    usage: Usage
    finish: Finish | None = None
    aborted: ServerText | str | None = None
    unasked: ServerText | None = None


class EventReader:
    """A converter from the payloads of one request to events.

    Args:
        url: The server's address, for messages.
        stops: The stop texts of the request: no other text ends a step.
        vocabulary: Number of token ids of the model; 0 if it is not known.
        most: Maximum number of tokens that were requested; 0 for no limit.
    """

    def __init__(self, url: str, stops: Sequence[str] = (), vocabulary: int = 0, most: int = 0) -> None:
        self._url, self._stops = url, stops
        self._most = most
        self._vocabulary = vocabulary
        self._begun = False
        self._count = 0
        self._tokens = 0
        self._text = ""
        self._whole = False

    def read(self, wire: SSEPayload) -> StreamEvent:
        """Return the event that `wire` holds.

        Raises:
            BackendError: The server reports that the request failed, or the data is inconsistent.
        """
        if wire.error is not None or wire.meta_info is None:
            raise self._failed(wire.error)
        meta, first = wire.meta_info, not self._begun
        self._begun = True
        new = meta.completion_tokens - self._tokens
        if new < 0 or new > len(wire.output_ids):
            raise BackendBadResponse(f"{self._url} sent {len(wire.output_ids)} token ids where it counted {new}")
        self._count += 1
        if self._most and max(self._count, meta.completion_tokens) > self._most + OVERSHOOT:
            raise endless(self._url, self._most)
        ids = wire.output_ids[len(wire.output_ids) - new :]
        check_vocabulary(ids, self._vocabulary, self._url)
        usage = Usage(
            prompt_computed=meta.prompt_tokens - meta.cached_tokens if first else 0,
            prompt_cached=meta.cached_tokens if first else 0,
            completion=new,
        )
        # Servers send all tokens so far, or only new ones (--incremental-streaming-output): the lengths show which.
        self._whole = self._whole or (not first and len(wire.output_ids) == meta.completion_tokens > new)
        text = wire.text
        if self._whole:
            text, self._text = wire.text[len(self._text) :], wire.text
        elif len(wire.output_ids) == meta.completion_tokens:  # no tokens came before: it may be either
            self._text = wire.text
        self._tokens = meta.completion_tokens
        event = StreamEvent(ids, text, usage)
        if meta.finish_reason is not None:
            self._end(event, meta.finish_reason)
        return event

    def _end(self, event: StreamEvent, reason: Reason) -> None:
        """Set on `event` how the request ended.

        SGLang reports some failures, such as invalid logits, as "stop" with a text that was not requested.
        """
        kind, matched = reason.type, reason.matched
        if kind == "length":
            event.finish = "length"
        elif kind != "stop":
            event.aborted = reason.message or kind or "without a reason"
        elif matched is not None and matched.is_token:  # the id of an end of text, or its ids
            event.finish = "eos"
        elif matched is not None and matched.text in self._stops:
            event.finish = "step"
        else:
            event.unasked = matched.text if matched is not None else kind

    def _failed(self, failure: Failure | None) -> BackendError:
        said = (failure and failure.text) or "without a reason"
        code = failure.code if failure else 0
        if code in (429, 503):
            return BackendOverloaded(f"{self._url} is overloaded: {said}")
        if 400 <= code < 500:
            return RequestRefused(f"{self._url} refused the request: {said}", code)
        return BackendBadResponse(f"{self._url} failed: {said}")


def endless(url: str, most: int) -> BackendBadResponse:
    """Return the error for a stream that continues beyond the `most` tokens that were requested."""
    return BackendBadResponse(f"{url} writes on beyond the {most} tokens that it was asked for")


def check_vocabulary(ids: Sequence[int], size: int, url: str) -> None:
    """Check that token ids from a server are in its model's vocabulary.

    Args:
        ids: The ids; none of them may be negative.
        size: Size of the vocabulary; 0 if it is not known, which skips the check.
        url: The server's address, for messages.

    Raises:
        BackendBadResponse: One of the ids is not in the vocabulary.
    """
    if size and ids and max(ids) >= size:
        raise BackendBadResponse(f"{url} sent the token id {max(ids)}, and its model has {size}")


class Stream:
    """A request in flight, read by a separate task so that its consumer can be cancelled at any moment.

    Args:
        http: The connection to the server.
        body: The body of the request; its `rid` identifies the request for an abort.
        headers: Headers of the request.
        abort: Aborts a request on the server by its `rid`.
        vocabulary: Number of token ids of the model; 0 if it is not known.

    Attributes:
        done: True if the request has ended by itself.
        pump: The task that reads the reply until its end.
    """

    def __init__(
        self,
        http: Http,
        body: dict[str, Any],
        headers: Mapping[str, str],
        abort: Callable[[str], Awaitable[None]],
        vocabulary: int = 0,
    ) -> None:
        self.done = False
        self._http = http
        self._rid: str = body["rid"]
        self._abort = abort
        sampling = body["sampling_params"]
        self._reader = EventReader(http.url, sampling["stop"], vocabulary, sampling["max_new_tokens"])
        self._events: deque[StreamEvent] = deque()
        self._arrived = asyncio.Event()
        self.pump = asyncio.create_task(self._read(body, headers))

    async def events(self) -> AsyncIterator[StreamEvent]:
        """Yield all events of the request.

        Raises:
            BackendError: The server aborted the request, or ended it for a reason that was not requested; or any error
                of `EventReader.read` and `Http.events`.
        """
        while True:
            while self._events:
                event = self._events[0]  # an event that raises stays queued, for `abort` to count
                if event.aborted is not None:
                    raise BackendUnavailable(f"{self._http.url} gave the request up: {event.aborted}")
                if event.unasked is not None:
                    raise BackendBadResponse(
                        f"{self._http.url} ended a step for a reason that was not asked for ({event.unasked!r}): "
                        "see the server's log"
                    )
                self._events.popleft()
                self.done = event.finish is not None
                yield event
            if self.pump.done():
                if not self._events:
                    self.done = True
                    self.pump.result()
                    return
                continue
            self._arrived.clear()
            await self._arrived.wait()

    async def abort(self, seconds: float) -> Usage:
        """Abort the request on the server, and return the usage of the events that were not consumed.

        Args:
            seconds: Maximum seconds to wait for the last event; then the connection is closed, which also ends the
                request.
        """
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while not self.pump.done():
                        await self._abort(self._rid)
                        await asyncio.wait([self.pump], timeout=AGAIN_SECONDS)
        finally:  # also if the policy is closed in the meantime: nothing else ends the pump
            self.pump.cancel()
            await asyncio.wait([self.pump])
        return sum((event.usage for event in self._events), Usage())

    async def _read(self, body: dict[str, Any], headers: Mapping[str, str]) -> None:
        try:
            async with aclosing(self._http.events("/generate", body, SSEPayload, headers)) as wires:
                async for wire in wires:
                    self._events.append(self._reader.read(wire))
                    self._arrived.set()
        finally:
            self._arrived.set()


class StepSplitter:
    """A converter from events to chunks: a chunk ends with the token that completes the separator.

    Args:
        request: The request that is being answered.
        texts: Decodes token ids; used if a step ends within an event that brought several tokens.

    Attributes:
        ids: The token ids of all chunks so far.
    """

    def __init__(self, request: StepRequest, texts: Texts) -> None:
        self.ids: list[int] = []
        self._before = list(request.ids[-CONTEXT:])
        self._rollout = request.rollout
        self._separator = Separator(request.separator)
        self._texts = texts

    async def chunks(self, event: StreamEvent) -> list[Chunk]:
        """Return the chunks of one event; the first one has the prompt's counts, and each counts its own tokens."""
        pieces = await self._pieces(event)
        self.ids += event.ids
        chunks = []
        for place, (ids, text, end) in enumerate(pieces):
            last = place == len(pieces) - 1
            prompt = event.usage if place == 0 else Usage()
            usage = Usage(prompt.prompt_computed, prompt.prompt_cached, len(ids))
            finish = event.finish if last else None
            chunks.append(Chunk(tuple(ids), text, end or finish == "step", finish, usage))
        return chunks

    async def _pieces(self, event: StreamEvent) -> list[tuple[list[int], str, bool]]:
        """Split an event at the ends of steps; return ids and text of each piece, and whether a step ends with it."""
        if not self._rollout:
            return [(event.ids, event.text, False)]
        ids, text, separator = event.ids, event.text, self._separator
        if len(ids) < 2 or not separator.within(text):
            return [(ids, text, separator.add(text))]
        # Several tokens came at once, and a step ends among them: decoding each prefix shows at which one.
        before = (self._before + self.ids)[-CONTEXT:]
        whole = await self._texts([[*before, *ids[:end]] for end in range(len(ids) + 1)])
        pieces: list[tuple[list[int], str, bool]] = []
        cut = shown = spent = 0
        for end in range(1, len(ids) + 1):
            reach = len(text) if end == len(ids) else max(spent, len(whole[end]) - len(whole[0]))
            ends, spent = separator.add(text[spent:reach]), reach
            if ends or end == len(ids):
                pieces.append((ids[cut:end], text[shown:spent], ends))
                cut, shown = end, spent
        return pieces
