"""The scheduler with a model that only writes down which token went into which slot."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_tui.backends.engine import scheduler as module
from tts_tui.backends.engine.scheduler import BatchRow, Scheduler


class Bench:
    """Runs the engine's loop, and remembers for every slot the whole sequence that its token ended.

    Attributes:
        ran: Tokens that passed the model.
        samples: Tokens that were sampled.
    """

    def __init__(self, slots: int, seed: int, *, rows: int = 6, chunk: int = 5, letters: int = 3) -> None:
        self.scheduler: Scheduler[BatchRow] = Scheduler(slots, rows=rows, chunk=chunk)
        self.content: dict[int, tuple[int, ...]] = {}
        self.random = random.Random(seed)
        self.letters = letters
        self.left: dict[BatchRow, int] = {}
        self.ran = self.samples = 0

    def add(self, ids: tuple[int, ...], tokens: int) -> BatchRow:
        row = BatchRow(ids, samples=tokens > 0)
        self.left[row] = tokens
        self.scheduler.add(row)
        return row

    def round(self) -> None:
        self.scheduler.admit()
        for row in [row for row in self.scheduler.rows if row.ready]:
            assert [self.content[slot] for slot in row.last_slots(3)] == [
                tuple(row.ids[:end]) for end in range(max(1, len(row.ids) - 2), len(row.ids) + 1)
            ]
            if self.left[row]:
                self.left[row] -= 1
                self.samples += 1
                row.ids.append(self.random.randrange(self.letters))
            if not self.left[row]:
                self.scheduler.end(row)
        self.check()
        batch = self.scheduler.batch()
        for row in batch:
            slots = [slot for node in self.scheduler.path(row) for slot in node.slots] + row.tail
            assert [self.content[slot] for slot in slots] == [tuple(row.ids[: n + 1]) for n in range(row.computed)]
        for row in batch:
            for at, slot in enumerate(row.taken, start=row.computed):
                self.content[slot] = tuple(row.ids[: at + 1])
            self.ran += len(row.taken)
        self.check()
        self.scheduler.ran(batch)
        self.check()

    def check(self) -> None:
        """Every slot is in exactly one place."""
        scheduler = self.scheduler
        places = [slot for node in scheduler.tree.nodes() for slot in node.slots]
        for row in scheduler.rows:
            places += row.tail + row.spare + row.taken
        assert len(set(places)) == len(places)
        assert len(places) + scheduler.slots.free == scheduler.slots.capacity

    def finish(self, rounds: int) -> None:
        for _ in range(rounds):
            if not self.scheduler.rows and not self.scheduler.queue:
                break
            self.round()
        assert not self.scheduler.rows
        assert not self.scheduler.queue
        assert self.scheduler.tree.evictable() == self.scheduler.tree.tokens


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple)
asked = st.lists(st.tuples(prompts, st.integers(0, 12)), min_size=1, max_size=14)


@settings(deadline=None)
@given(asked, st.integers(24, 80), st.integers(0, 99), st.data())
def test_everyone_finishes_and_no_slot_is_lost(
    requests: list[tuple[tuple[int, ...], int]], slots: int, seed: int, data: st.DataObject
) -> None:
    bench = Bench(slots, seed)
    rows = []
    for ids, tokens in requests:
        rows.append(bench.add(ids, tokens))
        for _ in range(data.draw(st.integers(0, 2))):
            bench.round()
        if data.draw(st.integers(0, 5)) == 0:
            dropped = data.draw(st.sampled_from(rows))
            if not dropped.ended:
                dropped.ended = True
                bench.scheduler.drop(dropped)
                bench.check()
    bench.finish(600)


@settings(deadline=None)
@given(asked, st.integers(0, 99), st.data())
def test_with_room_for_all_nothing_runs_twice(
    requests: list[tuple[tuple[int, ...], int]], seed: int, data: st.DataObject
) -> None:
    # Letters that do not repeat: what different rows sample is different.
    bench = Bench(2000, seed, letters=10**9)
    rows = []
    for ids, tokens in requests:
        rows.append(bench.add(ids, tokens))
        for _ in range(data.draw(st.integers(0, 2))):
            bench.round()
    bench.finish(600)
    beginnings = {ids[: n + 1] for ids, _ in requests for n in range(len(ids))}
    assert bench.ran == len(beginnings) + bench.samples
    assert bench.ran == bench.scheduler.tree.tokens
    reports = [row.report() for row in rows]
    assert sum(usage.prompt_computed for usage in reports) == len(beginnings)
    assert [u.prompt_computed + u.prompt_cached for u in reports] == [len(ids) for ids, _ in requests]


def test_what_is_reserved_ahead_is_given_back_before_anyone_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE", 8)
    bench = Bench(260, 1, letters=10**9, chunk=500)
    ahead = bench.add((0,), 50)
    while len(ahead.spare) < 30:
        bench.round()
    free = bench.scheduler.slots.free
    other = bench.add(tuple(range(1, free - 9)), 20)
    bench.round()
    assert bench.scheduler.slots.free < other.given
    bench.finish(100)
    assert len(other.ids) == other.given + 20
    # Together they just fit.
    assert bench.scheduler.preemptions == 0


def test_the_oldest_row_is_never_sent_back() -> None:
    bench = Bench(40, 1, letters=10**9)
    first, *others = [bench.add((k,), 30) for k in range(4)]
    while not first.ended:
        bench.round()
        assert first.ended or first.node is not None
    assert bench.scheduler.preemptions > 0
    bench.finish(600)
    assert {len(row.ids) for row in [first, *others]} == {31}


def test_those_who_only_read_go_first() -> None:
    bench = Bench(100, 1, rows=1)
    writers = [bench.add((0, k), 5) for k in (1, 2)]
    bench.round()
    reader = bench.add((0, 1), 0)
    bench.round()
    assert reader.ended
    assert not any(row.ended for row in writers)
    bench.finish(100)
