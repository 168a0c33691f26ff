"""What a strategy may do: expand, roll out, keep, prune. Everything that happens becomes an event.

A search is one `asyncio.TaskGroup`: the strategy, one task per step that is being written, one that scores and one that
watches the clock. Leaving it, for whatever reason, cancels all of them, and closing a stream stops the work behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator, Sequence
from typing import Any, Literal, TypeVar

from tts_tui.contracts import Policy, Prompt, RewardModel, Strategy
from tts_tui.errors import BudgetExhausted, StrategyError, TTSError
from tts_tui.events import NodesKept, NodesPruned, Reason, SearchContinued, SearchPaused
from tts_tui.journal import Journal
from tts_tui.plan import Plan
from tts_tui.scoring import Scorer
from tts_tui.tree import Node, SearchTree
from tts_tui.writing import Writer

T = TypeVar("T")

ATTEMPTS = 3
"""How often a step or a batch of scores is tried before it is given up."""
BACKOFF = 0.2
"""Seconds before the first retry; doubled each time."""


class Stopped(Exception):
    """Ends a search from inside, with the reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


class Expansion:
    """Steps on their way. Await it for all of them by slot, or iterate over it for each as soon as it is ready.

    Steps that failed, or that only repeat an older sibling, are left out.
    """

    def __init__(self, tasks: Sequence[asyncio.Task[Node | None]]) -> None:
        self._tasks = tasks

    def __await__(self) -> Generator[Any, None, list[Node]]:
        return self._all().__await__()

    async def _all(self) -> list[Node]:
        return [node for node in await asyncio.gather(*self._tasks) if node is not None]

    async def __aiter__(self) -> AsyncIterator[Node]:
        for ready in asyncio.as_completed(self._tasks):
            node = await ready
            if node is not None:
                yield node


