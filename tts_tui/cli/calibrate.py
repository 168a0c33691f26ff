"""Implementation of `tts-tui calibrate`: samples, searches, fits, and writes a calibration for `auto`."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tts_tui.cli import commands
from tts_tui.cli.evaluate import at_once, run_all
from tts_tui.controller import calibration as files
from tts_tui.controller.calibration import Calibration
from tts_tui.displays import session, signals
from tts_tui.displays.eval_progress import EvalProgress
from tts_tui.errors import UsageError
from tts_tui.evaluation import plan_specs
from tts_tui.evaluation.datasets import loading
from tts_tui.evaluation.datasets.families import TRAINED, problems
from tts_tui.evaluation.datasets.loading import Dataset, Item, family_items
from tts_tui.evaluation.run_folder import RunFolder
from tts_tui.evaluation.runner import Evaluation
from tts_tui.formatting import one_line, plural
from tts_tui.plan import Plan
from tts_tui.profiles import votes_for
from tts_tui.solver import Solver
from tts_tui.training.controller import hidden_states
from tts_tui.training.controller.calibrate import FEWEST, CalibratedModels, calibrate, cases_of, overhead_of
from tts_tui.training.controller.cost_estimate import Time, cost
from tts_tui.ui import recordings

STATES = "states.jsonl"
"""File with hidden states in the work folder."""
FEW = 100
"""Number of searched problems below which the summary warns of its uncertainty."""
SINGLES = 40
"""Number of problems that are sampled once at the start, to measure the overhead of the PRM."""
_SMALL = 8
"""Factor on parallel problems for these; they are cheap, and their pace is not used for estimates."""
_MANY = 24
"""Number of problems of each family by default."""


def calibrate_models(spec: str | None, given: Mapping[str, Any]) -> int:
    """Estimate the cost, sample, search, and fit; then write the calibration and print a summary."""
    policy, prm = commands.specs(given)
    if given["out"] is not None:
        _check_writable(given["out"])
    dataset = _dataset(spec, given)
    searched = dataset_of(dataset, given["search_problems"] or (len(dataset.items) + 1) // 2)
    solver = commands.make_solver(policy, prm, given)
    commands.meet(solver)
    plans = _plans(solver, given["samples"], given["candidates"] or given["samples"])
    name = files.file_name(policy, prm).removesuffix(".json")
    work = given["work_dir"] or recordings.folder() / "calibrations" / name
    if (work / "run.json").exists():
        raise UsageError(f"{work} is a run of `tts-tui eval`: choose another folder with --work-dir")
    own = {"singles": dataset_of(dataset, SINGLES), "samples": dataset, "dvts": searched, "beam": searched}
    parts = [(name, data) for name, data in own.items() if plans[name]]
    found: dict[str, Evaluation] = {}
    for name, data in parts:
        with RunFolder(work / name, "--work-dir") as folder:
            _check_scored(work, solver, folder)
            found[name] = Evaluation(solver, folder, data, plans[name], specs=(policy, prm))
    costs = cost(list(found.values()), policy)
    session.note(costs.said)
    session.note(f"kept in {work}: interrupted, the same command goes on")
    time = Time(costs, session.note)
    commands.load_models(policy, prm)
    for place, (name, data) in enumerate(parts):
        session.note(f"{name}: {len(data.items)} problems, {costs.searches[place]} searches to do")
        with RunFolder(work / name, "--work-dir") as folder, EvalProgress(sys.stderr) as progress:
            evaluation = Evaluation(
                solver,
                folder,
                data,
                plans[name],
                specs=(policy, prm),
                parallel=given["parallel"] or at_once(policy) * (_SMALL if name == "singles" else 1),
                tell=progress if name == "singles" else time.follow(place, progress),
            )
            standing = asyncio.run(run_all(evaluation, solver)) if evaluation.pending() else evaluation.standing()
            found[name] = evaluation
            if standing.done < standing.total:
                session.note(
                    f"interrupted: {standing.done} of {standing.total} searches of this part are done, and kept"
                )
                return signals.exit_code()
    header = found[parts[0][0]].folder.header
    assert header is not None
    states = asyncio.run(_states(solver, dataset, work / STATES, header.policy.name))
    return _fit(solver, found, plans, dataset, states, given)


async def _states(solver: Solver, dataset: Dataset, path: Path, policy: str) -> dict[str, tuple[float, ...]]:
    """Return hidden states by problem, loading the policy only if some were not read before."""
    found = hidden_states.kept(path, policy)
    if all(item.id in found for item in dataset.items):
        return found

    def tell(done: int, total: int) -> None:
        if done == total or done % 80 == 0:
            session.note(f"hidden states: {done} of {total} prompts are read")

    async with solver:
        if solver.policy.info.name != policy:
            raise UsageError(
                f"the samples are from {policy}, but the policy is {solver.policy.info.name}: use the same policy, or "
                "choose another folder with --work-dir"
            )
        found = await hidden_states.read(solver.policy, dataset.items, path, tell)
    if len(found) < len(dataset.items):
        some = f"for {len(found)} of {len(dataset.items)} prompts only" if found else "for no prompt"
        session.note(f"the policy returns hidden states {some}: the others are predicted from their text")
    return found


def _plans(solver: Solver, count: int, candidates: int) -> dict[str, dict[str, Plan]]:
    """Return the plans of each part; without a reward model there are only samples.

    Each part has one plan, because plans that run together share prompts and steps, and would look too cheap.
    """
    if solver.prm is None:
        specs = {"singles": [], "samples": [f"majority:{count}"], "dvts": [], "beam": []}
    else:
        trees = {name: [f"{name}:{candidates}"] for name in ("dvts", "beam")}
        specs = {"singles": ["best-of-n:1"], "samples": [f"best-of-n:{count}"], **trees}
    return {name: dict(plan_specs.make_all(own, solver)) if own else {} for name, own in specs.items()}


def _check_scored(work: Path, solver: Solver, folder: RunFolder) -> None:
    """Refuse to resume without a reward model if the run had one: results would be attributed to it."""
    had = folder.header.prm if folder.header is not None else None
    if had is not None and solver.prm is None:
        raise UsageError(
            f"{work} is a calibration with the reward model {had.name}, and now there is none: choose another folder "
            "with --work-dir"
        )


def _check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before hours are spent."""
    if path.is_dir():
        raise UsageError(f"cannot write the calibration {path}: it is a folder; give a file's name")
    folder = next((parent for parent in path.parents if parent.exists()), path.parent)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write the calibration {path}: the folder {folder} is not writable")


