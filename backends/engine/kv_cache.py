"""Bookkeeping of cached keys and values: which tokens are kept, and in which slots of the pool. Pure Python.

A *slot* is a row number in every layer's key-value tensor; a token that has passed through the model owns one slot. The
`RadixTree` maps token sequences to slots, so that two sequences with a common prefix share the slots of that prefix.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import count


class Slots:
    """An allocator of slot numbers, which prefers long runs of low numbers.

    Long runs let the attention read keys without copying them. Low numbers keep the untouched part of the pool large,
    and the operating system does not commit untouched memory.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.free = capacity
        self._starts = [0] if capacity else []
        self._end = {0: capacity} if capacity else {}
        self._start = {capacity: 0} if capacity else {}

    def take(self, n: int, after: int | None = None) -> list[int]:
        """Allocate `n` slots, in one run if possible, and directly after slot `after` if that is free.

        Raises:
            ValueError: Fewer than `n` are free.
        """
        if n > self.free:
            raise ValueError(f"{n} slots wanted, {self.free} free")
        if after is not None and (end := self._end.get(after + 1)) is not None:
            got = self._cut(after + 1, min(n, end - after - 1))
        else:
            fit = (start for start in self._starts if self._end[start] - start >= n)
            got = self._cut(first, n) if (first := next(fit, None)) is not None else []
        while len(got) < n:
            first = self._starts[0]
            got += self._cut(first, min(n - len(got), self._end[first] - first))
        return got

    def give(self, slots: Iterable[int]) -> None:
        """Free `slots`, none of which may be free already."""
        for start, end in runs(sorted(slots)):
            self.free += end - start
            if (left := self._start.pop(start, None)) is not None:
                start = left
            else:
                insort(self._starts, start)
            if (right := self._end.pop(end, None)) is not None:
                del self._starts[bisect_left(self._starts, end)]
                end = right
            self._end[start] = end
            self._start[end] = start

    def _cut(self, start: int, n: int) -> list[int]:
        if not n:
            return []
        end = self._end.pop(start)
        at = bisect_left(self._starts, start)
        if start + n < end:
            self._starts[at] = start + n
            self._end[start + n] = end
            self._start[end] = start + n
        else:
            del self._starts[at], self._start[end]
        self.free -= n
        return list(range(start, start + n))


