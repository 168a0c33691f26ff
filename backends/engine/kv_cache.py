"""Which tokens' keys and values are kept, and in which slots of the pool: plain Python, no tensors.

A *slot* is a row number in every layer's key-value tensor; a token that has passed the model owns one slot. The
`RadixTree` knows the slots by token sequence, so that two sequences with a common beginning share its slots.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import count


class Slots:
    """Hands out slot numbers, in stretches that are as long and as low as they can be.

    Long stretches let the attention read keys without copying them; low ones keep the part of the pool that was
    never touched large, and untouched memory is not committed by the operating system.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.free = capacity
        self._starts = [0] if capacity else []
        self._end = {0: capacity} if capacity else {}
        self._start = {capacity: 0} if capacity else {}

    def take(self, n: int, after: int | None = None) -> list[int]:
        """`n` slots, in one stretch where there is one; going on behind slot `after` where that is free.

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
        """Takes slots back; none of them may be free already."""
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
    """Stretches `[start, end)` of consecutive numbers in `slots`, in order."""
    begin = 0
    for at in range(1, len(slots) + 1):
        if at == len(slots) or slots[at] != slots[at - 1] + 1:
            yield slots[begin], slots[at - 1] + 1
            begin = at


class RadixNode:
    """A stretch of tokens between two branchings, with their slots.

    Attributes:
        tokens: Token ids, never empty but in the root.
        slots: One for each token.
        parent: None for the root, and for a node that was forgotten.
        children: By first token.
        pins: How many hold this node; a held node and all its ancestors stay.
        stamp: When it was used last.
        uid: Its own number; sorting paths by it puts those with a common beginning side by side.
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
    """Token sequences that were computed, as a compressed prefix tree with least-recently-used eviction."""

    def __init__(self) -> None:
        self._uid = count()
        self._clock = count(1)
        self.root = RadixNode((), [], None, next(self._uid))
        self.tokens = 0

    def peek(self, ids: Sequence[int]) -> int:
        """How many of the first `ids` are in the tree; changes nothing."""
        return self._walk(tuple(ids))[1]

    def match(self, ids: Sequence[int]) -> tuple[RadixNode, int]:
        """The node where the longest known beginning of `ids` ends, and its length; splits a node if it must."""
        node, length, inside = self._walk(tuple(ids))
        if inside is not None:
            child, cut = inside
            node = self._split(child, cut)
        self._touch(node)
        return node, length

    def insert(self, node: RadixNode, tokens: Sequence[int], slots: Sequence[int]) -> tuple[RadixNode, list[int]]:
        """Adds `tokens` below `node`.

        Returns:
            The node that ends with the last of them, and those of `slots` that are not needed, because the tree had
            the tokens already under other slots.
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
        """Keeps `node` and its ancestors until `unpin`."""
        node.pins += 1

    def unpin(self, node: RadixNode) -> None:
        """Takes one `pin` back."""
        if node.pins < 1:
            raise ValueError("the node is not pinned")
        node.pins -= 1
        self._touch(node)

    def evict(self, n: int) -> list[int]:
        """Forgets about `n` tokens, the least recently used unpinned ends first; returns the slots that are free now.

        Fewer than `n` come back only if everything else is pinned.
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
        """How many tokens `evict` could forget now."""
        kept: set[RadixNode] = set()
        for node in self.nodes():
            above: RadixNode | None = node if node.pins else None
            while above is not None and above not in kept:
                kept.add(above)
                above = above.parent
        return self.tokens - sum(len(node.tokens) for node in kept)

    def path(self, node: RadixNode) -> list[RadixNode]:
        """The nodes from below the root to `node`."""
        path: list[RadixNode] = []
        while node.parent is not None:
            path.append(node)
            node = node.parent
        return path[::-1]

    def nodes(self) -> Iterator[RadixNode]:
        """All nodes but the root, parents first."""
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
        """Follows `ids` down: the last whole node, the length matched, and (child, tokens of it) if inside a child."""
        node, at = node or self.root, 0
        while at < len(ids) and (child := node.children.get(ids[at])) is not None:
            piece = ids[at : at + len(child.tokens)]
            if piece == child.tokens:
                node, at = child, at + len(piece)
                continue
            # The lengths may differ: then all of the shorter one may match.
            pairs = enumerate(zip(piece, child.tokens, strict=False))
            cut = next((i for i, (a, b) in pairs if a != b), len(piece))
            return node, at + cut, (child, cut)
        return node, at, None

    def _split(self, node: RadixNode, cut: int) -> RadixNode:
        """Puts the first `cut` tokens of `node` into a new parent and returns that.

        The object `node` stays the lower part, so that whoever pinned it still holds all of its tokens.
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
