"""Tables of the figures for the terminal, and for the profile of the shipped PRM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.accuracy.runs import SEARCHES, N
from tts_tui.evaluation.datasets.families import FAMILIES

_COLUMNS = ("pass@1", "majority", "prm-max", "best-of-n", *SEARCHES, f"pass@{N}")


def table(figures: dict[str, Any]) -> str:
    """Format all measurements for the terminal."""
    lines = [f"{'':<18}{'n':>5}" + "".join(f"{name:>18}" for name in _COLUMNS) + f"{'AUC within':>12}{'mixed':>7}"]
    for name, row in figures["rows"].items():
        cells = "".join(f"{row[column]:>6.3f} {_interval(row[column + ' interval']):>11}" for column in _COLUMNS)
        auc = "-" if row["auc_within"] is None else f"{row['auc_within']:.3f}"
        lines.append(f"{name:<18}{row['problems']:>5}{cells}{auc:>12}{row['mixed']:>7}")
    for name in ("targets", "paired", "votes", "calibration", "length bias", "tokens", "cost"):
        lines += ["", f"{name}: {json.dumps(figures[name])}"]
    return "\n".join([f"score {figures['score']}, vote {figures['vote']}; {figures['levels']}", *lines])


def markdown(figures: dict[str, Any]) -> str:
    """Format the rows as in docs/embedded-prm.md."""
    lines = ["| | problems | AUC within | " + " | ".join(_COLUMNS) + " |", "|---" * (len(_COLUMNS) + 3) + "|"]
    for name, row in figures["rows"].items():
        auc = "–" if row["auc_within"] is None else f"{row['auc_within']:.2f}"
        cells = [f"{row[column]:.2f} ({_interval(row[column + ' interval'])})" for column in _COLUMNS]
        lines.append(f"| {name} | {row['problems']} | {auc} ({row['mixed']}) | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _interval(ends: list[float]) -> str:
    return f"{ends[0]:.2f}-{ends[1]:.2f}"


def profile_text(figures: dict[str, Any], trained: dict[str, Any]) -> str:
    """Format the profile of the shipped PRM as TOML.

    Args:
        figures: Measurements of this benchmark.
        trained: Metadata that `tts-tui train-prm` wrote next to the weights.
    """
    adapter, samples = trained["adapter"], trained["samples"]
    recipe = trained["recipe"]
    note = (
        f"LoRA of rank {adapter['rank']} on layers {adapter['first']} to {adapter['depth'] - 1} of the embedded "
        f"policy, trained on {recipe['tokens']:,} tokens of right solutions, seed {recipe['seed']}; a step's score "
        "comes from how much less likely its tokens are than what the adapter would have written."
    )
    data = (
        f"{samples['train']['problems']} training problems with {samples['train']['solutions']} solutions and "
        f"{samples['train']['rollouts']} rollouts to fit scores, {samples['validation']['problems']} validation "
        f"problems with {samples['validation']['solutions']} solutions to choose score and vote"
    )
    lines = [
        "# Written by `python -m benchmarks.accuracy --write`; docs/embedded-prm.md says what the figures mean.",
        'name = "embedded"',
        'base = "SmolLM2-135M-Instruct, its weights shared with the embedded policy"',
        f"note = {json.dumps(note)}",
        f"source = {json.dumps(trained['command'])}",
        "",
        "[defaults]",
        f"score = {json.dumps(figures['score'])}",
        f"vote = {json.dumps(figures['vote'])}",
        'source = "validation split: the pair with the best accuracy over random halves of the solutions"',
        "",
        "[biases]",
        f"length = {json.dumps(_length(figures))}",
        f"votes = {json.dumps(_votes(figures))}",
        f"calibration = {json.dumps(_calibration(figures))}",
        f"data = {json.dumps(data)}",
    ]
    rows = dict(figures["rows"])
    families = {name: rows.pop(name) for name in FAMILIES if name in rows}
    for name, row in rows.items():
        lines += profile_table(name, row)
    lines += profile_table("AUC within problems", {name: row["auc_within"] for name, row in families.items()})
    lines += profile_table("best-of-n less majority", {name: _lead(row) for name, row in families.items()})
    return "\n".join(lines) + "\n"


def profile_table(name: str, values: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table of the profile, after an empty one."""
    known = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    return ["", f"[test.{json.dumps(name)}]", *known]


def _lead(row: Mapping[str, Any]) -> float:
    return round(row["best-of-n"] - row["majority"], 3)


def _length(figures: dict[str, Any]) -> str:
    found = figures["length bias"]
    return (
        f"correlation of score and tokens among right solutions of a problem {found['right']}, wrong {found['wrong']}"
    )


def _votes(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(figures["votes"].items(), key=lambda one: -one[1]))


def _calibration(figures: dict[str, Any]) -> str:
    return f"expected calibration error of the last score {figures['calibration']['ece']}"
