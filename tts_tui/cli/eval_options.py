"""Options of the commands that evaluate."""

from __future__ import annotations

from pathlib import Path

import click
from click import option

from tts_tui.cli.options import calibration, columns, model_specs, options, problem_column, rate

_data = options(
    option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder of math500.jsonl, aime24.jsonl, amc23.jsonl and others.  [default: the user's data folder]",
    ),
    columns,
)
_models = options(
    model_specs,
    option(
        "--concurrency",
        type=click.IntRange(min=1),
        help="Problems at once.  [default: 4; 16 on a server]",
    ),
    option(
        "--requests",
        type=click.IntRange(min=1),
        help="Most requests that the policy's server has at once.  [default: as many as it gains from]",
    ),
    rate,
)
evaluation = options(
    option(
        "--plan",
        multiple=True,
        metavar="PLAN",
        help="STRATEGY[:N][,m=4][,score=last][,vote=prm-max][,temperature=0.7][,budget=TOKENS]…; several --plan are "
        "compared.  [default: cot, majority:8 and, with a reward model, best-of-n:8]",
    ),
    option(
        "--limit",
        type=click.IntRange(min=1),
        help="Only the first problems; of families, one of each in turn.  [default: all; of families 20 of each]",
    ),
    option(
        "--split",
        type=click.Choice(["test", "validation", "train"]),
        default="test",
        show_default=True,
        help="Which problems of families; seeds of the three never mix.",
    ),
    calibration,
    _data,
    option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder of the run, new or to go on with.  [default: by data set and date, in the folder of runs]",
    ),
    _models,
    option("--seed", type=int, help="Seed of all samples.  [default: 0]"),
)
reporting = options(
    option(
        "--format",
        type=click.Choice(["text", "markdown", "csv", "json"]),
        default="text",
        show_default=True,
        help="What is printed; csv has one figure a line.",
    ),
    option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Write the report into this folder, too, in all formats.  [default: only print it]",
    ),
    option(
        "--plots",
        is_flag=True,
        help="Draw accuracy against tokens and FLOPs, and by difficulty, as SVG and PNG in --out or in the first run's "
        "folder.  [default: no]",
    ),
)
profiling = options(
    model_specs,
    option(
        "--name",
        metavar="NAME",
        help="Name of the profile; that of a shipped one refines it.  [default: the PRM's own]",
    ),
    option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the profile there, where only you read it.  [default: the user's folder of profiles]",
    ),
    option(
        "--limit",
        type=click.IntRange(min=1),
        help="Only the first solutions of a file.  [default: all]",
    ),
    problem_column,
)
calibrating = options(
    option(
        "--limit",
        type=click.IntRange(min=1),
        help="Only so many problems: of a file at random, of families in turn.  [default: all; of families 24 of each]",
    ),
    option(
        "--searched",
        type=click.IntRange(min=1),
        help="How many of them tree searches run on, too.  [default: half of them]",
    ),
    option(
        "--samples",
        type=click.IntRange(min=4),
        default=16,
        show_default=True,
        help="Samples of each problem.",
    ),
    option(
        "--candidates",
        type=click.IntRange(min=4),
        help="Candidates of each tree search, a multiple of 4.  [default: as many as samples]",
    ),
    _data,
    option(
        "--work",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder of samples and searches, new or to go on with.  [default: by models, in the folder of runs]",
    ),
    option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the calibration there, for --calibration.  [default: where --strategy auto finds it by models]",
    ),
    _models,
)
