"""Evaluation of plans on problems: concurrent, with one recording per search, and resumable after any interruption."""

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
"""Number of consecutive failures with the same message that end the evaluation, since the others would fail, too."""
_ENDED = ("solved", "unsolved", "budget", "timeout")
"""Reasons of searches that are complete."""


class PlanStanding(Struct, frozen=True):
    """The progress of a plan: finished searches, and how many of them are right or failed."""

    done: int
    right: int
    failed: int


class EvalStatus(Struct, frozen=True):
    """The progress of an evaluation.

    Attributes:
        done: Number of finished searches, including failed ones and those of earlier calls.
        total: Number of all searches.
        plans: Progress of each plan, by name.
        rate: Tokens sampled per second; None before the first token.
        left: Lower and upper bound of the remaining seconds; None before there is an estimate.
        newest: The newest outcome; None at the beginning.
    """

    done: int
    total: int
    plans: dict[str, PlanStanding]
    rate: float | None = None
    left: tuple[float, float] | None = None
    newest: Outcome | None = None

    @property
    def failed(self) -> int:
        """Number of searches that failed."""
        return sum(plan.failed for plan in self.plans.values())


class Evaluation:
    """An evaluation of plans on problems, with a folder that stores everything.

    Args:
        solver: Solver with the models; it must be entered before `run`.
        folder: Folder of the run, with the results of earlier calls.
        dataset: The problems.
        plans: Plans by name.
        specs: Specs of policy and reward model as typed by the user.
        parallel: Number of problems searched at the same time.
        tell: Callback that receives every new status.
        judge: Judge of which answers are right; by default a `Grader`.

    Attributes:
        notes: Sentences to show to the user after the run.

    Raises:
        UsageError: The folder belongs to another run; the message names the difference.
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
        """Return the remaining searches, ordered by problem, so that reports are meaningful early.

        These are searches that are unfinished or failed, or whose answers could not all be judged. The latter are
        judged again without a new search.
        """
        return [(item, name) for item in self.dataset.items for name in self.plans if not self._is_done(item, name)]

    def _is_done(self, item: Item, name: str) -> bool:
        found = self.folder.outcomes.get((name, item.id))
        return found is not None and found.reason != "failed" and not found.undecided

    def standing(self, newest: Outcome | None = None) -> EvalStatus:
        """Return the current status of the evaluation."""
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
        """Run the remaining searches. If cancelled, all results are kept, and the next call continues.

        Raises:
            UsageError: The models or the calibration are not those of the folder, or it cannot be written.
            TTSError: The models are unavailable, or all searches fail with the same message.
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
        """Load the models, and write the description of the run."""
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
        """Describe the calibration by which an `auto` plan chooses with these models, as found by `calibration_of`.

        Raises:
            PlanError: The plan's target is out of reach on every problem.
        """
        from tts_tui.controller import (
            priors,
        )  # imported here since it loads numpy, as the calibrations do, which nothing else here needs
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
        """Run one search up to its outcome; errors only affect this problem."""
        self._waiting[name] -= 1
        number = self._pace.begin(name)
        whole = False
        try:
            tree, whole = await self._search(item, name)
            assert tree.finished is not None
            if tree.finished.reason == "interrupted":  # the solver was stopped; the next call continues
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
        with suppress(TTSError):  # it may not have started
            tree = load(self.folder.recording(name, item.id))
        return await failure_of(item, name, why, tree, judge)

    def _heed(self, outcome: Outcome, error: Exception) -> None:
        """End the evaluation if searches repeatedly fail with the same message, as when a server is gone."""
        if outcome.reason != "failed":
            self._failures.clear()
            return
        self._failures.append(outcome.detail)
        last = self._failures[-ALIKE:]
        if len(last) == ALIKE and len(set(last)) == 1:
            raise error if isinstance(error, TTSError) else TTSError(outcome.detail)

    async def _search(self, item: Item, name: str) -> tuple[SearchTree, bool]:
        """Start, resume or load the search of a problem; also return whether the entire search ran in this call."""
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
    """Load the recording of a search; move it aside if it is unusable or of another search.

    Raises:
        RecordVersion: The recording was written by a newer version.
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
    """Describe a calibration as in run.json, by its date and source."""
    return ", ".join(filter(None, (calibration.created, calibration.source)))


def samples(plans: Mapping[str, Plan], pending: Sequence[tuple[Item, str]]) -> int:
    """Return the maximum number of candidates that the plans may request for all pending problems."""
    return sum(plans[name].n for _, name in pending)


def _troubles(grader: Grader) -> Iterator[str]:
    if grader.unsettled:
        pairs = listed([f"{left[:40]} and {right[:40]}" for left, right in grader.unsettled], 5)
        count, why = len(grader.unsettled), grader.broken or "comparing them took too much time or memory"
        yield (
            f"{'1 pair' if count == 1 else f'{count:,} pairs'} of answers could not be compared and count as different "
            f"or wrong, until the same command judges them again: {pairs}; {why}"
        )
