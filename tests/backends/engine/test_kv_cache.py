"""The slots and the prefix tree against models that are too simple to be wrong."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from tts_tui.backends.engine.kv_cache import RadixNode, RadixTree, Slots, runs

tokens = st.lists(st.integers(0, 2), max_size=8).map(tuple)


class SlotMachine(RuleBasedStateMachine):
    """Slots against a set of numbers."""

    held = Bundle("held")

    @initialize(capacity=st.integers(0, 40))
    def start(self, capacity: int) -> None:
        self.slots = Slots(capacity)
        self.free = set(range(capacity))

    @rule(target=held, n=st.integers(0, 12), after=st.none() | st.integers(0, 45))
    def take(self, n: int, after: int | None) -> object:
        if n > len(self.free):
            with pytest.raises(ValueError, match="free"):
                self.slots.take(n, after)
            return multiple()
        stretches = [end - start for start, end in runs(sorted(self.free))]
        got = self.slots.take(n, after)
        assert len(set(got)) == len(got) == n
        assert self.free.issuperset(got)
        if after is None and any(stretch >= n for stretch in stretches):
            assert len(list(runs(got))) <= 1
        if after is not None and n and after not in self.free and after + 1 in self.free:
            assert got[0] == after + 1
        self.free -= set(got)
        return got

    @rule(got=consumes(held), cut=st.integers(0, 12))
    def give(self, got: list[int], cut: int) -> None:
        for some in (got[cut:], got[:cut]):
            self.slots.give(some)
            self.free |= set(some)

    @invariant()
    def count(self) -> None:
        if hasattr(self, "slots"):
            assert self.slots.free == len(self.free)


class TreeMachine(RuleBasedStateMachine):
    """The tree against a dict from every known beginning to the slot of its last token."""

    pinned = Bundle("pinned")

    def __init__(self) -> None:
        super().__init__()
        self.tree = RadixTree()
        self.known: dict[tuple[int, ...], int] = {}
        self.held: list[tuple[int, ...]] = []
        self.next = 0

    def longest(self, ids: tuple[int, ...]) -> int:
        return max(n for n in range(len(ids) + 1) if n == 0 or ids[:n] in self.known)

    def slots_of(self, node: RadixNode) -> list[int]:
        return [slot for part in self.tree.path(node) for slot in part.slots]

    @rule(ids=tokens, more=tokens)
    def insert(self, ids: tuple[int, ...], more: tuple[int, ...]) -> None:
        node, length = self.tree.match(ids)
        assert length == self.longest(ids)
        rest = ids[length:] + more
        fresh = list(range(self.next, self.next + len(rest)))
        self.next += len(rest)
        leaf, spare = self.tree.insert(node, rest, fresh)
        whole, expected_spare = ids + more, []
        for at, slot in enumerate(fresh, start=length + 1):
            if whole[:at] in self.known:
                expected_spare.append(slot)
            else:
                self.known[whole[:at]] = slot
        assert spare == expected_spare
        assert self.slots_of(leaf) == [self.known[whole[:n]] for n in range(1, len(whole) + 1)]

    @rule(ids=tokens)
    def look(self, ids: tuple[int, ...]) -> None:
        assert self.tree.peek(ids) == self.longest(ids)
        node, length = self.tree.match(ids)
        assert length == self.longest(ids)
        assert self.slots_of(node) == [self.known[ids[:n]] for n in range(1, length + 1)]

    @rule(target=pinned, ids=tokens)
    def pin(self, ids: tuple[int, ...]) -> tuple[RadixNode, tuple[int, ...]]:
        node, length = self.tree.match(ids)
        self.tree.pin(node)
        self.held.append(ids[:length])
        return node, ids[:length]

    @rule(one=consumes(pinned))
    def unpin(self, one: tuple[RadixNode, tuple[int, ...]]) -> None:
        node, ids = one
        assert self.slots_of(node) == [self.known[ids[:n]] for n in range(1, len(ids) + 1)]
        self.tree.unpin(node)
        self.held.remove(ids)

    @rule(n=st.integers(0, 20))
    def evict(self, n: int) -> None:
        kept = {ids[:at] for ids in self.held for at in range(1, len(ids) + 1)}
        loose = len(self.known.keys() - kept)
        assert self.tree.evictable() == loose
        freed = self.tree.evict(n)
        assert len(freed) == len(set(freed)) == min(n, loose)
        gone = [ids for ids, slot in self.known.items() if slot in set(freed)]
        assert len(gone) == len(freed)
        for ids in gone:
            del self.known[ids]
        assert kept <= self.known.keys()

    @invariant()
    def same(self) -> None:
        assert self.tree.tokens == len(self.known)
        stored = [slot for node in self.tree.nodes() for slot in node.slots]
        assert sorted(stored) == sorted(self.known.values())


TestSlots = SlotMachine.TestCase
TestTree = TreeMachine.TestCase


@given(st.sets(st.integers(0, 30)))
def test_runs_cover_exactly_their_numbers(numbers: set[int]) -> None:
    found = list(runs(sorted(numbers)))
    assert [n for start, end in found for n in range(start, end)] == sorted(numbers)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))


def test_the_least_recently_used_end_goes_first() -> None:
    tree = RadixTree()
    tree.insert(tree.root, (1, 2, 3), [0, 1, 2])
    tree.insert(tree.root, (1, 5, 6), [9, 3, 4])
    tree.match((1, 2, 3))
    assert sorted(tree.evict(2)) == [3, 4]
    assert tree.evict(1) == [2]
    assert tree.peek((1, 2, 3)) == 2


def test_a_node_that_splits_stays_whole_for_those_who_hold_it() -> None:
    tree = RadixTree()
    leaf, _ = tree.insert(tree.root, (1, 2, 3, 4), [0, 1, 2, 3])
    tree.pin(leaf)
    tree.insert(tree.root, (1, 2, 7), [8, 9, 4])
    assert [slot for node in tree.path(leaf) for slot in node.slots] == [0, 1, 2, 3]
    assert tree.evict(10) == [4]
    tree.unpin(leaf)
    assert sorted(tree.evict(10)) == [0, 1, 2, 3]
    assert tree.tokens == 0


def test_what_is_not_pinned_cannot_be_unpinned() -> None:
    tree = RadixTree()
    with pytest.raises(ValueError, match="not pinned"):
        tree.unpin(tree.root)
