"""Requests to the engine: rows that generate and rows that only read, each with a queue for its results."""

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
"""A function that decodes ids to text and skips special tokens."""


class Stats(Struct, frozen=True):
    """Statistics of an engine: its current load and its totals.

    Attributes:
        running: The number of rows in the batch.
        queued: The number of waiting requests.
        kv_used: The number of slots that hold a token or are reserved for one.
        kv_capacity: The number of slots in the pool.
        forwards: The number of forward passes so far.
        computed: The number of tokens that have passed through the model.
        sampled: The number of tokens sampled.
        preemptions: How often a row had to give up its slots.
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
    """The model's hidden states at the end of a prefix.

    Attributes:
        features: Tensor `[tokens, width]`, float32 on the CPU: the final normed states of the requested last tokens.
        computed: The number of tokens of the prefix that had to be run.
        cached: The number of tokens of the prefix that were already in the pool.
    """

    features: Any
    computed: int
    cached: int


class Job(BatchRow):
    """A row, with the queue through which its results reach the caller.

    A result is a `Chunk`, a `HiddenState`, or an error message if there will be none.
    """

    def __init__(self, ids: Sequence[int], *, samples: bool) -> None:
        super().__init__(ids, samples=samples)
        self.loop = asyncio.get_running_loop()
        self.results: asyncio.Queue[Any] = asyncio.Queue()


class HiddenStateJob(Job):
    """A request for the hidden states of a sequence's last tokens.

    Attributes:
        last: The number of last tokens whose states are returned.
    """

    def __init__(self, ids: Sequence[int], last: int) -> None:
        super().__init__(ids, samples=False)
        self.last = last


class GenerateJob(Job):
    """A request for a continuation.

    Attributes:
        request: The request to serve.
        random: The random generator; one number from it determines each token.
        left: The number of tokens that may still be sampled.
    """

    def __init__(self, request: StepRequest, decode: Decode) -> None:
        super().__init__(request.ids, samples=True)
        self.request = request
        self.random = random.Random(request.seed)
        self.left = request.max_tokens
        self._text = Detokenizer(decode, request.ids)
        self._separator = Separator(request.separator)

    def unread(self) -> Usage:
        """Return the usage of chunks that have not been read, and discard these chunks."""
        rest = Usage()
        while not self.results.empty():
            item = self.results.get_nowait()
            if isinstance(item, Chunk):
                rest += item.usage
        return rest

    def append(self, token: int, eos: frozenset[int], context: int) -> Chunk:
        """Append a sampled token and return its chunk, whose `finish` is set if it is the last one."""
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
