"""The Python API for programs: `Solver`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime
from functools import cache, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self

from tts_tui import registry
from tts_tui._version import __version__
from tts_tui.answers.grading import Grader
from tts_tui.budget import Budget
from tts_tui.errors import PlanError, SolverClosed, TTSError, UsageError
from tts_tui.plan import Plan, default_plan
from tts_tui.preflight import (
    check_ids,
    check_left,
    check_path,
    check_policy,
    check_prm,
    check_problem,
    is_complete,
    same_prm,
)
from tts_tui.profiles import plan_defaults, profile_of, votes_for
from tts_tui.protocols import Policy, Prompt, RewardModel
from tts_tui.search.answer_matching import match_answers, undecided
from tts_tui.search.result import Result, failure, finish
from tts_tui.search.search import Search
from tts_tui.search.strategy import Strategy
from tts_tui.search.tasks import OwnedTasks, Stopped
from tts_tui.tree.event_log import EventLog, Sink
from tts_tui.tree.events import AnyEvent, Notice, Origin, PlanChanged, SearchFinished, SearchResumed, SearchStarted
from tts_tui.tree.forking import copy_path, origin_of
from tts_tui.tree.recording import Recorder, Recording
from tts_tui.tree.search_tree import Node, SearchTree

if TYPE_CHECKING:
    from tts_tui.controller.calibration import Calibration
    from tts_tui.controller.search_adapter import SearchControllerFactory

__all__ = ["PathType", "Solver", "Steer", "check_problem"]

PathType = str | os.PathLike[str]
Steer = Callable[[Search], None]
"""A callback that receives a search when it is about to begin, and may keep it to steer it while it runs."""

P = ParamSpec("P")


def _owned(
    method: Callable[Concatenate[Solver, P], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Solver, P], Coroutine[Any, Any, Result]]:
    """Run a method in a task that the solver owns and can cancel without cancelling the caller's task."""

    @wraps(method)
    async def owned(self: Solver, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return await self._tasks.run(method(self, *args, **kwargs))

    return owned


class Solver:
    """A solver of problems: a policy and a reward model, loaded once, and the searches that use them.

    Use it as an async context manager. Leaving it ends the searches that are still running and frees the models;
    callers that wait for such a search get `SolverClosed`. Cancelling a caller of `solve` cancels its search.

    Args:
        policy: A spec such as "embedded" or "hf:PATH", or an object that is a `Policy`.
        prm: A spec such as "embedded" or "none", an object that is a `RewardModel`, or None. It is loaded when the
            first plan needs it.
        calibration: The calibration for `auto`; by default the one stored for these models, or priors if there is none.

    Raises:
        UnknownName: A spec names no known model kind.
    """

    def __init__(
        self,
        policy: str | Policy = "embedded",
        prm: str | RewardModel | None = "embedded",
        calibration: Calibration | None = None,
    ) -> None:
        self.policy: Policy = registry.policy(policy) if isinstance(policy, str) else policy
        self.prm: RewardModel | None = registry.reward_model(prm, self.policy) if isinstance(prm, str) else prm
        self.calibration = calibration
        self._prm_lock = asyncio.Lock()
        self._prm_started = False
        self._grader = Grader()
        self._searches: set[Search] = set()
        self._tasks = OwnedTasks()

    async def __aenter__(self) -> Self:
        self._tasks.open()
        try:
            await self.policy.start()
        except BaseException:
            await self.policy.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.policy.close)
            stack.push_async_callback(self._grader.close)
            stack.push_async_callback(self._close_prm)
            await self._tasks.close()

    def plan(self, strategy: str = "best-of-n", **changes: Any) -> Plan:
        """Return the default plan for `strategy`, adapted to these models, with `changes` on top.

        The policy's profile gives the limits, and the reward model's profile the score and vote. Without a reward model
        the vote is by majority.

        Raises:
            UnknownName: There is no such strategy.
            PlanError: The changes do not fit together.
        """
        registry.strategy(strategy)
        defaults: dict[str, Any] = {**plan_defaults(profile_of(self.policy))}
        if self.prm is None:
            defaults["vote"] = "majority"
        elif strategy not in ("cot", "majority"):
            defaults |= votes_for(self.prm)
        return default_plan(strategy, **{**defaults, **changes})

    def check(self, plan: Plan) -> None:
        """Check that a search can follow `plan`, before any model is loaded.

        Raises:
            UnknownName: There is no such strategy.
            PlanError: The plan's `n` and `m` do not fit together, or it needs a reward model and there is none.
        """
        strategy = registry.strategy(plan.strategy)
        if strategy.uses_width:
            plan.check_width()
        if self.prm is None and _needs_prm(strategy, plan):
            raise PlanError(
                f"{plan.strategy} with vote {plan.vote} needs a reward model: choose one with --prm, "
                "or use --strategy majority"
            )

    def needs_prm(self, plan: Plan) -> bool:
        """Return whether a search with `plan` needs the reward model to be loaded.

        Raises:
            UnknownName: There is no such strategy.
        """
        return _needs_prm(registry.strategy(plan.strategy), plan)

    def stop(self, detail: str = "stopped by the user") -> None:
        """Stop all running searches; each of them returns its best answer so far."""
        for search in tuple(self._searches):
            search.stop("interrupted", detail)

    @_owned
    async def solve(
        self,
        problem: str,
        plan: Plan | None = None,
        *,
        record: PathType | None = None,
        sinks: Iterable[Sink] = (),
        steer: Steer | None = None,
        tree: SearchTree | None = None,
    ) -> Result:
        """Solve one problem and return the result.

        Args:
            problem: The problem as text.
            plan: The plan to follow; by default Best-of-N 16.
            record: File to record the search in; it must not exist.
            sinks: Callbacks that receive every event; one that raises ends the search.
            steer: Callback that receives the search when it is about to begin; `Search.steering` has the methods with
                which a person can intervene.
            tree: An empty tree to fold the events into; by default a new one.

        Raises:
            UsageError: The problem, the plan or `record` cannot be used.
            SolverClosed: The solver was closed before or during the search.
            StrategyError: The strategy failed.
            SinkError: A sink raised; `__cause__` is its exception.
            BackendError: A model could not be loaded. One that fails later ends the search with reason "failed".
        """
        plan = plan or self.plan()
        problem = check_problem(problem)
        prm = await self.reward_model(plan)
        prompt = await self.policy.prompt(problem)
        self._check_prompt(prompt.ids, plan)
        with ExitStack() as stack:
            journal = self._journal(stack, record, sinks, tree)
            self._begin(journal, plan, prm, prompt)
            return await self._run(prm, prompt, journal, steer)

    @_owned
    async def fork(
        self,
        tree: SearchTree,
        node: Node,
        plan: Plan | None = None,
        *,
        problem: str | None = None,
        record: PathType | None = None,
        sinks: Iterable[Sink] = (),
        steer: Steer | None = None,
        into: SearchTree | None = None,
    ) -> Result:
        """Start a new search from a copy of the path to `node`. The original search is left unchanged.

        Args:
            tree: The tree of the original search, running or not.
            node: A step of that tree that can be continued, or its root.
            plan: The plan to follow; by default the original search's plan.
            problem: A different problem; the copied steps are then scored again.
            record, sinks, steer: As for `solve`.
            into: An empty tree to fold the events into; by default a new one.

        Raises:
            UsageError: As for `solve`; also if `node` cannot be continued, or the original search had another policy.
            SolverClosed, StrategyError, SinkError, BackendError: As for `solve`.
        """
        origin, path = origin_of(tree, node), node.path_ids
        plan = plan or tree.plan
        start = tree.start
        check_policy(start, self.policy)
        prm = await self.reward_model(plan)
        if problem is None or check_problem(problem) == start.problem:
            prompt, same = Prompt(start.problem, start.prompt_ids), True
        else:
            prompt, same = await self.policy.prompt(check_problem(problem)), False
        self._check_prompt((*prompt.ids, *path), plan)
        judged = same and same_prm(start.prm, prm.info if prm else None)
        with ExitStack() as stack:
            journal = self._journal(stack, record, sinks, into)
            self._begin(journal, plan, prm, prompt, origin)
            copy_path(node, journal, scores=judged)
            return await self._run(prm, prompt, journal, steer)

    @_owned
    async def resume(
        self,
        recording: PathType | Recording,
        *,
        sinks: Iterable[Sink] = (),
        budget: Budget | None = None,
        steer: Steer | None = None,
        tree: SearchTree | None = None,
    ) -> Result:
        """Continue a recorded search from its last finished step, appending to the same file.

        Recorded steps lead to the same decisions as before the interruption; a sample that was cut off continues with
        new random numbers.

        Args:
            recording: The path of the recording, or a `Recording` that was already loaded.
            sinks: Callbacks that receive every new event; one that raises ends the search.
            budget: A budget that replaces the recorded one.
            steer: As for `solve`.
            tree: An empty tree to fold all events into, the recorded ones first; by default a new one.

        Raises:
            RecordError: The recording cannot be read, or another process is writing it.
            SinkError, SolverClosed: As for `solve`.
            UsageError: The recording was made with another model, or its budget is spent and `budget` gives no larger
                one.
        """
        if not isinstance(recording, Recording):
            recording = await asyncio.to_thread(Recording.load, recording)
        # A tree that was passed in may be on display, so it is filled in this thread.
        tree = await asyncio.to_thread(recording.tree) if tree is None else recording.tree(tree)
        start = tree.start
        if is_complete(tree):
            assert tree.finished is not None
            return Result(start.problem, tree, tree.finished)
        plan = tree.plan if budget is None else tree.plan.replace(budget=budget)
        check_left(tree, plan)
        check_path(tree)
        prm = await self.reward_model(plan, had=start.prm is not None)
        check_policy(start, self.policy)
        check_prm(start, prm)
        with Recorder(recording.path, resume=True, unchanged=recording.stamp) as recorder:
            journal = EventLog(tree, [recorder, *sinks])
            journal.append(SearchResumed(t=journal.now, created=_now()))
            if budget is not None and budget != tree.plan.budget:
                journal.append(PlanChanged(t=journal.now, plan=tree.plan.replace(budget=budget)))
            return await self._run(prm, Prompt(start.problem, start.prompt_ids), journal, steer)

    async def stream(
        self, problem: str, plan: Plan | None = None, *, record: PathType | None = None
    ) -> AsyncGenerator[AnyEvent, None]:
        """Solve one problem and yield every event as it happens; the last one is `SearchFinished`.

        Closing the iterator ends the search; use `contextlib.aclosing` if you may leave the loop early.

        Args:
            problem: The problem as text.
            plan: The plan to follow; by default Best-of-N 16.
            record: File to record the search in; it must not exist.

        Raises:
            TTSError: As for `solve`.
        """
        events: asyncio.Queue[AnyEvent | None] = asyncio.Queue()
        search = asyncio.create_task(self.solve(problem, plan, record=record, sinks=[events.put_nowait]))
        search.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            await search
        finally:
            search.cancel()
            await asyncio.gather(search, return_exceptions=True)

    async def solve_many(
        self, problems: Sequence[str], plan: Plan | None = None, *, parallel: int = 4
    ) -> AsyncGenerator[Result, None]:
        """Solve many problems and yield each result as soon as it is ready.

        A problem that cannot be solved yields a result with reason "failed" and does not stop the others.

        Args:
            problems: The problems as text; `Result.index` is the position in this sequence.
            plan: The plan to follow; by default Best-of-N 16.
            parallel: Maximum number of problems solved at the same time.

        Raises:
            UsageError: `parallel` is less than 1.
            SolverClosed: The solver was closed meanwhile.
        """
        if parallel < 1:
            raise UsageError(f"parallel must be at least 1, not {parallel}")
        plan = plan or self.plan()
        slots = asyncio.Semaphore(parallel)

        async def one(index: int, problem: str) -> Result:
            async with slots:
                tree = SearchTree()
                try:
                    result = await self.solve(problem, plan)
                except SolverClosed:
                    raise
                except TTSError as error:
                    return Result(problem, tree, failure(plan, str(error)), index)
                return Result(problem, result.tree, result.finished, index)

        tasks = [asyncio.create_task(one(index, problem)) for index, problem in enumerate(problems)]
        try:
            for ready in asyncio.as_completed(tasks):
                yield await ready
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def reward_model(self, plan: Plan, *, had: bool = False) -> RewardModel | None:
        """Start the reward model if needed and return it; None if there is none or `plan` does not need it.

        Args:
            plan: The plan that a search is to follow.
            had: True if the search is resumed and its recording was made with a reward model, which is then needed too.

        Raises:
            UnknownName, PlanError: As for `check`.
            BackendError: The reward model cannot be started.
        """
        self.check(plan)
        if self.prm is None or not (had or self.needs_prm(plan)):
            return None
        async with self._prm_lock:
            if not self._prm_started:
                try:
                    await self.prm.start()
                except BaseException:
                    await self.prm.close()
                    raise
                self._prm_started = True
        return self.prm

    # -- internal ----------------------------------------------------------------------------------------------------

    async def _close_prm(self) -> None:
        if self.prm is not None and self._prm_started:
            self._prm_started = False
            await self.prm.close()

    def _check_prompt(self, ids: Sequence[int], plan: Plan) -> None:
        check_ids(ids)
        tokens = len(ids)
        context = self.policy.info.context
        if tokens >= context:
            raise UsageError(
                f"the prompt has {tokens} tokens and the context of {self.policy.info.name} is {context}: "
                "shorten the problem"
            )
        plan.budget.check_prompt(tokens)

    def _journal(
        self, stack: ExitStack, record: PathType | None, sinks: Iterable[Sink], tree: SearchTree | None
    ) -> EventLog:
        all_sinks = [*sinks]
        if record is not None:
            all_sinks.insert(0, stack.enter_context(Recorder(record)))
        return EventLog(SearchTree() if tree is None else tree, all_sinks)

    def _begin(
        self, journal: EventLog, plan: Plan, prm: RewardModel | None, prompt: Prompt, origin: Origin | None = None
    ) -> None:
        """Append the first events of a search: `SearchStarted`, and the policy's notes as notices."""
        journal.append(
            SearchStarted(
                problem=prompt.problem,
                plan=plan,
                policy=self.policy.info,
                prm=prm.info if prm else None,
                prompt_ids=prompt.ids,
                version=__version__,
                created=_now(),
                run=os.urandom(6).hex(),
                origin=origin,
            )
        )
        for note in getattr(self.policy, "notes", ()):
            journal.append(Notice(t=journal.now, message=note))

    def _follow(self, plan: Plan, prm: RewardModel | None) -> Strategy:
        """Return the strategy for a plan that a running search changes to, or raise if the search cannot follow it."""
        self.check(plan)
        if prm is None and self.needs_prm(plan):
            raise PlanError(
                f"{plan.strategy} with vote {plan.vote} needs a reward model, and this search was begun without one: "
                "fork it with the new plan"
            )
        return registry.strategy(plan.strategy)

    def _guides(self, prompt: Prompt) -> SearchControllerFactory:
        from tts_tui.controller.search_adapter import (
            SearchControllerFactory,  # imports numpy, which is needed only here
        )

        return SearchControllerFactory(self.policy, prompt, self.calibration)

    async def _run(self, prm: RewardModel | None, prompt: Prompt, journal: EventLog, steer: Steer | None) -> Result:
        tree = journal.tree
        guides = cache(lambda: self._guides(prompt))
        search = Search(self.policy, prm, prompt, journal, lambda plan: self._follow(plan, prm), guides)
        self._searches.add(search)

        def end(nodes: Sequence[Node], why: Stopped | None, problem: str = "") -> SearchFinished:
            return finish(journal, nodes, why, problem, undecided(self._grader, tree, nodes))

        try:
            solutions, stopped = await search.run(registry.strategy(tree.plan.strategy), steer)
            await match_answers(self._grader, journal, solutions, stopped)
        except asyncio.CancelledError:
            end(tree.voters(), Stopped("interrupted", "cancelled"))
            raise
        except TTSError as error:
            end(tree.voters(), Stopped("failed", str(error)))
            raise
        finally:
            self._searches.discard(search)
        unanswered = not any(node.answer is not None for node in solutions)
        if stopped is None and unanswered and search.last_error:
            stopped = Stopped("failed", search.last_error)
        finished = end(solutions, stopped, search.last_problem)
        if journal.failure is not None:
            raise journal.failure
        return Result(prompt.problem, tree, finished)


def _needs_prm(strategy: Strategy, plan: Plan) -> bool:
    return strategy.needs_scores or plan.vote != "majority"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