def _dataset(spec: str | None, given: Mapping[str, Any]) -> Dataset:
    """Load the problems; by default from the validation split of the problem families."""
    columns = loading.Columns(given["problem_column"], given["answer_column"])
    if spec is None:
        columns.refuse("problem families")
        items = family_items(TRAINED, "validation", given["limit"] or sum(_few(name) for name in TRAINED))
        found = Dataset("families", ",".join(TRAINED), "validation", tuple(items))
    else:
        made = spec.partition(":")[0] == "families"
        limit = given["limit"] if made else None
        found = loading.load(spec, data=given["data"], split="validation", limit=limit, columns=columns)
        found = found if made else replace(found, items=_mixed(found.items)[: given["limit"]])
    for note in found.notes:
        session.note(one_line(note, 2000))
    if len(found.items) < FEWEST:
        raise UsageError(
            f"{len(found.items)} problems are too few to calibrate on: {FEWEST} are the least, 100 and more are good"
        )
    return found


def _mixed(items: Sequence[Item]) -> tuple[Item, ...]:
    """Shuffle problems deterministically, because files are often sorted by difficulty or kind."""
    return tuple(sorted(items, key=lambda item: random.Random(item.id).random()))


def _few(family: str) -> int:
    """Return the default number of problems of a family, fewer if it has not enough."""
    return len(problems(family, "validation", _MANY))


def dataset_of(dataset: Dataset, count: int) -> Dataset:
    """Return a data set of the first `count` problems."""
    return Dataset(dataset.name, dataset.source, dataset.split, dataset.items[:count])


def _fit(
    solver: Solver,
    found: Mapping[str, Evaluation],
    plans: Mapping[str, Mapping[str, Any]],
    dataset: Dataset,
    states: Mapping[str, tuple[float, ...]],
    given: Mapping[str, Any],
) -> int:
    outcomes = {key: one for evaluation in found.values() for key, one in evaluation.folder.outcomes.items()}
    header = next(iter(found.values())).folder.header
    assert header is not None
    votes = votes_for(solver.prm) if solver.prm is not None else {}
    named = {name: plan for part in plans.values() for name, plan in part.items()}
    once = overhead_of(dataset.items, outcomes, named)
    models = CalibratedModels(header.policy, header.prm, **votes, overhead=once)  # type: ignore[arg-type]
    cases = cases_of(dataset.items, outcomes, named, models, states)
    many, split = sum(bool(case.searches) for case in cases), f", {dataset.split}" if dataset.split else ""
    where = f"{dataset.name} ({dataset.source}{split})"
    source = f"tts-tui calibrate on {len(cases)} problems of {where}, {many} of them searched"
    made = calibrate(cases, models, source, tell=session.note)
    path: Path = given["out"] or files.folder() / files.file_name(made.policy, made.prm)
    files.save(made, path)
    print(summary(made, min(4, min(len(case.pool) for case in cases) - 1)))
    session.note(f"written to {path}: --strategy auto finds it there" if given["out"] is None else f"written to {path}")
    return 0


def summary(made: Calibration, seen: int) -> str:
    """Summarize a calibration as text.

    Args:
        made: The calibration.
        seen: Number of samples that the later forecasts were based on; the other samples of a problem judge them.
    """
    lines = [f"{made.policy} under {made.prm}: {made.basis}.", ""]
    early = made.validation["before the probe"]
    late = next(figures for name, figures in made.validation.items() if name.startswith("after "))
    after = f"after {plural(seen, 'sample')}"
    head = f"Difficulty, on {plural(made.problems, 'problem')} that were held out"
    lines.append(f"{head:<44}  {'before':>8}   {after:>16}")
    lines += [
        f"  {name:<42}  {_shown(early[name]):>8}   {_shown(late[name]):>16}"
        for name in ("auc hard", "auc easy", "ece hard", "ece easy")
    ]
    many = max((curve.problems for curve in made.curves), default=0)
    head = f"Plans, on {plural(many, 'problem')} that were held out"
    lines += ["", f"{head:<44}  accuracy   tokens a problem"]
    for name, (accuracy, tokens) in sorted(made.validation["fixed plans"].items(), key=lambda item: item[1][1]):
        lines.append(f"  {name:<42}  {accuracy:>8.1%}   {tokens:>16,.0f}")
    for point in made.frontier:
        usual = "  (usual)" if point.price == made.price else ""
        lines.append(f"  auto, price {point.price:<30}  {point.accuracy:>8.1%}   {point.tokens:>16,.0f}{usual}")
    if 0 < many < FEW:
        lines += ["", f"{plural(many, 'problem')} tell little: any of these accuracies may be off by {many**-0.5:.0%}."]
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
