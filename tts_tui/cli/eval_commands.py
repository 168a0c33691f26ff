"""Commands that look at what evaluations came to; `tts_tui.cli.main` has them in its group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tts_tui.cli import eval_options as with_eval


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@with_eval.reporting
def report(folders: tuple[Path, ...], **given: Any) -> int:
    """Report what runs of `tts-tui eval` came to; of several, on the problems that all of them have.

    Accuracy with intervals, by difficulty, family, level and subject; pass@k; tokens and FLOPs; every score and vote;
    and exact paired tests between every two plans.
    """
    from tts_tui.cli.report import report

    return report(folders, given)


@click.command("profile-prm")
@click.argument("source", type=click.Path(path_type=Path))
@with_eval.profiling
def profile_prm(source: Path, **given: Any) -> int:
    """Measure a process reward model on solutions with known outcomes, and keep that as its profile.

    SOURCE is the folder of a run of `tts-tui eval`, whose scores are used as they are, or a file as ProcessBench has
    it: one JSON object a line with problem, steps and label (the first wrong step from 0, or -1), which --prm scores.
    """
    from tts_tui.cli.profile_prm import profile_prm

    return profile_prm(source, given)


@click.command()
@click.argument("dataset", required=False)
@with_eval.calibrating
def calibrate(dataset: str | None, **given: Any) -> int:
    """Calibrate a policy and a reward model, so that --strategy auto knows what to do with them.

    Samples problems, searches some of them, learns how hard problems are for the policy and which plan is worth its
    price, checks that on problems that were held out, and writes one file that is found by the models' names. DATASET
    is as for eval; without one, problems of families are taken. Interrupted, the same command goes on.
    """
    from tts_tui.cli.calibrate import calibrate_models

    return calibrate_models(dataset, given)


commands: tuple[click.Command, ...] = (report, profile_prm, calibrate)
