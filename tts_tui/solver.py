"""The Python API: `Solver` for programs, `solve` for notebooks and REPLs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from tts_tui import registry
from tts_tui._version import __version__
from tts_tui.budget import Budget
from tts_tui.contracts import Policy, Prompt, RewardModel, Strategy
from tts_tui.errors import PlanError, TTSError, UsageError
from tts_tui.events import (
    AnyEvent,
    Notice,
    SearchResumed,
    SearchStarted,
)
from tts_tui.journal import Journal, Sink
from tts_tui.plan import Plan, default_plan
from tts_tui.profiles import plan_defaults, vote_defaults
from tts_tui.recording import Recorder, load
from tts_tui.result import Result, failure, finish
from tts_tui.search import Search, Stopped
from tts_tui.tree import SearchTree

PathType = str | os.PathLike[str]


class Solver:
    """Solves problems with a policy and a reward model, which it loads once.

    Use it as an async context manager. Leaving it cancels what still runs and frees the models.

    Args:
        policy: A spec such as "embedded" or "hf:PATH", or an object that is a `Policy`.
        prm: A spec such as "embedded" or "none", an object that is a `RewardModel`, or None. It is loaded when the
            first plan needs it.

    Raises:
        UnknownName: A spec names nothing.
    """

    def __init__(self, policy: str | Policy = "embedded", prm: str | RewardModel | None = "embedded") -> None:
        self.policy: Policy = registry.policy(policy) if isinstance(policy, str) else policy
        self.prm: RewardModel | None = registry.reward_model(prm, self.policy) if isinstance(prm, str) else prm
        self._policy_name = policy if isinstance(policy, str) else ""
        self._prm_name = prm if isinstance(prm, str) else ""
        self._prm_lock = asyncio.Lock()
        self._prm_started = False
        self._searches: dict[Search, asyncio.Task[Any] | None] = {}

    async def __aenter__(self) -> Self:
        try:
            await self.policy.start()
        except BaseException:
            await self.policy.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = {task for task in self._searches.values() if task and task is not asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        try:
            if self.prm is not None and self._prm_started:
                self._prm_started = False
                await self.prm.close()
        finally:
            await self.policy.close()

    def plan(self, strategy: str = "best-of-n", **changes: Any) -> Plan:
        """The default plan for `strategy`, with what suits these models, and `changes` on top.

        The policy's profile gives limits, the reward model's score and vote. Without a reward model the majority votes.
        """
        registry.strategy(strategy)
        defaults: dict[str, Any] = {**plan_defaults(self._policy_name)}
        if self.prm is None:
            defaults["vote"] = "majority"
        elif strategy not in ("cot", "majority"):
            defaults |= vote_defaults(self._prm_name)
        return default_plan(strategy, **{**defaults, **changes})

    def check(self, plan: Plan) -> None:
        """Refuses what no search could do with `plan`, before any model is loaded.

        Raises:
            UnknownName: There is no such strategy.
            PlanError: Its widths do not fit, or it needs a reward model and there is none.
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
        """Whether a search with `plan` loads the reward model.

        Raises:
            UnknownName: There is no such strategy.
        """
        return _needs_prm(registry.strategy(plan.strategy), plan)

    def stop(self, detail: str = "stopped by the user") -> None:
        """Ends all running searches; each gives its best answer so far."""
        for search in tuple(self._searches):
            search.stop("interrupted", detail)

    async def solve(
        self,
        problem: str,
        plan: Plan | None = None,
        *,
        record: PathType | None = None,
        sinks: Iterable[Sink] = (),
    ) -> Result:
        """Solves one problem.

        Args:
            problem: The problem as text.
            plan: What to do; by default Best-of-N 16.
            record: File to record the search in; it must not exist.
            sinks: Called with every event.

        Raises:
            UsageError: The problem, the plan or `record` cannot be used.
            StrategyError: The strategy failed.
            BackendError: A model could not be loaded. One that fails later ends the search with reason "failed".
        """
        plan = plan or self.plan()
        problem = check_problem(problem)
        strategy = registry.strategy(plan.strategy)
        prm = await self._reward_model(strategy, plan)
        prompt = await self.policy.prompt(problem)
        self._check_prompt(prompt, plan)
        with ExitStack() as stack:
            all_sinks = [*sinks]
            if record is not None:
                all_sinks.insert(0, stack.enter_context(Recorder(record)))
            journal = Journal(SearchTree(), all_sinks)
            journal.write(
                SearchStarted(
                    problem=problem,
                    plan=plan,
                    policy=self.policy.info,
                    prm=prm.info if prm else None,
                    prompt_ids=prompt.ids,
                    version=__version__,
                    created=_now(),
                    run=os.urandom(6).hex(),
                )
            )
            for note in getattr(self.policy, "notes", ()):
                journal.write(Notice(t=journal.now, message=note))
            return await self._run(strategy, prm, prompt, plan, journal)

    async def resume(self, path: PathType, *, sinks: Iterable[Sink] = (), budget: Budget | None = None) -> Result:
        """Continues a recording from its last whole step, in the same file.

        What is recorded decides as it would have; a sample that was cut off goes on with new random numbers.

        Args:
            path: The recording.
            sinks: Called with every new event.
            budget: Replaces the recorded budget.

        Raises:
            RecordError: The recording cannot be read.
            UsageError: It is another model's, or its budget is spent and `budget` gives no larger one.
        """
        tree = load(path)
        start = tree.start
        if tree.finished is not None and tree.finished.reason in ("solved", "unsolved"):
            return Result(start.problem, tree, tree.finished)
        plan = start.plan if budget is None else start.plan.with_(budget=budget)
        spent = plan.budget.overrun(tree.counts, start.policy, start.prm)
        if plan.budget.seconds is not None and tree.seconds >= plan.budget.seconds:
            spent = f"the time limit of {plan.budget.seconds:g} s is reached"
        if spent:
            raise PlanError(f"{spent} already in this recording: give a larger one to go on")
        strategy = registry.strategy(plan.strategy)
        prm = await self._reward_model(strategy, plan)
        self._check_models(tree, prm)
        with Recorder(path, resume=True) as recorder:
            tree = load(path)  # again, now that nobody else can write it
            if tree.finished is not None and tree.finished.reason in ("solved", "unsolved"):
                return Result(start.problem, tree, tree.finished)
            journal = Journal(tree, [recorder, *sinks])
            journal.write(SearchResumed(t=journal.now, created=_now()))
            return await self._run(strategy, prm, Prompt(start.problem, start.prompt_ids), plan, journal)

    async def stream(
        self, problem: str, plan: Plan | None = None, *, record: PathType | None = None
    ) -> AsyncIterator[AnyEvent]:
        """Solves one problem and gives every event as it happens, the last one being `SearchFinished`.

        Closing the iterator ends the search; use `contextlib.aclosing` if you may leave the loop early.
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
        self, problems: Sequence[str], plan: Plan | None = None, *, concurrency: int = 4
    ) -> AsyncIterator[Result]:
        """Solves many problems, at most `concurrency` at a time, and gives each result when it is there.

        A problem that cannot be solved gives a result with reason "failed" and does not stop the others.
        """
        if concurrency < 1:
            raise UsageError(f"concurrency must be at least 1, not {concurrency}")
        plan = plan or self.plan()
        slots = asyncio.Semaphore(concurrency)

        async def one(index: int, problem: str) -> Result:
            async with slots:
                tree = SearchTree()
                try:
                    result = await self.solve(problem, plan)
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

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _reward_model(self, strategy: Strategy, plan: Plan) -> RewardModel | None:
        """The started reward model if the plan needs one."""
        self.check(plan)
        if self.prm is None or not _needs_prm(strategy, plan):
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

    def _check_prompt(self, prompt: Prompt, plan: Plan) -> None:
        context = self.policy.info.context
        if len(prompt.ids) >= context:
            raise UsageError(
                f"the prompt has {len(prompt.ids)} tokens and the context of {self.policy.info.name} is {context}: "
                "shorten the problem"
            )
        plan.budget.check_prompt(len(prompt.ids))

    def _check_models(self, tree: SearchTree, prm: RewardModel | None) -> None:
        start = tree.start
        for what, recorded, given in (
            ("policy", start.policy.name, self.policy.info.name),
            ("reward model", start.prm.name if start.prm else None, prm.info.name if prm else None),
        ):
            if recorded != given:
                raise UsageError(f"the recording was made with the {what} {recorded}, not {given}: resume it with that")

    async def _run(
        self, strategy: Strategy, prm: RewardModel | None, prompt: Prompt, plan: Plan, journal: Journal
    ) -> Result:
        search = Search(self.policy, prm, prompt, plan, journal)
        self._searches[search] = asyncio.current_task()
        try:
            solutions, stopped = await search.run(strategy)
        except asyncio.CancelledError:
            finish(journal, plan, journal.tree.solutions, Stopped("interrupted", "cancelled"))
            raise
        except TTSError as error:
            finish(journal, plan, journal.tree.solutions, Stopped("failed", str(error)))
            raise
        finally:
            self._searches.pop(search, None)
        unanswered = not any(node.answer is not None for node in solutions)
        if stopped is None and unanswered and search.last_error:
            stopped = Stopped("failed", search.last_error)
        finished = finish(journal, plan, solutions, stopped, search.last_problem)
        return Result(prompt.problem, journal.tree, finished)


def _needs_prm(strategy: Strategy, plan: Plan) -> bool:
    return strategy.needs_scores or plan.vote != "majority"


def check_problem(problem: str) -> str:
    """The problem without surrounding white space.

    Raises:
        UsageError: It is empty, or not text.
    """
    if "\0" in problem:
        raise UsageError("the problem is not text: it holds NUL bytes")
    if not problem.strip():
        raise UsageError("the problem is empty: give it as an argument, with --file, or on standard input as -")
    return problem.strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def solve(
    problem: str,
    plan: Plan | None = None,
    *,
    policy: str | Policy = "embedded",
    prm: str | RewardModel | None = "embedded",
    record: PathType | None = None,
    on_event: Callable[[AnyEvent], None] | None = None,
) -> Result:
    """Solves one problem and waits for it; works where an event loop runs already, as in notebooks.

    Args:
        problem: The problem as text.
        plan: What to do; by default Best-of-N 16.
        policy, prm: As for `Solver`.
        record: File to record the search in.
        on_event: Called with every event, in another thread.

    Raises:
        TTSError: As `Solver.solve`.
    """
    loop: asyncio.AbstractEventLoop | None = None
    task: asyncio.Task[Result] | None = None

    async def work() -> Result:
        nonlocal loop, task
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        async with Solver(policy, prm) as solver:
            return await solver.solve(problem, plan, record=record, sinks=[on_event] if on_event else ())

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "tts-tui") as thread:
        future = thread.submit(asyncio.run, work())
        try:
            return future.result()
        except BaseException:
            if loop is not None and task is not None and not future.done():
                loop.call_soon_threadsafe(task.cancel)
            raise
