"""What the engine is asked for: rows that write and rows that only read, each with the way back to whoever waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from tts_tui.backends.engine.detokenizer import Detokenizer, Separator
from tts_tui.backends.engine.scheduler import BatchRow
from tts_tui.protocols import Chunk, Finish, StepRequest, Usage

Decode = Callable[[list[int]], str]
"""Text of ids, special tokens left out."""


class Stats(Struct, frozen=True):
    """What an engine is doing and has done.

    Attributes:
        running: Rows in the batch.
        queued: Requests that wait.
        kv_used: Slots that hold a token or are reserved for one.
        kv_capacity: Slots of the pool.
        forwards: Forward passes so far.
        computed: Tokens that passed the model.
        sampled: Tokens that were sampled.
        preemptions: How often a row had to give its slots up.
    """

    running: int
    queued: int
    kv_used: int
    kv_capacity: int
    forwards: int = 0
    computed: int = 0
    sampled: int = 0
    preemptions: int = 0


class HiddenState(NamedTuple):
    """The model's states at the end of a prefix.

    Attributes:
        features: Tensor `[tokens, width]`, float32 on the CPU: the final normed states of the last tokens that were
            asked for.
        computed: Tokens of the prefix that had to be run for it.
        cached: Tokens of the prefix that were in the pool.
    """

    features: Any
    computed: int
    cached: int


class Job(BatchRow):
    """A row, and the mailbox of whoever asked for it.

    Mail is a `Chunk`, a `State`, or a sentence that says why there will be none.
    """

    def __init__(self, ids: Sequence[int], *, samples: bool) -> None:
        super().__init__(ids, samples=samples)
        self.loop = asyncio.get_running_loop()
        self.results: asyncio.Queue[Any] = asyncio.Queue()


class HiddenStateJob(Job):
    """Wants the states at its last tokens.

    Attributes:
        last: How many of them.
    """

    def __init__(self, ids: Sequence[int], last: int) -> None:
        super().__init__(ids, samples=False)
        self.last = last


class GenerateJob(Job):
    """Wants a continuation.

    Attributes:
        request: What was asked.
        random: One number of it decides each token.
        left: Tokens that it may still sample.
    """

    def __init__(self, request: StepRequest, decode: Decode) -> None:
        super().__init__(request.ids, samples=True)
        self.request = request
        self.random = random.Random(request.seed)
        self.left = request.max_tokens
        self._text = Detokenizer(decode, request.ids)
        self._separator = Separator(request.separator)

    def unread(self) -> Usage:
        """What chunks cost that nobody has read."""
        rest = Usage()
        while not self.results.empty():
            item = self.results.get_nowait()
            if isinstance(item, Chunk):
                rest += item.usage
        return rest

    def append(self, token: int, eos: frozenset[int], context: int) -> Chunk:
        """Adds a sampled token; the chunk says whether that was the last one."""
        self.ids.append(token)
        self.left -= 1
        text = "" if token in eos else self._text.add(token)
        step_end = self._separator.add(text)
        finish: Finish | None = None
        if token in eos:
            finish = "eos"
        elif step_end and not self.request.rollout:
            finish = "step"
        elif self.left <= 0 or len(self.ids) >= context:
            finish = "length"
        if finish or step_end:
            text += self._text.end()
            self.settled = True
        return Chunk((token,), text, step_end, finish, self.report() + Usage(completion=1))
