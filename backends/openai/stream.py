"""Streaming of one completion from an OpenAI-compatible server: packing of text into ids, events, and chunks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from tts_tui.backends.engine.detokenizer import OVERSHOOT, Separator
from tts_tui.backends.remote.untrusted import Code, Failure, Matched, ServerText
from tts_tui.backends.sglang.stream import endless
from tts_tui.errors import (
    BackendBadResponse,
    BackendError,
    BackendOverloaded,
    BackendUnavailable,
    ContextExceeded,
    RequestRefused,
)
from tts_tui.protocols import Chunk, Finish, StepRequest, TokenCount, Usage

END = 0
"""Id of the end of a text; it stands for no bytes."""
BYTES = 3
"""Maximum number of bytes in an id: their number takes two more bits, and the tree stores ids as 32-bit numbers."""

FINISH: dict[str, Finish] = {"stop": "eos", "length": "length"}
"""Finish reasons by their names in the protocol. No stop text is ever requested, so "stop" is the end of the text."""

PIECES = 5
"""Maximum number of events that one token may be spread over: gateways may re-split texts, down to characters."""

_TOO_LONG = re.compile(
    r"context.?(length|size|window)|max_model_len|\b(prompt|input|sequence)\b.{0,40}(too long|longer|exceed)",
    re.IGNORECASE,
)


def pack(text: str) -> tuple[int, ...]:
    """Return `text` as ids, each of which holds up to three of its UTF-8 bytes and their number."""
    data = text.encode(errors="replace")
    pieces = (data[at : at + BYTES] for at in range(0, len(data), BYTES))
    return tuple(len(piece) << 8 * BYTES | int.from_bytes(piece, "big") for piece in pieces)


def unpack(ids: Sequence[int]) -> str:
    """Return the text of ids, however it was divided when it was packed.

    Raises:
        BackendError: The ids were not made by `pack`.
    """
    data = bytearray()
    for number in ids:
        length = number >> 8 * BYTES
        low = number & ((1 << 8 * BYTES) - 1)
        if number != END and not (1 <= length <= BYTES and low < 1 << 8 * length):
            raise _foreign()
        data += low.to_bytes(length, "big")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _foreign() from None


def _foreign() -> BackendError:
    return BackendError(
        "these are token ids of another policy: a recording goes on with the policy that it was made with"
    )


# -- the wire ----------------------------------------------------------------------------------------------------------


class Details(Struct):
    """The details of the prompt tokens: how many were cached."""

    cached_tokens: TokenCount | None = None


class ReportedUsage(Struct):
    """Token counts of a request so far, as reported by the server."""

    prompt_tokens: TokenCount = 0
    completion_tokens: TokenCount = 0
    prompt_tokens_details: Details | None = None


class CompletionChoice(Struct):
    """New text, and how it ended; SGLang and vLLM also report the stop text or token."""

    text: str | None = None
    finish_reason: ServerText | None = None
    matched_stop: Matched | None = None
    stop_reason: Matched | None = None


class CompletionEvent(Struct):
    """One event of a streamed completion, as sent by the server."""

    choices: list[CompletionChoice] = []
    usage: ReportedUsage | None = None
    object: str = ""
    error: Failure | None = None
    message: ServerText | None = None
    code: Code | None = None

    @property
    def text(self) -> str:
        """New text; empty if the event has none."""
        return (self.choices[0].text or "") if self.choices else ""

    @property
    def reason(self) -> ServerText | None:
        """Finish reason in the server's words; None before the end, for which some servers send an empty string."""
        return (self.choices[0].finish_reason or None) if self.choices else None

    @property
    def stop_text(self) -> ServerText | None:
        """Stop text at which the request ended; None if the server names none."""
        named = (self.choices[0].matched_stop, self.choices[0].stop_reason) if self.choices else ()
        return next((stop.text for stop in named if stop is not None and not stop.is_token and stop.text), None)


def check(url: str, event: CompletionEvent) -> CompletionEvent:
    """Return `event`, unless it reports that the request failed.

    Args:
        url: The server's address, for messages.
        event: The event.

    Raises:
        BackendError: The event reports a failure.
    """
    if event.error is not None or event.object == "error":
        said = (event.error.text if event.error else None) or event.message or "without a reason"
        raise _failed(url, (event.error.code if event.error else 0) or event.code or 0, said)
    return event


def _cut_off(url: str, event: CompletionEvent) -> BackendError:
    """Return the error for a last event whose reason is not a normal end, such as an abort or a content filter.

    SGLang reports invalid logits as a stop text.
    """
    if event.reason == "abort":
        return BackendUnavailable(f"{url} gave the request up: {event.reason}")
    return BackendBadResponse(
        f"{url} ended a text for a reason that was not asked for ({event.stop_text or event.reason}): see the "
        "server's log"
    )


def _failed(url: str, code: int, said: ServerText | str) -> BackendError:
    if code in (429, 503):
        return BackendOverloaded(f"{url} is overloaded: {said}")
    refused = RequestRefused(f"{url} refused the request: {said}", code or 400)
    if 400 <= code < 500:
        return refused
    return refused if context_refused(refused) else BackendBadResponse(f"{url} failed: {said}")


