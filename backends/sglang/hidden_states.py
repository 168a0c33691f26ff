"""Hidden states of a policy on an SGLang server over a problem, for `ExposesHiddenStates`.

A server that was started with `--enable-return-hidden-states` returns them. The behaviour of SGLang 0.5.23 was observed
on a running server, and the requests here are designed around it:

- `return_hidden_states` returns the final normed states of the tokens that the request computed, `[[row, …]]`, and none
  of those that were in the radix cache. `logprob_start_len` bounds what is taken from the cache, so the tokens from
  there on are always computed, also when the request is repeated. The tokens before the problem are computed by a
  separate request first: the reply then holds exactly the problem's rows. This also leaves the complete prompt in the
  cache.
- A request for no token (`max_new_tokens` 0) gets no states, so each requests one token, which is counted.
- A number takes 20 bytes of JSON, and a row of 4096 of them 80 kB: the states of a long problem are requested in
  pieces.
- A request that is computed in two chunks, as on a busy server, returns the rows of the last chunk only: it is
  repeated.

Versions before 0.5.23 may return the rows of another request in the same batch, and servers with speculative decoding
may return other states than the last ones: neither is asked for states.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tts_tui.backends.remote.http import UnexpectedReply
from tts_tui.backends.remote.replies import Generated, ServerSettings
from tts_tui.backends.sglang.server import version_of
from tts_tui.errors import BackendBadResponse, RequestRefused
from tts_tui.protocols import PromptEncoding, Usage

PIECE = 128
"""Maximum number of tokens whose states are requested at once."""
TRIES = 5
"""Maximum number of attempts for a piece whose reply is incomplete."""
LEAST = (0, 5, 23)
"""The oldest version of SGLang that is asked for states."""

Ask = Callable[[dict[str, Any]], Awaitable[Generated]]


def shows_states(settings: ServerSettings) -> bool:
    """Return whether a server with these settings returns the last hidden states, and those of the right request."""
    other = settings.speculative_algorithm or settings.enable_return_aux_hidden_states
    return bool(settings.enable_return_hidden_states) and version_of(settings) >= LEAST and not other


def another(chat: Sequence[dict[str, str]], problem: str) -> list[dict[str, str]] | None:
    """Return `chat` with a different problem, which begins with another digit; None if it does not contain `problem`.

    Comparing the tokens of both chats shows where the problem begins. The replacement is a digit because a space before
    a digit is often a separate token, and then in both prompts, while a space before a letter is part of its token.
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
    """Return the length of the longest common prefix of two sequences of tokens."""
    same = (place for place, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)
    return next(same, min(len(one), len(other)))


async def read(
    ids: Sequence[int], start: int, ask: Ask, url: str, late: Callable[[Usage], None] | None = None
) -> PromptEncoding:
    """Return the normalized mean state over the tokens of `ids` from `start` on.

    Args:
        ids: The token ids of a prompt.
        start: Number of leading tokens to leave out; less than all.
        ask: Sends a request to `/generate` and returns its reply.
        url: The server's address, for messages.
        late: Called with the tokens spent, if nothing is returned.

    Returns:
        The state, scaled to length 1, with the token usage. The state is empty if the server returns none, because it
        was restarted without the flag or sent only incomplete replies.

    Raises:
        BackendError: The server failed, or a reply is invalid.
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
            except RequestRefused:  # the server was restarted without the flag
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
    length = math.hypot(*sums)  # scaling the sum gives the same vector as scaling the mean
    return tuple(value / length for value in sums) if length else tuple(sums)


def usage_of(reply: Generated) -> Usage:
    """Return the token usage of a request from its reply."""
    counts = reply.meta_info
    return Usage(counts.prompt_tokens - counts.cached_tokens, counts.cached_tokens, counts.completion_tokens)


def _body(ids: Sequence[int], tokens: int, start: int | None = None) -> dict[str, Any]:
    drawing = {"max_new_tokens": tokens, "temperature": 0}
    states = {"return_hidden_states": True, "return_logprob": True, "logprob_start_len": start}
    return {"input_ids": ids, "sampling_params": drawing, **({} if start is None else states)}


def _total(rows: Sequence[Any], url: str) -> list[float]:
    """Return the sum of the rows.

    Raises:
        BackendBadResponse: The rows are not lists of finite numbers, all of one length.
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
