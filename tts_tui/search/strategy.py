"""The contract of a strategy, and the part of a search that a strategy may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tts_tui.plan import Plan
from tts_tui.protocols import Usage
from tts_tui.search.expansion import Expansion
from tts_tui.tree.events import PlanChosen
from tts_tui.tree.search_tree import Node, SearchTree


class SearchView(Protocol):
    """A search as a strategy sees it: the tree to read, and the decisions that it may take."""

    root: Node
    """The node that the strategy grows from."""

    @property
    def plan(self) -> Plan:
        """The current plan; a person may change it during the search."""
        ...

    @property
    def tree(self) -> SearchTree:
        """The fold of all events so far. Strategies only read it."""
        ...

    def below(self, root: Node) -> SearchView:
        """Return a view of the same search with another root."""
        ...

    def expand(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int],
        *,
        start: int = 0,
        group: int = 0,
        merge: bool = True,
        survivors: int = 0,
    ) -> Expansion:
        """Generate and score `n` next steps of each node; see `Search.expand`."""
        ...

    def rollout(self, node: Node, n: int, *, group: int = 0) -> Expansion:
        """Generate `n` continuations of `node` to the end of the answer; see `Search.rollout`."""
        ...

    def keep(self, nodes: Sequence[Node], why: str) -> None:
        """Record that the search continues with `nodes`."""
        ...

    def prune(self, nodes: Sequence[Node], why: str) -> None:
        """Prune `nodes`, except those that a person restored."""
        ...

    async def choose(
        self, turn: int, samples: Sequence[Node], searched: Sequence[Node], done: Mapping[str, int]
    ) -> PlanChosen:
        """Return the controller's decision for this turn; see `Search.choose`."""
        ...


class Controller(Protocol):
    """The controller of one search under `auto`, which decides how the search continues."""

    def choose(self, samples: Sequence[Node], searched: Sequence[Node], done: Mapping[str, int]) -> PlanChosen:
        """Return the next decision.

        Args:
            samples: Independent samples so far.
            searched: Solutions chosen by tree searches so far.
            done: Candidates already used, by strategy.

        Raises:
            PlanError: The budget is too small for any plan.
        """
        ...


class ControllerFactory(Protocol):
    """A factory that makes the controller of a search from its current plan."""

    async def of(self, tree: SearchTree) -> Controller:
        """Return the controller for the plan in `tree`.

        Raises:
            CalibrationError: The calibration does not fit the models.
            PlanError: The plan's target is out of reach.
        """
        ...

    @property
    def owed(self) -> Usage:
        """The usage of encoding the prompt that no event has recorded yet."""
        ...

    def told(self) -> None:
        """Mark the cost of encoding the prompt as recorded."""
        ...


class Strategy(Protocol):
    """A search strategy: it decides what a search grows and prunes, and does no work itself.

    A strategy keeps no state that the tree does not show: run again over the same tree, it takes the same decisions,
    which is how a recording resumes.

    Attributes:
        name: The name that users type.
        summary: One line for lists.
        needs_scores: True if its decisions need a reward model; a plan whose vote is a PRM vote needs one anyway.
        uses_width: True if it uses the plan's `m`.
    """

    name: str
    summary: str
    needs_scores: bool
    uses_width: bool

    async def run(self, search: SearchView) -> Sequence[Node]:
        """Grow `search.tree` and return the solutions that vote, in the order in which ties are broken."""
        ...
