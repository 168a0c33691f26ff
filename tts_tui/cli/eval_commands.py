"""The commands `report`, `profile-prm` and `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tts_tui.cli import eval_options as with_eval


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@with_eval.reporting
def report(folders: tuple[Path, ...], **given: Any) -> int:
    """Report the results of `tts-tui eval` runs; several runs are compared on the problems that they share.

    Shows accuracy with intervals, by difficulty, family, level and subject; pass@k; tokens and FLOPs; every score and
    vote; and exact paired tests between all pairs of plans.
    """
    from tts_tui.cli.report import report

    return report(folders, given)


@click.command("profile-prm")
@click.argument("source", type=click.Path(path_type=Path))
@with_eval.profiling
def profile_prm(source: Path, **given: Any) -> int:
    """Measure a process reward model on solutions with known outcomes, and save the result as its profile.

    SOURCE is the folder of a `tts-tui eval` run, whose recorded scores are used, or a file in ProcessBench format,
    which --prm scores: one JSON object per line with problem, steps and label (index of the first wrong step, or -1).
    """
    from tts_tui.cli.profile_prm import profile_prm

    return profile_prm(source, given)


@click.command()
@click.argument("dataset", required=False)
@with_eval.calibrating
def calibrate(dataset: str | None, **given: Any) -> int:
    """Calibrate --strategy auto for a policy and a reward model.

    Samples solutions, runs tree searches on some of the problems, learns how hard problems are for the policy and which
    plan is worth its cost, validates that on held-out problems, and writes one file that auto finds by the models'
    names. DATASET is as for eval (default: problem families). Run the same command again to resume.
    """
    from tts_tui.cli.calibrate import calibrate_models

    return calibrate_models(dataset, given)


commands: tuple[click.Command, ...] = (report, profile_prm, calibrate)