class Search:
    """One search over one tree.

    Attributes:
        plan: What is to happen.
        tree: What has happened; strategies only read it.
    """

    def __init__(
        self,
        policy: Policy,
        prm: RewardModel | None,
        prompt: Prompt,
        plan: Plan,
        journal: Journal,
    ) -> None:
        self.plan = plan
        self._journal = journal
        self._scorer = Scorer(prm, prompt, journal, ATTEMPTS, BACKOFF) if prm else None
        self._writer = Writer(policy, prompt, plan, journal, self._scorer, ATTEMPTS, BACKOFF, self._spawn)
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._places: dict[tuple[str, int, int, int], asyncio.Task[Node | None]] = {}
        self._stop: asyncio.Future[Stopped] | None = None

    @property
    def tree(self) -> SearchTree:
        """The fold of all events so far."""
        return self._journal.tree

    @property
    def root(self) -> Node:
        """The node of the prompt."""
        return self.tree.root

    @property
    def last_error(self) -> str:
        """How a model failed last so that a step or a score was given up, a sentence; empty if none did."""
        return self._writer.last_error or (self._scorer.last_error if self._scorer else "")

    @property
    def last_problem(self) -> str:
        """Why a step was given up last, whoever was the reason; empty if none was."""
        return self._writer.last_problem

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
            merge: Give up a step that says the same as an older sibling.
            survivors: How many steps of this depth and group the search will go on with, those of the highest value.
                That lets them be written on before it says so (`tts_tui.ahead`); 0 if that cannot be told.
        """
        counts = [n] * len(nodes) if isinstance(n, int) else n
        return Expansion(
            [
                self._place("step", node, slot, group, merge, survivors)
                for node, count in zip(nodes, counts, strict=True)
                for slot in range(start, start + count)
            ]
        )

    def rollout(self, node: Node, n: int, *, group: int = 0) -> Expansion:
        """Samples `n` continuations of `node` to the end of the answer; gives the last step of each.

        Every step on the way is a node. Continuations are independent samples, so equal ones are kept.
        """
        return Expansion([self._place("roll", node, slot, group) for slot in range(n)])

    def keep(self, nodes: Sequence[Node], why: str) -> None:
        """Says that the search goes on with `nodes`."""
        fresh = tuple(node.id for node in nodes if node.pruned or node.why != why)
        if fresh:
            self._journal.write(NodesKept(t=self._journal.now, nodes=fresh, why=why))

    def prune(self, nodes: Sequence[Node], why: str) -> None:
        """Gives `nodes` up."""
        fresh = tuple(node.id for node in nodes if not node.pruned)
        if fresh:
            self._journal.write(NodesPruned(t=self._journal.now, nodes=fresh, why=why))
            self._writer.ahead.drop(nodes)

    # -- what people call --------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Starts no new step until `go_on`; steps that are being written are finished."""
        if self._writer.gate.is_set():
            self._writer.gate.clear()
            self._journal.write(SearchPaused(t=self._journal.now))

    def go_on(self) -> None:
        """Ends a pause."""
        if not self._writer.gate.is_set():
            self._writer.gate.set()
            self._journal.write(SearchContinued(t=self._journal.now))

    def stop(self, reason: Reason = "interrupted", detail: str = "stopped by the user") -> None:
        """Ends the search; the best answer so far is given."""
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(Stopped(reason, detail))

    # -- running -----------------------------------------------------------------------------------------------------

    async def run(self, strategy: Strategy) -> tuple[list[Node], Stopped | None]:
        """Runs `strategy` to its end, or until something stops it.

        Returns:
            The solutions that vote, and what stopped the search early, if anything did.

        Raises:
            StrategyError: The strategy itself failed.
        """
        self._stop = asyncio.get_running_loop().create_future()
        solutions: Sequence[Node] = ()
        stopped: Stopped | None = None
        failed: TTSError | None = None
        try:
            async with asyncio.TaskGroup() as self._group:
                helpers = [self._spawn(self._watch(self._stop))]
                if self._scorer:
                    helpers.append(self._spawn(self._scorer.run()))
                solutions = await self._decide(strategy)
                for task in tuple(self._tasks):
                    task.cancel()
        except BaseExceptionGroup as errors:
            stopped, failed = _outcome(errors)
        finally:
            self._group = None
        if failed is not None:
            raise failed
        if stopped is not None:
            # By address: in order of completion, short solutions would win ties.
            solutions = sorted((node for node in self.tree.solutions if not node.pruned), key=_address)
        for node in solutions:
            if not node.solved:
                self._writer.solve(node)
        return list(solutions), stopped

    async def _decide(self, strategy: Strategy) -> Sequence[Node]:
        try:
            return await strategy.run(self)
        except (TTSError, Stopped):
            raise
        except Exception as error:
            raise StrategyError(f"the strategy {strategy.name!r} failed: {error!r}") from error

    def _place(
        self,
        kind: Literal["step", "roll"],
        node: Node,
        slot: int,
        group: int,
        merge: bool = False,
        survivors: int = 0,
    ) -> asyncio.Task[Node | None]:
        """The task that fills a slot: whoever asks while it is being filled waits for the same one."""
        key = (kind, node.id, slot, group)
        task = self._places.get(key)
        if task is None or task.done():
            writer = self._writer
            if kind == "step":
                work = writer.step(node, slot, group, merge, survivors)
            else:
                work = writer.roll(node, slot, group)
            task = self._places[key] = self._spawn(work)
            task.add_done_callback(lambda _: self._places.pop(key, None))
        return task

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        if self._group is None:
            work.close()
            raise StrategyError("the search is over: nothing can be expanded any more")
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watch(self, stop: asyncio.Future[Stopped]) -> None:
        """Waits for `stop` or for the deadline, and ends the search."""
        limit = self.plan.budget.seconds
        try:
            async with asyncio.timeout(None if limit is None else max(0.0, limit - self._journal.now)):
                stopped = await asyncio.shield(stop)
        except TimeoutError:
            raise Stopped("timeout", f"the time limit of {limit:g} s is reached") from None
        raise stopped


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
