"""Scheduling of requests and slots: which rows run next, and where their tokens go in the pool. Without torch."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import Generic, TypeVar

from tts_tui.backends.engine.kv_cache import RadixNode, RadixTree, Slots
from tts_tui.protocols import Usage

SPARE = 16
"""The fewest slots that a generating row reserves in advance, so that its tokens are adjacent in the pool."""

SPARE_MOST = 256
"""The most slots that a row reserves in advance; up to this limit it reserves as many as it has generated."""


class BatchRow:
    """One sequence that is running through the model, or waiting to.

    Attributes:
        ids: The tokens: those of the request and those sampled since.
        given: The number of tokens in the request.
        samples: True if the row generates tokens, False if it only reads.
        computed: The number of `ids` that have passed through the model; their keys are in the pool.
        node: The prefix tree node where the stored part of the row ends; None while the row waits.
        tail: The slots of computed tokens after `node`.
        spare: The slots reserved for the next tokens.
        taken: The slots of the tokens in the current forward pass.
        known: The number of `ids` when the row was admitted; the row reads up to there and generates after it.
        ended: True if no more tokens are sampled and only the last one has yet to be run.
        settled: True if a step is finished; the next forward pass adds it to the tree, where other rows can
            continue from it.
        age: The order of submission.
        computed_new: The number of prompt tokens run and not yet reported.
        cached_new: The number of prompt tokens reused and not yet reported.
    """

    _ages = count()

    def __init__(self, ids: Sequence[int], *, samples: bool = True) -> None:
        self.ids = list(ids)
        self.given = len(self.ids)
        self.samples = samples
        self.computed = 0
        self.node: RadixNode | None = None
        self.tail: list[int] = []
        self.spare: list[int] = []
        self.taken: list[int] = []
        self.known = self.given
        self.ended = False
        self.settled = False
        self.age = next(BatchRow._ages)
        self.computed_new = 0
        self.cached_new = 0
        self._most = 0

    @property
    def ready(self) -> bool:
        """True if all tokens have been run, so that the next one can be sampled."""
        return self.node is not None and self.computed == len(self.ids) and not self.ended

    def last_slots(self, n: int) -> list[int]:
        """Return the slots of the last `n` computed tokens, or of all if there are fewer."""
        slots, node = self.tail[-n:], self.node
        while len(slots) < n and node is not None and node.slots:
            slots = node.slots[len(slots) - n :] + slots
            node = node.parent
        return slots

    def report(self) -> Usage:
        """Return the prompt token usage since the last report."""
        usage = Usage(prompt_computed=self.computed_new, prompt_cached=self.cached_new)
        self.computed_new = self.cached_new = 0
        return usage

    def admit(self, node: RadixNode, length: int) -> None:
        """Start, or resume after a preemption, after `length` tokens that are in the tree and end at `node`."""
        if not self._most:
            self.cached_new += length
        self.node, self.computed, self.known = node, length, len(self.ids)
        self._most = max(self._most, length)

    def ran(self) -> None:
        """Record that the tokens in `taken` have passed through the model."""
        # Sampled tokens were counted when they were sampled; they are counted again only if they are run again.
        end = self.computed + len(self.taken)
        self.computed_new += max(0, min(end, max(self.given, self._most)) - self.computed)
        self.computed = end
        self._most = max(self._most, end)
        self.tail += self.taken
        self.taken = []


R = TypeVar("R", bound=BatchRow)


class Scheduler(Generic[R]):
    """A scheduler that admits requests, allocates slots to tokens, and stores computed tokens in the prefix tree.

    Args:
        slots: The number of tokens that the pool holds.
        rows: The most rows in a batch.
        chunk: The most prompt tokens in one forward pass, so that generating rows do not wait long for reading ones.
    """

    def __init__(self, slots: int, *, rows: int, chunk: int) -> None:
        self.slots = Slots(slots)
        self.tree = RadixTree()
        self.queue: deque[R] = deque()
        self.rows: list[R] = []
        self.preemptions = 0
        self._most = rows
        self._chunk = chunk

    def add(self, row: R) -> None:
        """Queue a new row; rows that only read go first, because the search waits for them to decide how to go on."""
        if row.samples:
            self.queue.append(row)
        else:
            self.queue.appendleft(row)

    def admit(self) -> None:
        """Admit waiting rows while there is room.

        A row whose prefix is currently being computed by another row waits for that row instead of computing it again.
        """
        waiting: list[R] = []
        while self.queue:
            row = self.queue.popleft()
            if row.samples and len(self.rows) >= self._most:
                waiting.append(row)
                break
            if self._coming(row):
                waiting.append(row)
                continue
            node, length = self.tree.match(row.ids)
            self.tree.pin(node)
            if self.rows and not self._room(len(row.ids) - length + SPARE * len(self.rows)):
                self.tree.unpin(node)
                waiting.append(row)
                break
            row.admit(node, length)
            insort(self.rows, row, key=lambda r: r.age)
        self.queue.extendleft(reversed(waiting))

    def batch(self) -> list[R]:
        """Return the rows of the next forward pass, oldest first, with the slots of their new tokens in `taken`."""
        budget = self._chunk
        for row in list(self.rows):
            if row.node is None:
                continue
            n = len(row.ids) - row.computed
            if n > 1:
                n = min(n, budget)
                budget -= n
            if n:
                self._take(row, n)
        return [row for row in self.rows if row.taken]

    def ran(self, batch: Sequence[R]) -> None:
        """Record a forward pass: store prompts and finished steps in the tree, and remove finished rows."""
        for row in batch:
            reads = row.computed < row.known
            row.ran()
            if reads or row.ended or row.settled:
                row.settled = False
                self._store(row)
            if row.ended:
                self._leave(row)

    def end(self, row: R) -> None:
        """Stop sampling for `row`, which leaves the batch once all of its tokens have been run."""
        row.ended = True
        if row.computed == len(row.ids):
            self.drop(row)

    def path(self, row: R) -> list[RadixNode]:
        """Return the tree nodes that hold the stored part of `row`."""
        assert row.node is not None
        return self.tree.path(row.node)

    def drop(self, row: R) -> None:
        """Remove `row` at once and keep its computed tokens in the tree; do nothing if it has already left."""
        if row.node is not None:
            self._store(row)
            self._leave(row)
        else:
            self.queue = deque(other for other in self.queue if other is not row)

    def _coming(self, row: R) -> bool:
        known = self.tree.peek(row.ids)
        if known == len(row.ids):
            return False
        for other in self.rows:
            reach = len(other.ids) if other.ended else other.known
            if (
                other.computed < reach
                and reach > known
                and other.ids[known] == row.ids[known]
                and other.ids[:known] == row.ids[:known]
            ):
                return True
        return False

    def _room(self, n: int) -> bool:
        return self.slots.free >= n or self.slots.free + self.tree.evictable() >= n

    def _take(self, row: R, n: int) -> None:
        """Move `n` slots into `row.taken`, making room first, in the worst case by preempting `row` itself."""
        while row.node is not None and (short := n - len(row.spare)) > 0:
            if self.slots.free >= short:
                last = row.spare[-1:] or row.tail[-1:] or row.node.slots[-1:]
                ahead = self._ahead(row)
                row.spare += self.slots.take(short + ahead, after=last[0] if last else None)
            elif freed := self.tree.evict(max(short - self.slots.free, self.slots.capacity // 64)):
                self.slots.give(freed)
            elif not self._reclaim(row):
                self._preempt()
        if row.node is not None:
            row.taken, row.spare = row.spare[:n], row.spare[n:]

    def _ahead(self, row: R) -> int:
        if row.ended or row.computed < row.known:
            return 0
        ahead = min(SPARE_MOST, max(SPARE, len(row.tail)))
        return ahead - 1 if self.slots.free > 4 * ahead * len(self.rows) else 0

    def _reclaim(self, keep: R) -> bool:
        """Free the slots that other rows have reserved in advance; return whether there were any."""
        found = False
        for row in self.rows:
            if row is not keep and row.spare:
                self.slots.give(row.spare)
                row.spare = []
                found = True
        return found

    def _preempt(self) -> None:
        """Preempt one row: one that has ended, which leaves, or else the youngest, which is queued again."""
        self.preemptions += 1
        victim = next((row for row in self.rows if row.ended), self.rows[-1])
        self._store(victim)
        self._leave(victim)
        if not victim.ended:
            victim.tail, victim.computed = [], 0
            self.queue.appendleft(victim)

    def _store(self, row: R) -> None:
        """Move the computed tokens of `row` from its tail into the tree."""
        if row.taken:
            self.slots.give(row.taken)
            row.taken = []
        if not row.tail:
            return
        assert row.node is not None
        tokens = row.ids[row.computed - len(row.tail) : row.computed]
        node, spare = self.tree.insert(row.node, tokens, row.tail)
        self.tree.pin(node)
        self.tree.unpin(row.node)
        row.node, row.tail = node, []
        self.slots.give(spare)

    def _leave(self, row: R) -> None:
        assert row.node is not None
        self.tree.unpin(row.node)
        self.slots.give(row.spare)
        row.node, row.spare = None, []
        self.rows.remove(row)
