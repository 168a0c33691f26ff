"""Who runs next, and in which slots: requests, the prefix tree and the pool's slots brought together, without torch."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import Generic, TypeVar

from tts_tui.backends.engine.kv_cache import RadixNode, RadixTree, Slots
from tts_tui.protocols import Usage

SPARE = 16
"""Slots that a writing row reserves ahead at least, so that its tokens lie side by side in the pool."""

SPARE_MOST = 256
"""The same at most: a row reserves as much as it has written."""


class BatchRow:
    """One sequence on its way through the model.

    Attributes:
        ids: Its tokens: those it came with and those sampled since.
        given: How many it came with.
        computed: How many of `ids` have passed the model; their keys are in the pool.
        node: Where the part of it that is in the prefix tree ends; None while it waits.
        tail: Slots of computed tokens behind `node`.
        spare: Slots reserved for the next tokens.
        taken: Slots of the tokens in the forward that runs now.
        known: How many of `ids` it had when it was admitted; up to there it is reading, behind it writing.
        ended: No token is sampled any more; only the last one is still to be run.
        settled: A step of it is whole, and goes into the tree with the next forward, where others can go on from it.
        age: Order of submission.
        computed_new: Prompt tokens run and not yet reported.
        cached_new: Prompt tokens reused and not yet reported.
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
        """Everything was run: the next token can be sampled."""
        return self.node is not None and self.computed == len(self.ids) and not self.ended

    def last_slots(self, n: int) -> list[int]:
        """Slots of the last `n` computed tokens, or of all if there are fewer."""
        slots, node = self.tail[-n:], self.node
        while len(slots) < n and node is not None and node.slots:
            slots = node.slots[len(slots) - n :] + slots
            node = node.parent
        return slots

    def report(self) -> Usage:
        """Prompt tokens since the last report."""
        usage = Usage(prompt_computed=self.computed_new, prompt_cached=self.cached_new)
        self.computed_new = self.cached_new = 0
        return usage

    def admit(self, node: RadixNode, length: int) -> None:
        """Begins, or goes on after it was preempted, behind `length` tokens that are in the tree."""
        if not self._most:
            self.cached_new += length
        self.node, self.computed, self.known = node, length, len(self.ids)
        self._most = max(self._most, length)

    def ran(self) -> None:
        """The tokens in `taken` passed the model."""
        # Sampled tokens were counted when they were sampled, unless this is not the first time that they run.
        end = self.computed + len(self.taken)
        self.computed_new += max(0, min(end, max(self.given, self._most)) - self.computed)
        self.computed = end
        self._most = max(self._most, end)
        self.tail += self.taken
        self.taken = []


R = TypeVar("R", bound=BatchRow)


class Scheduler(Generic[R]):
    """Admits requests, gives slots to tokens, and keeps what was computed in the prefix tree.

    Args:
        slots: Tokens that the pool holds.
        rows: Most rows at a time.
        chunk: Most prompt tokens of one forward, so that writing rows do not wait long for reading ones.
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
        """Takes a new row in. Rows that only read go first: someone waits for them to decide what is written next."""
        if row.samples:
            self.queue.append(row)
        else:
            self.queue.appendleft(row)

    def admit(self) -> None:
        """Lets waiting rows in, as far as there is room.

        A row whose beginning is just being computed by another row waits for that, instead of computing it again.
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
        """The rows of the next forward, with the slots of their new tokens in `taken`, oldest first."""
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
        """Books a forward: prompts and finished steps go into the tree, finished rows leave."""
        for row in batch:
            reads = row.computed < row.known
            row.ran()
            if reads or row.ended or row.settled:
                row.settled = False
                self._store(row)
            if row.ended:
                self._leave(row)

    def end(self, row: R) -> None:
        """No token is sampled for `row` any more. What it has yet to run it runs before it leaves."""
        row.ended = True
        if row.computed == len(row.ids):
            self.drop(row)

    def path(self, row: R) -> list[RadixNode]:
        """The nodes that hold the beginning of `row`."""
        assert row.node is not None
        return self.tree.path(row.node)

    def drop(self, row: R) -> None:
        """Takes `row` out at once; what it computed stays in the tree. Does nothing if it is gone already."""
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
        """Moves `n` slots into `row.taken`; makes room first, at worst by sending `row` itself back to the queue."""
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
        """Takes back what rows have reserved ahead."""
        found = False
        for row in self.rows:
            if row is not keep and row.spare:
                self.slots.give(row.spare)
                row.spare = []
                found = True
        return found

    def _preempt(self) -> None:
        """Sends one row back to the queue: one that has ended if there is any, else the youngest."""
        self.preemptions += 1
        victim = next((row for row in self.rows if row.ended), self.rows[-1])
        self._store(victim)
        self._leave(victim)
        if not victim.ended:
            victim.tail, victim.computed = [], 0
            self.queue.appendleft(victim)

    def _store(self, row: R) -> None:
        """Moves the computed tokens of `row` from its tail into the tree."""
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
