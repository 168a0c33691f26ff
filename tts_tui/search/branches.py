"""The runs of the plan's strategy: one from the root of a search, and one from every branch that a person began."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tts_tui.errors import StrategyError, TTSError
from tts_tui.search.strategy import Strategy
from tts_tui.search.tasks import Stopped, TaskScope
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import BranchBegun
from tts_tui.tree.search_tree import Node

if TYPE_CHECKING:
    from tts_tui.search.strategy import SearchView


class StrategyRun:
    """A run of the strategy below one node.

    Attributes:
        root: The node that the strategy runs from.
        over: True once the run was ended: its later decisions are ignored.
        solutions: The solutions that the strategy returned; empty until then.
        task: The task that runs the strategy, once started.
    """

    def __init__(self, root: Node) -> None:
        self.root = root
        self.over = False
        self.solutions: Sequence[Node] = ()
        self.task: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Mark the run as over and cancel its task."""
        self.over = True
        if self.task is not None:
            self.task.cancel()


class Branches:
    """All runs of the strategy in one search.

    Args:
        journal: The event log, which records new branches.
        tasks: The scope that runs are spawned in.
        view: Returns the view of the search for a run.

    Attributes:
        strategy: The strategy to run; set before the first run.
    """

    def __init__(self, journal: EventLog, tasks: TaskScope, view: Callable[[StrategyRun], SearchView]) -> None:
        self.strategy: Strategy | None = None
        self._journal = journal
        self._tasks = tasks
        self._view = view
        self._runs: dict[int, StrategyRun] = {}

    def begin(self, node: Node) -> None:
        """Record a branch at `node`, if there is none yet, and run the strategy from there too."""
        if node not in self._journal.tree.branches:
            self._journal.append(BranchBegun(t=self._journal.now, node=node.id))
        self.sync()

    def sync(self) -> None:
        """Start the runs that the tree calls for: at the root, and at every branch that is not below a cut."""
        tree = self._journal.tree
        for root in (tree.search_root, *tree.branches):
            if root.id not in self._runs and not tree.is_cut(root) and self._tasks.are_open:
                run = self._runs[root.id] = StrategyRun(root)
                run.task = self._tasks.spawn(self._follow(run))

    def end_cut(self) -> None:
        """End all runs whose root is at or below a cut."""
        for run in list(self._runs.values()):
            if self._journal.tree.is_cut(run.root):
                self._runs.pop(run.root.id).end()

    def restart(self, strategy: Strategy) -> None:
        """End all runs and start them again with `strategy`, after a change of plan."""
        self.strategy = strategy
        runs, self._runs = self._runs, {}
        for run in runs.values():
            run.end()
        self.sync()

    def running(self) -> list[asyncio.Task[None]]:
        """Return the tasks of all runs that have not finished."""
        return [run.task for run in self._runs.values() if run.task is not None and not run.task.done()]

    def solutions(self) -> list[Node]:
        """Return the solutions of all runs: the root's first, then those of the branches in order."""
        tree = self._journal.tree
        roots = dict.fromkeys(node.id for node in (tree.search_root, *tree.branches))
        return [node for id in roots if id in self._runs for node in self._runs[id].solutions]

    async def _follow(self, run: StrategyRun) -> None:
        strategy = self.strategy
        assert strategy is not None
        try:
            run.solutions = await strategy.run(self._view(run))
        except (TTSError, Stopped):
            if not run.over:
                raise
        except Exception as error:
            if not run.over:
                raise StrategyError(f"the strategy {strategy.name!r} failed: {error!r}") from error
