"""One continuation as SGLang streams it: events of the wire, and the chunks of steps that they become."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

from msgspec import Struct

from tts_tui.backends.engine.detokenizer import CONTEXT, OVERSHOOT, Separator
from tts_tui.backends.remote.http import Http
from tts_tui.backends.remote.replies import TokenCounts
from tts_tui.backends.remote.untrusted import Failure, Matched, ServerText
from tts_tui.errors import BackendBadResponse, BackendError, BackendOverloaded, BackendUnavailable, RequestRefused
from tts_tui.protocols import Chunk, Finish, StepRequest, TokenId, Usage

AGAIN_SECONDS = 0.2
"""An abort that came before the request itself had no effect: it is sent again after this long."""

Texts = Callable[[Sequence[Sequence[int]]], Awaitable[list[str]]]
"""From token ids to text, many at once."""


class Reason(Struct):
    """How a request ended."""

    type: ServerText | None = None
    matched: Matched | None = None
    message: ServerText | None = None


class Meta(TokenCounts):
    """What SGLang says of a request so far."""

    finish_reason: Reason | None = None


class SSEPayload(Struct):
    """One event as it is sent. Text and ids are new ones or all so far, as the server was started."""

    text: str = ""
    output_ids: list[TokenId] = []
    meta_info: Meta | None = None
    error: Failure | None = None


class StreamEvent(Struct):
    """What one event brought.

    Attributes:
        ids: New token ids.
        text: New text.
        usage: What it adds to the counts.
        finish: How the request ended, with its last event.
        aborted: Why the server gave the request up, with its last event.
        unasked: What ended the request though nobody asked for it, with its last event.
    """

    ids: list[int]
    text: str
    usage: Usage
    finish: Finish | None = None
    aborted: ServerText | str | None = None
    unasked: ServerText | None = None


class EventReader:
    """Makes events of what one request brings.

    Args:
        url: The server, for messages.
        stops: The stop texts of the request: no other text ends a step.
        vocabulary: How many token ids the model has; 0 if that is not known.
        most: How many tokens were asked for at most; 0 for no limit.
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
        """The event of `wire`.

        Raises:
            BackendError: The server says that the request failed, or the data makes no sense.
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
        # Servers send all tokens so far, or new ones only (--incremental-streaming-output): lengths tell which.
        self._whole = self._whole or (not first and len(wire.output_ids) == meta.completion_tokens > new)
        text = wire.text
        if self._whole:
            text, self._text = wire.text[len(self._text) :], wire.text
        elif len(wire.output_ids) == meta.completion_tokens:  # nothing came before: it may be either
            self._text = wire.text
        self._tokens = meta.completion_tokens
        event = StreamEvent(ids, text, usage)
        if meta.finish_reason is not None:
            self._end(event, meta.finish_reason)
        return event

    def _end(self, event: StreamEvent, reason: Reason) -> None:
        """Set how the request ended.

        SGLang says "stop" with a text of its own where a request failed, as for invalid logits.
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
    """Return the error for a stream that goes on behind the `most` tokens that were asked for."""
    return BackendBadResponse(f"{url} writes on beyond the {most} tokens that it was asked for")


def check_vocabulary(ids: Sequence[int], size: int, url: str) -> None:
    """Check that token ids from a server are in its model's vocabulary.

    Args:
        ids: The ids, known not to be negative.
        size: How many there are; 0 if that is not known.
        url: The server, for messages.

    Raises:
        BackendBadResponse: One of them is not.
    """
    if size and ids and max(ids) >= size:
        raise BackendBadResponse(f"{url} sent the token id {max(ids)}, and its model has {size}")


class Stream:
    """One request under way. It is read by a task of its own, so that whoever listens can be cancelled at any moment.

    Args:
        http: The server.
        body: The request; its `rid` is what it is aborted by.
        headers: Sent with it.
        abort: Ends a request on the server, by its `rid`.
        vocabulary: How many token ids the model has; 0 if that is not known.

    Attributes:
        done: It has ended by itself.
        pump: The task that reads it, up to the end of the answer.
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
        """All events.

        Raises:
            BackendError: As `Reader.read` and `Http.events`.
        """
        while True:
            while self._events:
                event = self._events[0]  # one that raises stays, for `abort` to count
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
        """Ends the request on the server; returns what it had sampled and nobody has read.

        Args:
            seconds: How long to wait for the server's last word; then the connection is closed, which ends it too.
        """
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while not self.pump.done():
                        await self._abort(self._rid)
                        await asyncio.wait([self.pump], timeout=AGAIN_SECONDS)
        finally:  # also where the policy is closed in the meantime: nobody else ends the pump
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
    """Makes chunks of events: a chunk ends with the token that completes the separator.

    Args:
        request: What was asked.
        texts: Turns ids into text, where one event brought more tokens than one.

    Attributes:
        ids: All tokens so far.
    """

    def __init__(self, request: StepRequest, texts: Texts) -> None:
        self.ids: list[int] = []
        self._before = list(request.ids[-CONTEXT:])
        self._rollout = request.rollout
        self._separator = Separator(request.separator)
        self._texts = texts

    async def chunks(self, event: StreamEvent) -> list[Chunk]:
        """The chunks of one event; the first has the prompt's counts, each has its own tokens."""
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
        """Ids, text, and whether a step ends there."""
        if not self._rollout:
            return [(event.ids, event.text, False)]
        ids, text, separator = event.ids, event.text, self._separator
        if len(ids) < 2 or not separator.within(text):
            return [(ids, text, separator.add(text))]
        # Several tokens came at once, and a step ends among them: their texts say at which.
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
