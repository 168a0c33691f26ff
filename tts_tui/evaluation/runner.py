"""Runs plans on problems: many at once, one recording each, nothing twice after whatever interruption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from tts_tui._version import __version__
from tts_tui.answers.grading import Grader
from tts_tui.concurrency import concurrently
from tts_tui.errors import BackendError, PlanError, RecordError, RecordVersion, SolverClosed, TTSError, UsageError
from tts_tui.evaluation.datasets.loading import Dataset, Item, listed
from tts_tui.evaluation.eta import TimeEstimate
from tts_tui.evaluation.judging import Judge, failure_of, outcome_of
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.evaluation.run_folder import Header, RunFolder, Source
from tts_tui.plan import Plan
from tts_tui.preflight import check_problem
from tts_tui.protocols import ModelInfo, RewardModel
from tts_tui.solver import Solver
from tts_tui.tree.events import AnyEvent, StepFinished
from tts_tui.tree.recording import load, whole_lines
from tts_tui.tree.search_tree import SearchTree

if TYPE_CHECKING:
    from tts_tui.controller.calibration import Calibration

ALIKE = 3
"""Searches in a row that fail with the same words: then the others would, too."""
_ENDED = ("solved", "unsolved", "budget", "timeout")
"""Reasons of searches that have nothing left to do."""


class PlanStanding(Struct, frozen=True):
    """How a plan stands: searches that are done, of them right, of them failed."""

    done: int
    right: int
    failed: int


class EvalStatus(Struct, frozen=True):
    """How an evaluation stands.

    Attributes:
        done: Searches that are done, those of earlier calls and failed ones included.
        total: Of how many.
        plans: Each plan, by name.
        rate: Tokens sampled a second; None before any.
        left: Seconds left, at least and at most; None while nobody can tell.
        newest: The outcome that came last; None at the beginning.
    """

    done: int
    total: int
    plans: dict[str, PlanStanding]
    rate: float | None = None
    left: tuple[float, float] | None = None
    newest: Outcome | None = None

    @property
    def failed(self) -> int:
        """Searches that failed."""
        return sum(plan.failed for plan in self.plans.values())


class Evaluation:
    """Plans on problems, with a folder that keeps everything.

    Args:
        solver: Its models; it must be entered before `run`.
        folder: Where all of it is kept, and what is there of earlier calls.
        dataset: The problems.
        plans: Name -> plan.
        specs: What the user typed for policy and reward model.
        parallel: Problems that are searched at once.
        tell: Called with every new standing.
        judge: Decides which answers are right; by default a `Grader`.

    Attributes:
        notes: Sentences for the user, when it has run.

    Raises:
        UsageError: The folder is another run's; the message names what differs.
    """

    def __init__(
        self,
        solver: Solver,
        folder: RunFolder,
        dataset: Dataset,
        plans: Mapping[str, Plan],
        *,
        specs: tuple[str, str] = ("", ""),
        parallel: int = 4,
        tell: Callable[[EvalStatus], None] = lambda standing: None,
        judge: Judge | None = None,
    ) -> None:
        if parallel < 1:
            raise UsageError(f"parallel must be at least 1, not {parallel}")
        if not dataset.items:
            raise UsageError("there is no problem to run: raise the limit, or name another data set")
        self.solver, self.folder, self.dataset, self.plans = solver, folder, dataset, dict(plans)
        self._specs, self._at_once, self._tell, self._judge = specs, parallel, tell, judge
        folder.compare(dataset.items, self.plans)
        if solver.calibration is not None:
            for name in filter(self._is_auto, self.plans):
                folder.compare_calibration(name, named(solver.calibration))
        self._waiting = dict.fromkeys(self.plans, 0)
        self._failures: list[str] = []
        self._pace = TimeEstimate()
        self.notes: list[str] = []
        self._ids = {item.id for item in dataset.items}
        self._done: dict[str, Counter[str]] = {name: Counter() for name in self.plans}
        for outcome in folder.outcomes.values():
            self._add_up(outcome, 1)

    def pending(self) -> list[tuple[Item, str]]:
        """What is left to do, problem by problem, so that a report means something early.

        These are searches that are not done, that failed, or whose answers could not all be judged. The latter are
        judged again, and not searched again.
        """
        return [(item, name) for item in self.dataset.items for name in self.plans if not self._is_done(item, name)]

    def _is_done(self, item: Item, name: str) -> bool:
        found = self.folder.outcomes.get((name, item.id))
        return found is not None and found.reason != "failed" and not found.undecided

    def standing(self, newest: Outcome | None = None) -> EvalStatus:
        """How it stands."""
        plans = {name: PlanStanding(own["done"], own["right"], own["failed"]) for name, own in self._done.items()}
        done = sum(plan.done for plan in plans.values())
        left = self._pace.left(self._waiting, self._at_once)
        return EvalStatus(done, len(self._ids) * len(self.plans), plans, self._pace.rate, left, newest)

    def _add_up(self, outcome: Outcome, sign: int) -> None:
        if outcome.problem in self._ids and outcome.plan in self._done:
            own = self._done[outcome.plan]
            own["done"] += sign
            own["right"] += sign * outcome.right
            own["failed"] += sign * (outcome.reason == "failed")

    async def run(self) -> EvalStatus:
        """Runs what is not done. Cancelled, it keeps all, and the next call goes on.

        Raises:
            UsageError: The models or the calibration are not those of the folder, or it cannot be written.
            TTSError: The models cannot be had, or all searches fail with the same words.
        """
        pending = self.pending()
        if not pending:
            return self.standing()
        self._waiting = {name: sum(name == other for _, other in pending) for name in self.plans}
        await self._open({name for _, name in pending})
        self._pace = TimeEstimate(self._earlier())
        self._tell(self.standing())
        if self._judge is not None:
            await self._work(iter(pending), self._judge)
        else:
            async with Grader() as grader:
                try:
                    await self._work(iter(pending), grader)
                finally:
                    self.notes += _troubles(grader)
        return self.standing()

    async def _open(self, needed: set[str]) -> None:
        """Loads the models, and writes down what the run is."""
        prm: RewardModel | None = None
        judges: dict[str, ModelInfo | None] = {}
        for name in sorted(needed):
            own = await self.solver.reward_model(self.plans[name])
            judges[name] = own.info if own else None
            prm = own or prm
        info = prm.info if prm else None
        unscored = all(self.plans[name].strategy in ("cot", "majority") for name in needed)
        scores = unscored or self.solver.prm is not None
        self.folder.compare_models(self.solver.policy.info, info, scores=scores)
        calibrations = {name: self._basis(judges[name], name) for name in sorted(needed) if self._is_auto(name)}
        for name, basis in calibrations.items():
            self.folder.compare_calibration(name, basis)
        source = Source(
            self.dataset.name,
            self.dataset.source,
            self.dataset.split,
            len(self.dataset.items),
            self.dataset.left_out,
            self.dataset.unreadable,
        )
        header = Header(
            version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            dataset=source,
            policy=self.solver.policy.info,
            prm=info,
            policy_spec=self._specs[0],
            prm_spec=self._specs[1],
            plans=self.plans,
            calibrations=calibrations,
        )
        self.folder.write(header, self.dataset.items)

    def _is_auto(self, name: str) -> bool:
        return self.plans[name].strategy == "auto"

    def _basis(self, prm: ModelInfo | None, name: str) -> str:
        """By what a plan of `auto` chooses for these models, as `guide_of` finds it.

        Raises:
            PlanError: What the plan wishes for is out of reach, on every problem.
        """
        from tts_tui.controller import priors  # like the calibrations, it brings numpy, which nothing else here needs
        from tts_tui.controller.calibration import check_models, find
        from tts_tui.controller.controller import price_of

        policy, given = self.solver.policy.info, self.solver.calibration
        if given is not None:
            check_models(given, policy, prm)
        found, plan = given or find(policy, prm) or priors.calibration(policy, prm), self.plans[name]
        try:
            price_of(found, plan.target_tokens, plan.target_accuracy)
        except PlanError as error:
            raise PlanError(f"the plan {name} cannot be run: {error}") from error
        return named(found)

    def _earlier(self) -> dict[str, list[float]]:
        earlier: dict[str, list[float]] = {}
        for outcome in self.folder.outcomes.values():
            if outcome.reason != "failed":
                earlier.setdefault(outcome.plan, []).append(outcome.seconds)
        return earlier

    async def _work(self, pending: Iterator[tuple[Item, str]], judge: Judge) -> None:
        async def lane() -> None:
            for item, name in pending:
                await self._one(item, name, judge)

        await concurrently(lane() for _ in range(self._at_once))

    async def _one(self, item: Item, name: str, judge: Judge) -> None:
        """One search, to its outcome; whatever fails, fails for this problem alone."""
        self._waiting[name] -= 1
        number = self._pace.begin(name)
        whole = False
        try:
            tree, whole = await self._search(item, name)
            assert tree.finished is not None
            if tree.finished.reason == "interrupted":  # by whoever stopped the solver: it goes on in the next call
                return
            outcome = await outcome_of(item, name, tree, judge)
            error: Exception = BackendError(outcome.detail)
        except (RecordVersion, SolverClosed):
            raise
        except Exception as caught:
            error = caught
            why = str(caught) if isinstance(caught, TTSError) else f"unexpected {type(caught).__name__}: {caught}"
            outcome = await self._failed(item, name, why, judge)
        finally:
            self._pace.end(number, counts=whole)
        if (before := self.folder.outcomes.get((name, item.id))) is not None:
            self._add_up(before, -1)
        self.folder.add(outcome)
        self._add_up(outcome, 1)
        self._tell(self.standing(outcome))
        self._heed(outcome, error)

    async def _failed(self, item: Item, name: str, why: str, judge: Judge) -> Outcome:
        tree = None
        with suppress(TTSError):  # it may not have begun
            tree = load(self.folder.recording(name, item.id))
        return await failure_of(item, name, why, tree, judge)

    def _heed(self, outcome: Outcome, error: Exception) -> None:
        """Ends all of it when search after search fails with the same words, as where a server has gone."""
        if outcome.reason != "failed":
            self._failures.clear()
            return
        self._failures.append(outcome.detail)
        last = self._failures[-ALIKE:]
        if len(last) == ALIKE and len(set(last)) == 1:
            raise error if isinstance(error, TTSError) else TTSError(outcome.detail)

    async def _search(self, item: Item, name: str) -> tuple[SearchTree, bool]:
        """The search of a problem, begun, continued or as it is recorded; and whether all of it ran now."""
        plan = self.plans[name]
        path = self.folder.recording(name, item.id)
        seen = _recorded(path, item, plan)
        if seen is None:
            return (await self.solver.solve(item.problem, plan, record=path, sinks=[self._count])).tree, True
        if seen.finished is not None and seen.finished.reason in _ENDED:
            return seen, False
        return (await self.solver.resume(path, sinks=[self._count])).tree, False

    def _count(self, event: AnyEvent) -> None:
        if isinstance(event, StepFinished):
            self._pace.tokens += event.usage.completion


def _recorded(path: Path, item: Item, plan: Plan) -> SearchTree | None:
    """What is recorded of a search. What cannot be used, or is of another search, is put aside.

    Raises:
        RecordVersion: A newer version wrote it.
    """
    if not path.exists():
        return None
    with open(path, "rb") as file:
        empty = not whole_lines(file)
    if empty:
        path.unlink()
        return None
    try:
        tree = load(path)
        start = tree.start
        if start.problem == check_problem(item.problem) and start.plan.replace(why=plan.why) == plan:
            return tree
    except RecordVersion:
        raise
    except RecordError:
        pass
    path.replace(path.with_name(f"{path.name}.broken"))
    return None


def named(calibration: Calibration) -> str:
    """A calibration as run.json has it: when it was made, and by what."""
    return ", ".join(filter(None, (calibration.created, calibration.source)))


def samples(plans: Mapping[str, Plan], pending: Sequence[tuple[Item, str]]) -> int:
    """How many candidates the plans may ask for on all problems that wait."""
    return sum(plans[name].n for _, name in pending)


def _troubles(grader: Grader) -> Iterator[str]:
    if grader.unsettled:
        pairs = listed([f"{left[:40]} and {right[:40]}" for left, right in grader.unsettled], 5)
        count, why = len(grader.unsettled), grader.broken or "comparing them took too much time or memory"
        yield (
            f"{'1 pair' if count == 1 else f'{count:,} pairs'} of answers could not be compared and count as different "
            f"or wrong, until the same command judges them again: {pairs}; {why}"
        )
