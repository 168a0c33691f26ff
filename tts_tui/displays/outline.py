"""Selection of the part of a tree that fits a screen, by interest and in time independent of the tree's size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from tts_tui.tree.events import ROOT
from tts_tui.tree.search_tree import Node, SearchTree

RECENT = 400
"""Number of newest nodes that are considered by interest; older ones are shown as ancestors or solutions."""


@dataclass(slots=True)
class OutlineRow:
    """A line of the outline.

    Attributes:
        node: The step.
        rails: The lines that connect it to its parent, such as `│ ├─`.
        folded: The number of its children that are not shown.
        skipped: Whether steps between it and the line above it are left out.
    """

    node: Node
    rails: str
    folded: int
    skipped: bool = False


@dataclass(slots=True)
class _Chosen:
    """The nodes to show, by parent. `tops` are shown below the root although steps in between are not."""

    children: dict[int, list[Node]] = field(default_factory=dict)
    tops: set[int] = field(default_factory=set)
    size: int = 0


def rows(tree: SearchTree, writing: Iterable[int], height: int) -> list[OutlineRow]:
    """Return the outline of `tree` in at most `height` lines, the root first.

    Steps that are being generated come first, then the winner, then solutions, then kept steps, then the rest, the
    newest of each first; a step brings its ancestors along. Children of pruned steps are folded away, and a step that
    duplicates a sibling is never shown by itself.

    Args:
        tree: The tree.
        writing: Ids of steps that are being generated, oldest first.
        height: Maximum number of lines.
    """
    if not tree.nodes or height < 1:
        return []
    chosen = _choose(tree, writing, height - 1)
    shown: list[OutlineRow] = []
    _draw(chosen, tree.root, "", shown)
    return shown


def _choose(tree: SearchTree, writing: Iterable[int], room: int) -> _Chosen:
    chosen = _Chosen()
    members = {ROOT}
    for node in _by_interest(tree, writing):
        if chosen.size >= room:
            break
        path = _missing(node, members, room - chosen.size)
        if path is None:
            continue
        top = path[-1]
        attached = top.parent is not None and top.parent.id in members
        for step in path:
            members.add(step.id)
            home = step.parent.id if step is not top or attached else ROOT  # type: ignore[union-attr]
            chosen.children.setdefault(home, []).append(step)
        if not attached:
            chosen.tops.add(top.id)
        chosen.size += len(path)
    for siblings in chosen.children.values():
        siblings.sort(key=lambda node: node.id)
    return chosen


def _missing(node: Node, members: set[int], room: int) -> list[Node] | None:
    """Return the steps from `node` up to one that is already shown; None if they do not fit, or `node` is shown.

    Of a path longer than the screen the lower half is returned, so that there is room for others.
    """
    path: list[Node] = []
    step: Node | None = node
    while step is not None and step.id not in members:
        if len(path) == room:
            return path[: max(1, room // 2)] if len(members) == 1 else None
        path.append(step)
        step = step.parent
    return path or None


def _by_interest(tree: SearchTree, writing: Iterable[int]) -> Iterator[Node]:
    nodes = tree.nodes
    if tree.finished is not None and tree.finished.node is not None:
        yield nodes[tree.finished.node]
    yield from (nodes[id] for id in islice(reversed(list(writing)), RECENT))
    yield from islice(reversed(tree.solutions), RECENT)
    recent = nodes[max(1, len(nodes) - RECENT) :][::-1]
    later: list[Node] = []
    for node in recent:
        if node.merged_into is not None or (node.parent and node.parent.pruned):
            continue
        if node.state == "done" and not node.pruned:
            yield node
        else:
            later.append(node)
    yield from later


def _draw(chosen: _Chosen, root: Node, rails: str, shown: list[OutlineRow]) -> None:
    """Append the rows depth first, without recursion: a path may be deeper than Python's stack."""
    stack: list[tuple[Node, str, str]] = [(root, "", "")]
    while stack:
        node, own, below = stack.pop()
        children = chosen.children.get(node.id, [])
        direct = sum(1 for child in children if child.id not in chosen.tops)
        distinct = sum(1 for child in node.children if child.merged_into is None)
        shown.append(OutlineRow(node, own, distinct - direct, node.id in chosen.tops))
        for child in reversed(children):
            last = child is children[-1]
            stack.append((child, below + ("└─" if last else "├─"), below + ("  " if last else "│ ")))
