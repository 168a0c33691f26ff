"""The nodes of the search tree."""

from __future__ import annotations

from array import array
from typing import Any, Literal

from tts_tui.protocols import Finish, Usage

State = Literal["writing", "done", "failed"]

NO_CHILDREN: list[Any] = []
"""The empty list that all nodes without children share; it is never appended to."""


class Node:
    """A step of a search tree. Its id never changes, and its parent always has a lower id.

    Attributes:
        id: Position in `SearchTree.nodes`.
        parent: The step before; None for the root.
        slot: Index of the continuation among those of the parent; with `group`, the address by which a resumed search
            finds the step.
        group: Independent part of the search that the step belongs to.
        children: All continuations, oldest first.
        ids: Token ids, exactly as sampled; None until the step is finished.
        text: Text of the step; grows while the step is generated.
        state: "writing" while the step is generated, then "done" or "failed".
        finish: How the step ended, once done.
        score: The PRM's score in [0, 1], or None.
        usage: Usage of the step in policy tokens, or None.
        merged_into: Id of the identical sibling that this step was merged into, if any.
        pruned: True if the strategy pruned it, or a person cut it.
        cut: True if a person cut it.
        kept: True if the strategy has continued with it.
        by_hand: True if a person asked for it, or wrote it.
        why: The reason why it was kept, pruned, or failed.
        solved: True if it completed a solution.
        answer: The answer extracted from its path, if it completed a solution.
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
        """True if the step is only white space."""
        return not self.text.strip()

    @property
    def terminal(self) -> bool:
        """True if the answer ended with this step."""
        return self.finish in ("eos", "boxed")

    @property
    def ended(self) -> bool:
        """True if the path cannot be continued: its answer ended, or its last step was cut off at its limit."""
        return self.terminal or self.finish == "length"

    @property
    def path(self) -> list[Node]:
        """The steps from the first to this one, without the root."""
        nodes = []
        node: Node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes

    @property
    def depth(self) -> int:
        """The number of steps up to this one; 0 for the root."""
        return len(self.path)

    @property
    def label(self) -> str:
        """The address for people, such as `0.3.1`: the position among siblings at every level."""
        return ".".join(["0", *(str(step.parent.children.index(step)) for step in self.path if step.parent)])

    @property
    def path_ids(self) -> list[int]:
        """The token ids of the path, without the prompt."""
        return [token for step in self.path if step.ids is not None for token in step.ids]

    @property
    def path_text(self) -> str:
        """The text of the path, without the prompt."""
        return "".join(step.text for step in self.path)

    @property
    def scores(self) -> list[float]:
        """The scores of the path's steps that are not blank, so "last" is never the score of a blank step.

        Empty if any of these steps has no score, so that "last" is never the score of an earlier step, either.
        """
        found = [step.score for step in self.path if not step.blank]
        return [] if None in found else [score for score in found if score is not None]

    @property
    def value(self) -> float:
        """The score of the path's last step that is not blank; -1 if it has none, so that it sorts last."""
        node: Node | None = self
        while node is not None and node.blank:
            node = node.parent
        return -1.0 if node is None or node.score is None else node.score