def context_refused(error: RequestRefused) -> bool:
    """Return whether the reason for a refusal is that prompt and completion do not fit the context."""
    return _TOO_LONG.search(str(error)) is not None


def context_exceeded(error: RequestRefused) -> ContextExceeded:
    """Convert a refusal to a `ContextExceeded` error with advice for users."""
    return ContextExceeded(
        f"the path no longer fits the server's context: use a shorter prompt or fewer, shorter steps ({error})"
    )


# -- counts and chunks -------------------------------------------------------------------------------------------------


class UsageMeter:
    """A counter for the tokens of one stream: by the server's counts, or else by the events received.

    Args:
        prompt: Number of prompt tokens to assume if the server never reports it.

    Attributes:
        completion: Number of tokens sampled so far.
    """

    def __init__(self, prompt: int) -> None:
        self.completion = 0
        self._step = 0
        self._guess: int | None = prompt

    def add(self, event: CompletionEvent) -> Usage:
        """Return the usage that one event adds. Text without a count is one token, until a count corrects it."""
        if event.usage is None:
            usage = Usage(completion=1 if event.text else 0)
        else:
            # A correction takes back at most what was counted for the current step: earlier steps are settled.
            new = max(event.usage.completion_tokens - self.completion, -self._step)
            usage = self._prompt(event.usage) + Usage(completion=new)
        self.completion += usage.completion
        self._step += usage.completion
        return usage

    def step(self) -> None:
        """Record that a step has ended: later corrections leave its count unchanged."""
        self._step = 0

    def rest(self) -> Usage:
        """Return the estimated usage of the prompt, unless the server has reported it."""
        guess, self._guess = self._guess, None
        return Usage(prompt_computed=guess or 0)

    def _prompt(self, counts: ReportedUsage) -> Usage:
        if self._guess is None:
            return Usage()
        self._guess = None
        details = counts.prompt_tokens_details
        cached = min((details.cached_tokens or 0) if details else 0, counts.prompt_tokens)
        return Usage(counts.prompt_tokens - cached, cached)


class TextStepSplitter:
    """A converter from events to chunks: a chunk ends with the separator; the last one waits until all is counted.

    Args:
        request: The request that is being answered.

    Attributes:
        ids: The ids of all chunks so far.
        done: True if nothing more needs to be read: the requested step is finished, or the completion was cut off.
        settled: True if the complete usage of the stream has been reported, in its chunks or by `rest`.
    """

    def __init__(self, request: StepRequest) -> None:
        self.ids: list[int] = []
        self.done = False
        self.settled = True  # no event came yet
        self._rollout = request.rollout
        self._separator = Separator(request.separator)
        self._meter = UsageMeter(len(request.ids))
        self._due = Usage()
        self._last: tuple[str, bool] = ("", False)
        self._finish: Finish | None = None
        self._cut_off: CompletionEvent | None = None
        self._most, self._events = request.max_tokens, 0
        self._is_endless = False

    def add(self, event: CompletionEvent) -> list[Chunk]:
        """Return the chunks of one event, except for the last chunk of the stream; see `last`."""
        self.settled = False
        self._due += self._meter.add(event)
        self._events += 1
        counted = event.usage.completion_tokens if event.usage is not None else 0
        if max(counted, self._events // PIECES) > self._most + OVERSHOOT:
            self.done = self._is_endless = True
            return []
        pieces = self._pieces(event.text) if event.text else []
        if not self._rollout and pieces and pieces[0][1]:
            self.done = True
            self._finish, self._last, pieces = "step", pieces[0], []
        elif event.reason is not None and (event.reason not in FINISH or event.stop_text is not None):
            self.done, self._cut_off = True, event
        elif event.reason is not None:
            self._finish = FINISH[str(event.reason)]
            self._last = pieces.pop() if pieces else ("", False)
        return [self._chunk(text, end) for text, end in pieces]

    def last(self, url: str) -> Chunk:
        """Return the last chunk of the stream.

        Args:
            url: The server's address, for messages.

        Raises:
            BackendError: The stream ended without a normal end of the completion, or exceeded the requested length.
        """
        if self._is_endless:
            raise endless(url, self._most)
        if self._cut_off is not None:
            raise _cut_off(url, self._cut_off)
        if self._finish is None:
            raise BackendBadResponse(f"{url} ended its answer without saying why")
        self._due += self._meter.rest()
        self.settled = True
        return self._chunk(*self._last, self._finish)

    def rest(self) -> Usage:
        """Return the part of the usage of a stream that ended early that is in no chunk."""
        self.settled = True
        return self._due + self._meter.rest()

    def _chunk(self, text: str, end: bool, finish: Finish | None = None) -> Chunk:
        ids = (*pack(text), END) if finish == "eos" else pack(text)
        self.ids += ids
        usage, self._due = self._due, Usage()
        if end:
            self._meter.step()
        return Chunk(ids, text, end, finish, usage)

    def _pieces(self, text: str) -> list[tuple[str, bool]]:
        """Split `text` after each separator; return the pieces, and whether a step ends with each."""
        pieces, begin = [], 0
        if self._separator.within(text):
            for at, character in enumerate(text, 1):
                if self._separator.add(character):
                    pieces.append((text[begin:at], True))
                    begin = at
        else:
            self._separator.add(text)
        return [*pieces, (text[begin:], False)] if begin < len(text) else pieces
