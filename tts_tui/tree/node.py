"""One step of a search, as the tree keeps it."""

from __future__ import annotations

from array import array
from typing import Any, Literal

from tts_tui.protocols import Finish, Usage

State = Literal["writing", "done", "failed"]

NO_CHILDREN: list[Any] = []
"""Shared by all nodes that have none; never added to."""


class Node:
    """One step. Its id never changes, and its parent is always older.

    Attributes:
        id: Position in `SearchTree.nodes`.
        parent: The step before; None for the root.
        slot: Which of the parent's continuations it is; with `group` the address that a resumed search looks it up by.
        group: Which independent part of the search it belongs to.
        ids: Token ids, exactly as sampled.
        text: What they say; grows while the step is written.
        state: "writing", "done" or "failed".
        finish: How the step ended, once done.
        score: The PRM's score in [0, 1], or None.
        usage: Policy tokens it cost.
        merged_into: The sibling that stands for this step because it says the same, if any.
        pruned: It was given up, by the strategy or by a person.
        cut: A person gave it up.
        kept: The strategy has gone on with it.
        by_hand: A person asked for it, or wrote it.
        why: Why it was kept, pruned, or failed.
        solved: It ended its path's answer.
        answer: The answer read out of that path, if any.
    """

    __slots__ = (
        "answer",
        "by_hand",
        "children",
        "cut",
        "finish",
        "group",
        "id",
        "ids",
        "kept",
        "merged_into",
        "parent",
        "pruned",
        "score",
        "slot",
        "solved",
        "state",
        "text",
        "usage",
        "why",
    )

    def __init__(self, id: int, parent: Node | None, slot: int = 0, group: int = 0) -> None:
        self.id = id
        self.parent = parent
        self.slot = slot
        self.group = group
        self.children: list[Node] = NO_CHILDREN
        self.ids: array[int] | None = None
        self.text = ""
        self.state: State = "writing"
        self.finish: Finish | None = None
        self.score: float | None = None
        self.usage: Usage | None = None
        self.merged_into: int | None = None
        self.pruned = False
        self.cut = False
        self.kept = False
        self.by_hand = False
        self.why = ""
        self.solved = False
        self.answer: str | None = None

    def __repr__(self) -> str:
        return f"<Node {self.id} {self.state} {self.text[:30]!r}>"

    @property
    def blank(self) -> bool:
        """Whether the step says nothing."""
        return not self.text.strip()

    @property
    def terminal(self) -> bool:
        """Whether the answer ended here."""
        return self.finish in ("eos", "boxed")

    @property
    def ended(self) -> bool:
        """Whether the path cannot be continued: its answer ended, or its last step was cut off at its limit."""
        return self.terminal or self.finish == "length"

    @property
    def path(self) -> list[Node]:
        """The steps from the first to this one, root left out."""
        nodes = []
        node: Node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes

    @property
    def depth(self) -> int:
        """Number of steps up to this one; 0 for the root."""
        return len(self.path)

    @property
    def label(self) -> str:
        """The address as people read it, such as `0.3.1`: the place among its siblings at every level."""
        return ".".join(["0", *(str(step.parent.children.index(step)) for step in self.path if step.parent)])

    @property
    def path_ids(self) -> list[int]:
        """Token ids of the path, without the prompt."""
        return [token for step in self.path if step.ids is not None for token in step.ids]

    @property
    def path_text(self) -> str:
        """Text of the path."""
        return "".join(step.text for step in self.path)

    @property
    def scores(self) -> list[float]:
        """Scores of the path's steps. A blank step has none, so "last" is never the score of an empty step.

        Empty if one of the others has none: "last" is never the score of an earlier step, either.
        """
        found = [step.score for step in self.path if not step.blank]
        return [] if None in found else [score for score in found if score is not None]

    @property
    def value(self) -> float:
        """Score of the path's last step that says something; -1 if it has none, so that it sorts last."""
        node: Node | None = self
        while node is not None and node.blank:
            node = node.parent
        return -1.0 if node is None or node.score is None else node.score
