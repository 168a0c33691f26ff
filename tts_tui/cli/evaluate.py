"""Implementation of `tts-tui eval`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from tts_tui.cli import commands
from tts_tui.displays import session, signals
from tts_tui.displays.eval_progress import EvalProgress, opening
from tts_tui.evaluation import plan_specs
from tts_tui.evaluation.datasets import loading
from tts_tui.evaluation.run_folder import RunFolder, file_name
from tts_tui.evaluation.runner import EvalStatus, Evaluation, samples
from tts_tui.formatting import one_line
from tts_tui.solver import Solver
from tts_tui.ui import recordings

_AT_ONCE, _AT_ONCE_SERVED = 4, 16


def evaluate(spec: str, given: Mapping[str, Any]) -> int:
    """Run plans on problems, with progress on standard error, and print the report."""
    policy, prm = commands.specs(given)
    auto = any(plan_specs.parse(text).strategy == "auto" for text in given["plan"])
    given = {**given, "calibration": commands.for_auto(given, "calibration", auto, "plans of auto (--plan auto)")}
    columns = loading.Columns(given["problem_column"], given["answer_column"])
    dataset = loading.load(spec, data=given["data"], split=given["split"], limit=given["limit"], columns=columns)
    for note in dataset.notes:
        session.note(one_line(note, 2000))
    solver = commands.make_solver(policy, prm, given)
    commands.meet(solver)
    seed = {} if given["seed"] is None else {"seed": given["seed"]}
    plans = plan_specs.make_all(given["plan"] or plan_specs.defaults(solver), solver, **seed)
    unscored = [name for name, plan in plans.items() if solver.prm is None and plan.strategy in ("best-of-n", "auto")]
    if unscored:
        session.note(f"without a reward model the majority votes, in {' and '.join(unscored)} too")
    out = given["out"] or _default_folder(dataset)
    with RunFolder(out) as folder, EvalProgress(sys.stderr) as progress:
        evaluation = Evaluation(
            solver,
            folder,
            dataset,
            plans,
            specs=(policy, prm),
            parallel=given["parallel"] or at_once(policy),
            tell=progress,
        )
        pending = evaluation.pending()
        session.note(opening(len(dataset.items), len(plans), len(pending), samples(plans, pending)))
        session.note(
            f"kept in {out}: interrupted, the same command{'' if given['out'] else f' with --out {out}'} goes on"
        )
        standing = evaluation.standing()
        if pending:
            needed = any(solver.needs_prm(plans[name]) for _, name in pending)
            commands.load_models(policy, prm if needed else "none")
            standing = asyncio.run(run_all(evaluation, solver))
            progress.close()
            for note in evaluation.notes:
                session.note(one_line(note, 1000))
    return _conclude(standing, folder, evaluation)


def at_once(policy: str) -> int:
    """Return the default number of parallel problems: more on a server."""
    return _AT_ONCE_SERVED if commands.is_server(policy) else _AT_ONCE


def _default_folder(dataset: loading.Dataset) -> Path:
    """Return a folder named after data set and date, so that the same command on the same day resumes."""
    return recordings.folder() / "evaluations" / f"{file_name(dataset.name)}-{date.today().isoformat()}"


async def run_all(evaluation: Evaluation, solver: Solver) -> EvalStatus:
    """Run the evaluation; the first Ctrl-C stops the searches, the second the process."""
    task = asyncio.current_task()
    assert task is not None
    began = stopping = False

    def end(_: int) -> None:
        nonlocal stopping
        if stopping or not began:
            session.note("interrupted")
            os._exit(signals.exit_code())
        stopping = True
        task.cancel()

    session.hear(end)
    try:
        async with solver:
            began = True
            return await evaluation.run()
    except asyncio.CancelledError:
        if not stopping:
            raise
        return evaluation.standing()


def _conclude(standing: EvalStatus, folder: RunFolder, evaluation: Evaluation) -> int:
    """Print the report and what is left to do, and return the exit code."""
    if standing.done < standing.total:
        session.note(
            f"interrupted: {standing.done} of {standing.total} searches are done, and all is kept; the same command "
            f"with --out {folder.path} goes on"
        )
        return signals.exit_code()
    print(report(folder.path, standing))
    if standing.failed:
        session.note(_failures(evaluation))
        return 3
    return 0


def _failures(evaluation: Evaluation) -> str:
    ran = evaluation.plans
    found = [one for one in evaluation.folder.outcomes.values() if one.reason == "failed" and one.plan in ran]
    names = loading.listed([f"{one.problem} ({one.plan})" for one in found])
    why = one_line(found[-1].detail, 300)
    return f"{len(found)} failed, and the same command tries them again: {names}; the last because {why}"


def report(folder: Path, standing: EvalStatus) -> str:
    """Return the report of a run as text."""
    try:
        from tts_tui.evaluation.reports.tables import report_text
    except ImportError:
        return _table(standing)
    text: str = report_text([folder])
    return text


def _table(standing: EvalStatus) -> str:
    rows: Sequence[tuple[str, ...]] = [
        (name, str(plan.right), str(plan.done), f"{plan.right / max(1, plan.done):.1%}")
        for name, plan in standing.plans.items()
    ]
    width = max(len(name) for name, *_ in rows)
    return "\n".join(f"{name:<{width}}  {right:>5} of {done:>5}  {share:>6}" for name, right, done, share in rows)
