"""What a strategy may do: expand, roll out, keep, prune. Everything that happens becomes an event.

A search is one `asyncio.TaskGroup`: the strategy, one task per step that is being written, one that scores and one that
watches the clock. Leaving it, for whatever reason, cancels all of them, and closing a stream stops the work behind it.
What a person does in it beside pausing is in `tts_tui.search.steering`.
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
"""How often a step or a batch of scores is tried before it is given up."""
BACKOFF = 0.2
"""Seconds before the first retry; doubled each time."""


class Search:
    """One search over one tree, as seen from one of its nodes.

    Args:
        policy: Who writes.
        prm: Who scores, if anybody does.
        prompt: What every path starts with.
        journal: Where events go; its tree is begun already, and has the plan.
        choose: The strategy of a plan; raises if this search cannot follow that plan.
        guides: Those who make who chooses how `auto` goes on, always the same; asked for when they are needed.

    Attributes:
        root: The node that the strategy runs from.
        hand: What a person may do by hand.
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
        """What is to happen. A person may change it: whether that has the strategy start anew, `plan.restarts` says."""
        return self.tree.plan

    @property
    def tree(self) -> SearchTree:
        """The fold of all events so far; strategies only read it."""
        return self._journal.tree

    @property
    def last_error(self) -> str:
        """How a model failed last so that a step or a score was given up, a sentence; empty if none did."""
        return self._writer.last_error or (self._scorer.last_error if self._scorer else "")

    @property
    def last_problem(self) -> str:
        """Why a step was given up last, whoever was the reason; empty if none was."""
        return self._writer.last_problem

    def below(self, root: Node) -> Search:
        """The same search as seen from another node."""
        search = copy(self)
        search.root = root
        return search

    def _view(self, run: StrategyRun) -> Search:
        search = self.below(run.root)
        search._run = run
        return search

    # -- what strategies call ----------------------------------------------------------------------------------------

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
        """Samples `n` next steps of each node, and scores them.

        Slots that the tree already has are not sampled again: that is how a recording resumes.

        Args:
            nodes: Nodes to continue.
            n: Steps per node, one number for all or one for each.
            start: First slot; a second round of attempts starts where the first one ended.
            group: Independent part of the search; duplicates are looked for inside it only.
            merge: Give up a step that says the same as a sibling (`tts_tui.search.merging`).
            survivors: How many steps of this depth and group the search will go on with, those of the highest value.
                That lets them be written on before it says so (`tts_tui.search.speculation`); 0 if that cannot be told.
        """
        counts = [n] * len(nodes) if isinstance(n, int) else n
        tasks = [
            self._place("step", node, slot, group, merge, survivors)
            for node, count in zip(nodes, counts, strict=True)
            for slot in range(start, start + count)
        ]
        return Expansion(tasks, lambda node: node.merged_into is None and self._hand_out(node))

    def rollout(self, node: Node, n: int, *, group: int = 0) -> Expansion:
        """Samples `n` continuations of `node` to the end of the answer; gives the last step of each.

        Every step on the way is a node. Continuations are independent samples, so equal ones are kept.
        """
        return Expansion([self._place("roll", node, slot, group) for slot in range(n)], self._hand_out)

    async def choose(
        self, turn: int, samples: Sequence[Node], searched: Sequence[Node], done: Mapping[str, int]
    ) -> PlanChosen:
        """What the controller says: the recorded choice of this turn, or a new one.

        Args:
            turn: Which choice of this run it is, from 0.
            samples: Independent samples so far.
            searched: What tree searches chose so far.
            done: Candidates that each strategy has had.

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
            if guides.owed != Usage():  # the prompt was read, and no choice was written that tells of it
                self._journal.append(SpeculativeTokens(t=self._journal.now, node=self.root.id, usage=guides.owed))
                guides.told()
        return choice

    def keep(self, nodes: Sequence[Node], why: str) -> None:
        """Says that the search goes on with `nodes`."""
        fresh = tuple(node.id for node in nodes if not node.kept or self._is_news(node, why))
        if fresh and not self._is_over():
            self._journal.append(NodesKept(t=self._journal.now, nodes=fresh, why=why))

    def prune(self, nodes: Sequence[Node], why: str) -> None:
        """Gives `nodes` up, those left out that a person has restored."""
        restored = self.tree.restored
        fresh = tuple(node.id for node in nodes if self.tree.is_apart(node) or not (node.pruned or node.id in restored))
        if fresh and not self._is_over():
            self._journal.append(NodesPruned(t=self._journal.now, nodes=fresh, why=why))
            self._writer.ahead.drop(nodes)

    # -- what people call, to no effect once the search is over; more in `hand` --------------------------------------

    def pause(self) -> None:
        """Starts no new step of a strategy until `go_on`; steps that are being written are finished."""
        if self._tasks.are_open and self._writer.gate.is_open:
            self._writer.gate.close()
            self._journal.append(SearchPaused(t=self._journal.now))
            self._watch.recheck()

    def go_on(self) -> None:
        """Ends a pause."""
        if self._tasks.are_open and not self._writer.gate.is_open:
            self._writer.gate.open()
            self._journal.append(SearchContinued(t=self._journal.now))
            self._watch.recheck()

    def step(self) -> None:
        """Lets one step through a pause, which it begins if there is none."""
        self._let(self._writer.gate.step, round=False)

    def round(self) -> None:
        """Lets all steps that wait through a pause, or all that come together next."""
        self._let(self._writer.gate.round, round=True)

    def _let(self, through: Callable[[], None], *, round: bool) -> None:
        self.pause()
        if self._tasks.are_open:
            self._journal.append(SearchStepped(t=self._journal.now, round=round))
            through()

    def stop(self, reason: Reason = "interrupted", detail: str = "stopped by the user") -> None:
        """Ends the search; the best answer so far is given."""
        self._watch.stop(reason, detail)

    # -- what `hand` calls -------------------------------------------------------------------------------------------

    def ask(self, node: Node, slot: int) -> asyncio.Task[Node | None]:
        """Fills a slot of a person's."""
        return self._place("step", node, slot, HAND, merge=True, by="person")

    def recheck(self) -> None:
        """The limits have changed."""
        self._watch.recheck()

    # -- running -----------------------------------------------------------------------------------------------------

    async def run(
        self, strategy: Strategy, steer: Callable[[Search], None] | None = None
    ) -> tuple[list[Node], Stopped | None]:
        """Runs `strategy` to its end, and that of all branches, or until something stops it.

        Args:
            strategy: That of the plan.
            steer: Called with this search when it is about to begin.

        Returns:
            The solutions that vote, and what stopped the search early, if anything did.

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
            await self._writer.gate.opened()  # a paused search does not end: a person may have something to add

    def _solutions(self) -> list[Node]:
        """The strategy's, the branches', and what a person had beside these."""
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
        """Whether a strategy gets `node`; from then on it is not merged into a sibling any more."""
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
        """The task that fills a slot: whoever asks while it is being filled waits for the same one."""
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
        """The slot is free again, unless another task has it by now."""
        if self._places.get(key) is task:
            del self._places[key]


def _address(node: Node) -> list[tuple[int, int]]:
    return [(step.group, step.slot) for step in node.path]


def _outcome(errors: BaseExceptionGroup[BaseException]) -> tuple[Stopped | None, TTSError | None]:
    """What ended a search: a reason to stop, or a failure. Anything that is no error goes on its way."""
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
