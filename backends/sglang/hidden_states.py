"""The states that a policy on an SGLang server has over a problem, for `ExposesHiddenStates`.

A server that was started with `--enable-return-hidden-states` returns them. What SGLang 0.5.23 does was seen on a
running server, and what is done here follows from it:

- `return_hidden_states` gives the final normed states of the tokens that the request computed, `[[row, …]]`: none of
  those that the radix cache had. `logprob_start_len` bounds what is taken from the cache, so the tokens from there on
  are always computed, asked twice as well. What is in front of the problem is computed by a request of its own before:
  a reply then holds the problem's rows and no others. It also leaves the whole prompt in the cache.
- A request for no token (`max_new_tokens` 0) gets no states, so each is for one token, which is counted.
- A number takes 20 bytes of JSON, and a row of 4096 of them 80 kB: a long problem is asked for piece by piece.
- A request that is computed in two chunks, as on a busy server, has the rows of the last chunk only: it is asked again.

Versions before 0.5.23 may give the rows of another request that was in the same batch, and those that speculate may
give other states than the last ones: neither is asked.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tts_tui.backends.remote.http import UnexpectedReply
from tts_tui.backends.remote.replies import Generated, Settings
from tts_tui.backends.sglang.server import version_of
from tts_tui.errors import BackendBadResponse, RequestRefused
from tts_tui.protocols import PromptEncoding, Usage

PIECE = 128
"""Most tokens whose states are asked for at once."""
TRIES = 5
"""How often a piece is asked for that comes incomplete."""
LEAST = (0, 5, 23)
"""The oldest version that is asked."""

Ask = Callable[[dict[str, Any]], Awaitable[Generated]]


def shows_states(settings: Settings) -> bool:
    """Whether a server that was started with `settings` returns the last hidden states, each of the right request."""
    other = settings.speculative_algorithm or settings.enable_return_aux_hidden_states
    return bool(settings.enable_return_hidden_states) and version_of(settings) >= LEAST and not other


def another(chat: Sequence[dict[str, str]], problem: str) -> list[dict[str, str]] | None:
    """`chat` with another problem, which begins with another digit; None if `problem` does not stand in it.

    A digit, for a space in front of one is often a token of its own, and then in both prompts; one in front of a letter
    is a part of its token.
    """
    text = problem.strip()
    places = (place for place in reversed(range(len(chat))) if text and text in chat[place].get("content", ""))
    place = next(places, None)
    if place is None:
        return None
    before, _, behind = chat[place]["content"].rpartition(text)
    changed = {**chat[place], "content": before + ("1" if text[0] == "0" else "0") + behind}
    return [*chat[:place], changed, *chat[place + 1 :]]


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    same = (place for place, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)
    return next(same, min(len(one), len(other)))


async def read(
    ids: Sequence[int], start: int, ask: Ask, url: str, late: Callable[[Usage], None] | None = None
) -> PromptEncoding:
    """The mean state over the tokens of `ids` from `start` on.

    Args:
        ids: A prompt.
        start: Of how many tokens in front no state is wanted; less than all.
        ask: Sends a request to `/generate` and returns its reply.
        url: For messages.
        late: Told what was spent, if nothing is returned.

    Raises:
        BackendError: The server failed, or a reply makes no sense.
    """
    usage, is_read = Usage(), False

    async def counted(body: dict[str, Any]) -> Generated:
        nonlocal usage
        reply = await ask(body)
        usage += usage_of(reply)
        return reply

    try:
        state = await _read(ids, start, counted, url)
        is_read = True
    except UnexpectedReply:
        raise _senseless(url) from None
    finally:
        if late is not None and not is_read and usage != Usage():
            late(usage)
    return PromptEncoding(state, usage)


async def _read(ids: Sequence[int], start: int, ask: Ask, url: str) -> tuple[float, ...]:
    if start:
        await ask(_body(ids[:start], 0))
    sums: list[float] = []
    for begin in range(start, len(ids), PIECE):
        end = min(begin + PIECE, len(ids))
        rows: Sequence[Any] = ()
        for _ in range(TRIES):
            try:
                reply = await ask(_body(ids[:end], 1, begin))
            except RequestRefused:  # it was started anew, without the flag
                return ()
            states = reply.meta_info.hidden_states
            rows = states[0] if states else []
            if len(rows) >= end - begin:
                break
        else:
            return ()
        piece = await asyncio.to_thread(_total, rows[begin - end :], url)
        if sums and len(sums) != len(piece):
            raise _senseless(url)
        sums = [left + right for left, right in zip(sums, piece, strict=True)] if sums else piece
    length = math.hypot(*sums)  # of the sum or of the mean: scaled they are the same
    return tuple(value / length for value in sums) if length else tuple(sums)


def usage_of(reply: Generated) -> Usage:
    """What a request has cost, by its reply."""
    counts = reply.meta_info
    return Usage(counts.prompt_tokens - counts.cached_tokens, counts.cached_tokens, counts.completion_tokens)


def _body(ids: Sequence[int], tokens: int, start: int | None = None) -> dict[str, Any]:
    drawing = {"max_new_tokens": tokens, "temperature": 0}
    states = {"return_hidden_states": True, "return_logprob": True, "logprob_start_len": start}
    return {"input_ids": ids, "sampling_params": drawing, **({} if start is None else states)}


def _total(rows: Sequence[Any], url: str) -> list[float]:
    """The sum of the rows.

    Raises:
        BackendBadResponse: They are no rows of numbers, all of one length.
    """
    try:
        total = [math.fsum(column) for column in zip(*rows, strict=True)]
    except (TypeError, ValueError, OverflowError):
        raise _senseless(url) from None
    if not total or not all(map(math.isfinite, total)):
        raise _senseless(url)
    return total


def _senseless(url: str) -> BackendBadResponse:
    return BackendBadResponse(f"{url} gave no hidden states for the problem, though it was started to give them")
