"""Options of the commands eval, report, profile-prm and calibrate."""

from __future__ import annotations

from pathlib import Path

import click
from click import option

from tts_tui.cli.options import calibration, columns, model_specs, options, problem_column, server_limits

_data = options(
    option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder with math500.jsonl, aime24.jsonl, amc23.jsonl and others.  [default: the user's data folder]",
    ),
    columns,
)
_models = options(
    model_specs,
    option(
        "--parallel",
        type=click.IntRange(min=1),
        help="Number of problems solved at the same time.  [default: 4; 16 on a server]",
    ),
    server_limits,
)
evaluation = options(
    option(
        "--plan",
        multiple=True,
        metavar="PLAN",
        help="STRATEGY[:N][,m=4][,score=last][,vote=prm-max][,temperature=0.7][,budget=TOKENS]…; give --plan several "
        "times to compare.  [default: cot, majority:8 and, with a reward model, best-of-n:8]",
    ),
    option(
        "--limit",
        type=click.IntRange(min=1),
        help="Use only the first problems; with families, one of each in turn.  [default: all; 20 of each family]",
    ),
    option(
        "--split",
        type=click.Choice(["test", "validation", "train"]),
        default="test",
        show_default=True,
        help="Split of the problem families; no problem is in two of them.",
    ),
    calibration,
    _data,
    option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder of the run, created or resumed.  [default: named after data set and date, in the folder of runs]",
    ),
    _models,
    option("--seed", type=int, help="Seed for sampling.  [default: 0]"),
)
reporting = options(
    option(
        "--format",
        type=click.Choice(["text", "markdown", "csv", "json"]),
        default="text",
        show_default=True,
        help="Output format; csv has one metric per line.",
    ),
    option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Also write the report to this folder, in all formats.  [default: only print it]",
    ),
    option(
        "--plots",
        is_flag=True,
        help="Also plot accuracy against tokens and FLOPs, and by difficulty, as SVG and PNG, in --out or the first "
        "run's folder.  [default: no]",
    ),
)
profiling = options(
    model_specs,
    option(
        "--name",
        metavar="NAME",
        help="Name of the profile; the name of a shipped profile refines that one.  [default: the PRM's own]",
    ),
    option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the profile to this file instead.  [default: the user's profile folder, where tts-tui finds it]",
    ),
    option(
        "--limit",
        type=click.IntRange(min=1),
        help="Use only the first solutions of a file.  [default: all]",
    ),
    problem_column,
)
calibrating = options(
    option(
        "--limit",
        type=click.IntRange(min=1),
        help="Number of problems, random from a file, in turn from families.  [default: all; 24 of each family]",
    ),
    option(
        "--search-problems",
        type=click.IntRange(min=1),
        help="Number of problems that tree searches also run on.  [default: half of them]",
    ),
    option(
        "--samples",
        type=click.IntRange(min=4),
        default=16,
        show_default=True,
        help="Samples per problem.",
    ),
    option(
        "--candidates",
        type=click.IntRange(min=4),
        help="Candidates per tree search, a multiple of 4.  [default: same as --samples]",
    ),
    _data,
    option(
        "--work-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder of samples and searches, created or resumed.  [default: by models, in the folder of runs]",
    ),
    option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the calibration to this file, for --calibration.  [default: where --strategy auto finds it]",
    ),
    _models,
)