def runs(slots: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield runs `[start, end)` of consecutive numbers in `slots`, in order."""
    begin = 0
    for at in range(1, len(slots) + 1):
        if at == len(slots) or slots[at] != slots[at - 1] + 1:
            yield slots[begin], slots[at - 1] + 1
            begin = at


class RadixNode:
    """A node of a `RadixTree`: a run of tokens between two branching points, with their slots.

    Attributes:
        tokens: The token ids, never empty except in the root.
        slots: The slots, one for each token.
        parent: The parent; None for the root and for an evicted node.
        children: The children by their first token.
        pins: The number of holders; a pinned node and all its ancestors are not evicted.
        stamp: The logical time of the last use.
        uid: A unique number; sorting paths by it makes those with a common prefix adjacent.
    """

    __slots__ = ("children", "parent", "pins", "slots", "stamp", "tokens", "uid")

    def __init__(self, tokens: tuple[int, ...], slots: list[int], parent: RadixNode | None, uid: int) -> None:
        self.tokens = tokens
        self.slots = slots
        self.parent = parent
        self.children: dict[int, RadixNode] = {}
        self.pins = 0
        self.stamp = 0
        self.uid = uid


class RadixTree:
    """The computed token sequences, as a compressed prefix tree with least-recently-used eviction."""

    def __init__(self) -> None:
        self._uid = count()
        self._clock = count(1)
        self.root = RadixNode((), [], None, next(self._uid))
        self.tokens = 0

    def peek(self, ids: Sequence[int]) -> int:
        """Return how many leading `ids` are in the tree, without changing it."""
        return self._walk(tuple(ids))[1]

    def match(self, ids: Sequence[int]) -> tuple[RadixNode, int]:
        """Return the node where the longest cached prefix of `ids` ends, and its length; split a node if necessary."""
        node, length, inside = self._walk(tuple(ids))
        if inside is not None:
            child, cut = inside
            node = self._split(child, cut)
        self._touch(node)
        return node, length

    def insert(self, node: RadixNode, tokens: Sequence[int], slots: Sequence[int]) -> tuple[RadixNode, list[int]]:
        """Add `tokens` below `node`.

        Returns:
            The node that ends with the last token, and the unneeded `slots`, whose tokens the tree already held in
            other slots.
        """
        tokens, slots = tuple(tokens), list(slots)
        below, length, inside = self._walk(tokens, node)
        if inside is not None:
            below = self._split(*inside)
        if length < len(tokens):
            leaf = RadixNode(tokens[length:], slots[length:], below, next(self._uid))
            below.children[leaf.tokens[0]] = leaf
            self.tokens += len(leaf.tokens)
            below = leaf
        self._touch(below)
        return below, slots[:length]

    def pin(self, node: RadixNode) -> None:
        """Protect `node` and its ancestors from eviction until `unpin`."""
        node.pins += 1

    def unpin(self, node: RadixNode) -> None:
        """Undo one `pin` of `node`.

        Raises:
            ValueError: The node is not pinned.
        """
        if node.pins < 1:
            raise ValueError("the node is not pinned")
        node.pins -= 1
        self._touch(node)

    def evict(self, n: int) -> list[int]:
        """Evict `n` tokens, the least recently used unpinned leaves first, and return the freed slots.

        Fewer than `n` slots are returned only if all other tokens are pinned.
        """
        freed: list[int] = []
        heap = [(leaf.stamp, leaf.uid, leaf) for leaf in self.nodes() if self._loose(leaf)]
        heapq.heapify(heap)
        while heap and len(freed) < n:
            leaf = heapq.heappop(heap)[2]
            keep = max(0, len(leaf.tokens) - (n - len(freed)))
            freed += leaf.slots[keep:]
            self.tokens -= len(leaf.tokens) - keep
            if keep:
                leaf.tokens, leaf.slots = leaf.tokens[:keep], leaf.slots[:keep]
                continue
            parent = leaf.parent
            assert parent is not None
            del parent.children[leaf.tokens[0]]
            leaf.parent = None
            if self._loose(parent):
                heapq.heappush(heap, (parent.stamp, parent.uid, parent))
        return freed

    def evictable(self) -> int:
        """Return how many tokens `evict` could remove now."""
        kept: set[RadixNode] = set()
        for node in self.nodes():
            above: RadixNode | None = node if node.pins else None
            while above is not None and above not in kept:
                kept.add(above)
                above = above.parent
        return self.tokens - sum(len(node.tokens) for node in kept)

    def path(self, node: RadixNode) -> list[RadixNode]:
        """Return the nodes from the root, exclusive, to `node`."""
        path: list[RadixNode] = []
        while node.parent is not None:
            path.append(node)
            node = node.parent
        return path[::-1]

    def nodes(self) -> Iterator[RadixNode]:
        """Yield all nodes except the root, parents first."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack += node.children.values()

    def _loose(self, node: RadixNode) -> bool:
        return not node.children and not node.pins and node.parent is not None

    def _walk(
        self, ids: tuple[int, ...], node: RadixNode | None = None
    ) -> tuple[RadixNode, int, tuple[RadixNode, int] | None]:
        """Follow `ids` down the tree.

        Returns:
            The last fully matched node, the number of ids matched, and (child, number of its tokens matched) if the
            match ends inside a child.
        """
        node, at = node or self.root, 0
        while at < len(ids) and (child := node.children.get(ids[at])) is not None:
            piece = ids[at : at + len(child.tokens)]
            if piece == child.tokens:
                node, at = child, at + len(piece)
                continue
            # The lengths may differ, in which case all of the shorter one may match.
            pairs = enumerate(zip(piece, child.tokens, strict=False))
            cut = next((i for i, (a, b) in pairs if a != b), len(piece))
            return node, at + cut, (child, cut)
        return node, at, None

    def _split(self, node: RadixNode, cut: int) -> RadixNode:
        """Move the first `cut` tokens of `node` into a new parent and return the parent.

        The object `node` stays the lower part, so that a pin on it still protects all of its tokens.
        """
        parent = node.parent
        assert parent is not None
        upper = RadixNode(node.tokens[:cut], node.slots[:cut], parent, next(self._uid))
        upper.stamp = node.stamp
        parent.children[upper.tokens[0]] = upper
        node.tokens, node.slots, node.parent = node.tokens[cut:], node.slots[cut:], upper
        upper.children[node.tokens[0]] = node
        return upper

    def _touch(self, node: RadixNode | None) -> None:
        now = next(self._clock)
        while node is not None:
            node.stamp = now
            node = node.parent
