"""A running search, with the operations of a strategy: expand, roll out, keep, prune. Each of them becomes an event.

A search is one `asyncio.TaskGroup`: the strategy, one task per step that is being generated, one for scoring and one
for the time limit. Leaving it, for any reason, cancels all of them, and closing a stream stops the generation behind
it. The operations of a person, other than pausing, are in `tts_tui.search.steering`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from copy import copy
from typing import Literal

from msgspec.structs import replace

from tts_tui.errors import BudgetExhausted, StrategyError, TTSError
from tts_tui.plan import Plan
from tts_tui.protocols import Policy, Prompt, RewardModel, Usage
from tts_tui.search.branches import Branches, StrategyRun
from tts_tui.search.expansion import Expansion
from tts_tui.search.generation import StepGenerator
from tts_tui.search.scoring import Scorer
from tts_tui.search.steering import Steering
from tts_tui.search.strategy import ControllerFactory, Strategy
from tts_tui.search.tasks import Stopped, StopSignal, TaskScope
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import (
    HAND,
    By,
    NodesKept,
    NodesPruned,
    PlanChosen,
    Reason,
    SearchContinued,
    SearchPaused,
    SearchStepped,
    SpeculativeTokens,
)
from tts_tui.tree.search_tree import Node, SearchTree

__all__ = ["ATTEMPTS", "BACKOFF", "Search", "Stopped"]

ATTEMPTS = 3
"""Maximum number of attempts for a step or a batch of scores."""
BACKOFF = 0.2
"""Seconds before the first retry; doubled for each further one."""


class Search:
    """A search over one tree, as seen from one of its nodes.

    Args:
        policy: The model that generates steps.
        prm: The reward model; None if nothing is scored.
        prompt: The prompt that every path starts with.
        journal: The event log; its tree has the first event already, and so the plan.
        choose: Returns the strategy for a plan, or raises if this search cannot follow that plan.
        guides: Returns the factory of the controllers for `auto`. Called lazily; always returns the same instance.

    Attributes:
        root: The node that the strategy runs from.
        steering: The operations of a person: ask for steps, write, cut, restore, change the plan.
    """

    def __init__(
        self,
        policy: Policy,
        prm: RewardModel | None,
        prompt: Prompt,
        journal: EventLog,
        choose: Callable[[Plan], Strategy],
        guides: Callable[[], ControllerFactory] | None = None,
    ) -> None:
        self.root: Node = journal.tree.search_root
        self._journal = journal
        self._tasks = TaskScope()
        self._watch = StopSignal(journal)
        journal.on_failure = self._watch.recheck
        self._run: StrategyRun | None = None
        self._guides = guides
        self._places: dict[tuple[str, int, int, int], asyncio.Task[Node | None]] = {}
        self._scorer = Scorer(prm, prompt, journal, ATTEMPTS, BACKOFF, self._needs_scores) if prm else None
        self._writer = StepGenerator(policy, prompt, journal, self._scorer, ATTEMPTS, BACKOFF, self._tasks.spawn)
        self._branches = Branches(journal, self._tasks, self._view)
        self.steering = Steering(
            self.ask, self.recheck, policy, journal, self._tasks, self._writer, self._branches, choose
        )

    @property
    def plan(self) -> Plan:
        """The current plan. A person may change it; `plan.requires_restart` tells if the strategy then starts again."""
        return self.tree.plan

    @property
    def tree(self) -> SearchTree:
        """The fold of all events so far. Strategies only read it."""
        return self._journal.tree

    @property
    def last_error(self) -> str:
        """The last model failure that left a slot without a step or a step without a score; empty if there was none."""
        return self._writer.last_error or (self._scorer.last_error if self._scorer else "")

    @property
    def last_problem(self) -> str:
        """The last reason why a step failed for good, including a full context; empty if there was none."""
        return self._writer.last_problem

    def below(self, root: Node) -> Search:
        """Return a view of this search with another root."""
        search = copy(self)
        search.root = root
        return search

    def _view(self, run: StrategyRun) -> Search:
        search = self.below(run.root)
        search._run = run
        return search

    # -- for strategies ----------------------------------------------------------------------------------------------

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
        """Generate and score `n` next steps of each node.

        Slots that the tree already has are not sampled again: that is how a recording resumes.

        Args:
            nodes: Nodes to continue.
            n: Steps per node, one number for all or one for each.
            start: First slot; a second round of attempts starts where the first one ended.
            group: Independent part of the search; duplicates are looked for inside it only.
            merge: Merge steps with identical siblings (`tts_tui.search.merging`).
            survivors: Number of steps of this depth and group, those of the highest value, that the search will
                continue with. It allows them to be continued speculatively (`tts_tui.search.speculation`); 0 if it is
                not known.

        Returns:
            The steps being generated: await it for all nodes, or iterate over it for each as soon as it is ready.

        Raises:
            StrategyError: The search is over, or this run was replaced after a change of plan.
        """
        counts = [n] * len(nodes) if isinstance(n, int) else n
        tasks = [
            self._place("step", node, slot, group, merge, survivors)
            for node, count in zip(nodes, counts, strict=True)
            for slot in range(start, start + count)
        ]
        return Expansion(tasks, lambda node: node.merged_into is None and self._hand_out(node))

    def rollout(self, node: Node, n: int, *, group: int = 0) -> Expansion:
        """Generate `n` continuations of `node` to the end of the answer; the expansion has the last step of each.

        Every step on the way is a node. Continuations are independent samples, so duplicates are kept.

        Raises:
            StrategyError: As for `expand`.
        """
        return Expansion([self._place("roll", node, slot, group) for slot in range(n)], self._hand_out)

    async def choose(
        self, turn: int, samples: Sequence[Node], searched: Sequence[Node], done: Mapping[str, int]
    ) -> PlanChosen:
        """Return the controller's decision for a turn: the recorded one if there is one, or else a new one.

        Args:
            turn: Number of the decision within this run, from 0.
            samples: Independent samples so far.
            searched: Solutions chosen by tree searches so far.
            done: Candidates already used, by strategy.

        Raises:
            StrategyError: This search has no controller.
            PlanError: The budget is too small for any plan.
        """
        known = [choice for choice in self.tree.choices if choice.root == self.root.id]
        if turn < len(known):
            return known[turn]
        if self._guides is None:
            raise StrategyError("this search has nobody who chooses: begin it with a Solver")
        guides = self._guides()
        try:
            choice = (await guides.of(self.tree)).choose(samples, searched, done)
            choice = replace(choice, t=self._journal.now, root=self.root.id)
            if not self._is_over():
                self._journal.append(choice)
                guides.told()
        finally:
            if guides.owed != Usage():  # the prompt was encoded, and no recorded decision includes the cost
                self._journal.append(SpeculativeTokens(t=self._journal.now, node=self.root.id, usage=guides.owed))
                guides.told()
        return choice

    def keep(self, nodes: Sequence[Node], why: str) -> None:
        """Record that the search continues with `nodes`.

        Args:
            nodes: The nodes to continue.
            why: The reason, for displays.
        """
        fresh = tuple(node.id for node in nodes if not node.kept or self._is_news(node, why))
        if fresh and not self._is_over():
            self._journal.append(NodesKept(t=self._journal.now, nodes=fresh, why=why))

    def prune(self, nodes: Sequence[Node], why: str) -> None:
        """Prune `nodes`, except those that a person restored.

        Args:
            nodes: The nodes to prune.
            why: The reason, for displays.
        """
        restored = self.tree.restored
        fresh = tuple(node.id for node in nodes if self.tree.is_apart(node) or not (node.pruned or node.id in restored))
        if fresh and not self._is_over():
            self._journal.append(NodesPruned(t=self._journal.now, nodes=fresh, why=why))
            self._writer.ahead.drop(nodes)

    # -- for people, without effect once the search is over; more in `steering` --------------------------------------

    def pause(self) -> None:
        """Pause: no new step of a strategy starts until `go_on`; steps that are being generated are finished."""
        if self._tasks.are_open and self._writer.gate.is_open:
            self._writer.gate.close()
            self._journal.append(SearchPaused(t=self._journal.now))
            self._watch.recheck()

    def go_on(self) -> None:
        """End a pause: waiting steps start, and new ones start without waiting."""
        if self._tasks.are_open and not self._writer.gate.is_open:
            self._writer.gate.open()
            self._journal.append(SearchContinued(t=self._journal.now))
            self._watch.recheck()

    def step(self) -> None:
        """Let one step through the pause; pause first if the search is running."""
        self._let(self._writer.gate.step, round=False)

    def round(self) -> None:
        """Let all waiting steps, or else the next ones to arrive together, through the pause.

        Pauses first if the search is running.
        """
        self._let(self._writer.gate.round, round=True)

    def _let(self, through: Callable[[], None], *, round: bool) -> None:
        self.pause()
        if self._tasks.are_open:
            self._journal.append(SearchStepped(t=self._journal.now, round=round))
            through()

    def stop(self, reason: Reason = "interrupted", detail: str = "stopped by the user") -> None:
        """Stop the search; the result is the best answer so far.

        Args:
            reason: The reason that the result reports.
            detail: The reason in a sentence.
        """
        self._watch.stop(reason, detail)

    # -- for `steering` ----------------------------------------------------------------------------------------------

    def ask(self, node: Node, slot: int) -> asyncio.Task[Node | None]:
        """Start to generate a step that a person asked for, and return its task."""
        return self._place("step", node, slot, HAND, merge=True, by="person")

    def recheck(self) -> None:
        """Check the limits again, because the plan has changed."""
        self._watch.recheck()

    # -- running -----------------------------------------------------------------------------------------------------

    async def run(
        self, strategy: Strategy, steer: Callable[[Search], None] | None = None
    ) -> tuple[list[Node], Stopped | None]:
        """Run `strategy` from the root and all branches, until all have finished or something stops the search.

        Args:
            strategy: The strategy of the plan.
            steer: Callback that receives this search when it is about to begin.

        Returns:
            The solutions that vote, and the reason why the search ended early, or None if it did not.

        Raises:
            StrategyError: The strategy itself failed.
            SinkError: A sink failed.
        """
        stopped: Stopped | None = None
        failed: TTSError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                self._tasks.open(group)
                try:
                    await self._work(strategy, steer)
                finally:
                    self._tasks.close()
                self._tasks.cancel()
        except BaseExceptionGroup as errors:
            stopped, failed = _outcome(errors)
        if failed is not None:
            raise failed
        if stopped is not None:
            # By address: in order of completion, short solutions would win ties.
            return sorted(self.tree.voters(), key=_address), stopped
        solutions = self._solutions()
        for node in solutions:
            if not node.solved:
                self._writer.record_solution(node)
        return solutions, None

    async def _work(self, strategy: Strategy, steer: Callable[[Search], None] | None) -> None:
        self._tasks.spawn(self._watch.run())
        if self._scorer:
            self._tasks.spawn(self._scorer.run())
        self._branches.strategy = strategy
        if steer is not None:
            steer(self)
        self.steering.take_up()
        self._branches.sync()
        while True:
            while running := [*self._branches.running(), *self.steering.running()]:
                await asyncio.wait(running)
            if self._writer.gate.is_open:
                return
            await self._writer.gate.opened()  # a paused search does not end: a person may still add to it

    def _solutions(self) -> list[Node]:
        """Return the solutions of the strategy, of the branches, and those that a person asked for or restored."""
        tree = self.tree
        by_hand = [node for node in tree.voters() if node.by_hand or node.id in tree.restored]
        found = dict.fromkeys([*self._branches.solutions(), *sorted(by_hand, key=_address)])
        return [node for node in found if not tree.is_cut(node)]

    def _needs_scores(self) -> bool:
        strategy = self._branches.strategy
        return strategy is not None and strategy.needs_scores

    def _is_news(self, node: Node, why: str) -> bool:
        return not node.cut and (node.pruned or node.why != why)

    def _is_over(self) -> bool:
        return self._run is not None and self._run.over

    def _hand_out(self, node: Node) -> bool:
        """Return whether a strategy receives `node`; if so, it is not merged into a sibling any more."""
        if self.tree.left_out(node, self.root):
            return False
        self._writer.merger.claim(node)
        return True

    def _place(
        self,
        kind: Literal["step", "roll"],
        node: Node,
        slot: int,
        group: int,
        merge: bool = False,
        survivors: int = 0,
        by: By = "strategy",
    ) -> asyncio.Task[Node | None]:
        """Return the task that fills a slot; while it is being filled, all callers share one task."""
        if self._is_over():
            raise StrategyError("the plan was changed: another run has begun")
        key = (kind, node.id, slot, group)
        task = self._places.get(key)
        if task is None or task.done():
            writer = self._writer
            work = writer.open_slot(node, by)
            if kind == "step":
                task = self._tasks.spawn(writer.generate_step(work, slot, group, merge, survivors))
            else:
                task = self._tasks.spawn(writer.generate_rollout(work, slot, group))
            place = self._places[key] = task
            work.on_end = lambda: self._leave(key, place)
            task.add_done_callback(lambda _: self._leave(key, place))
        return task

    def _leave(self, key: tuple[str, int, int, int], task: asyncio.Task[Node | None]) -> None:
        """Free the slot, unless another task has it by now."""
        if self._places.get(key) is task:
            del self._places[key]


def _address(node: Node) -> list[tuple[int, int]]:
    return [(step.group, step.slot) for step in node.path]


def _outcome(errors: BaseExceptionGroup[BaseException]) -> tuple[Stopped | None, TTSError | None]:
    """Return what ended a search: a reason to stop, or a failure. Cancellations and exits are raised again."""
    leaves = list(_leaves(errors))
    for leaf in leaves:
        if isinstance(leaf, Stopped):
            return leaf, None
        if isinstance(leaf, BudgetExhausted):
            return Stopped("budget", str(leaf)), None
    for leaf in leaves:
        if isinstance(leaf, TTSError):
            return None, leaf
        if isinstance(leaf, Exception):
            failed = StrategyError(f"the search failed: {type(leaf).__name__}: {leaf}")
            failed.__cause__ = leaf
            return None, failed
    raise errors


def _leaves(error: BaseException) -> Generator[BaseException, None, None]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
