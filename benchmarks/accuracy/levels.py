"""`python -m benchmarks.accuracy.levels [--write]`: the rows by level, from the stored counts of every family.

A family's level is that of its mean pass@1 (`tts_tui.controller.levels`). `by_family.json` holds the number of
problems of each family that every method solved, so that the rows can be recomputed whenever the bounds change,
without another run of three hours. `--write` puts them into the profile of the shipped PRM.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

import tts_tui
from benchmarks.accuracy.card import markdown, profile_table
from benchmarks.accuracy.runs import SEARCHES, N, Outcome
from tts_tui.controller.levels import LEVELS, bounds, level_of
from tts_tui.evaluation.datasets.families import FAMILIES
from tts_tui.evaluation.prm.voting_report import wilson
from tts_tui.plan import Score, Vote

KEPT = Path(__file__).with_name("by_family.json")


class Counts(Struct, frozen=True, rename={"best_of_n": "best-of-n"}):
    """The results on a family's test problems.

    Attributes:
        problems: Number of problems.
        right: Number of right samples over all problems, with `N` samples each.
        majority, best_of_n, beam, dvts, passk: Number of problems solved by each method.
        mixed: Number of problems with right and wrong samples.
        auc: Mean AUC within the mixed problems, to three decimals.
    """

    problems: int
    right: int
    majority: int
    best_of_n: int
    beam: int
    dvts: int
    passk: int
    mixed: int
    auc: float | None

    @property
    def pass1(self) -> float:
        """Share of right samples."""
        return self.right / (N * self.problems)


def kept() -> dict[str, Counts]:
    """Return the stored counts by family."""
    return msgspec.json.decode(KEPT.read_bytes(), type=dict[str, Counts])


def keep(outcomes: Mapping[str, list[Outcome]], rows: Mapping[str, Any], score: Score, vote: Vote) -> None:
    """Write the counts of a run.

    Args:
        outcomes: Outcomes of every problem, by strategy.
        rows: The figures by family.
        score: Aggregation of step scores into one number.
        vote: Aggregation of solutions into one answer.
    """
    found = {}
    for name in FAMILIES:
        own = {way: [one for one in every if one.problem.family == name] for way, every in outcomes.items()}
        samples, row = own["best-of-n"], rows[name]
        solved = {way: sum(one.solved(score, vote) for one in own[way]) for way in ("best-of-n", *SEARCHES)}
        found[name] = {
            "problems": len(samples),
            "right": sum(sum(one.right) for one in samples),
            "majority": sum(one.solved(score, "majority") for one in samples),
            **solved,
            "passk": sum(any(one.right) for one in samples),
            "mixed": row["mixed"],
            "auc": row["auc_within"],
        }
    KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


def row(families: Iterable[Counts]) -> dict[str, Any]:
    """Return the figures of several families together, in the format of `benchmarks.accuracy.figures.accuracies`.

    The AUC is the mean of the families' rounded ones, weighted by their mixed problems, so it has two decimals.
    """
    own = list(families)
    problems, mixed = sum(one.problems for one in own), sum(one.mixed for one in own)
    solved: dict[str, float] = {
        "pass@1": sum(one.right for one in own) / N,
        "majority": sum(one.majority for one in own),
        "prm-max": sum(one.best_of_n for one in own),
        "best-of-n": sum(one.best_of_n for one in own),
        "beam": sum(one.beam for one in own),
        "dvts": sum(one.dvts for one in own),
        f"pass@{N}": sum(one.passk for one in own),
    }
    made: dict[str, Any] = {"problems": problems}
    for name, count in solved.items():
        made[name] = round(count / problems, 3)
        made[f"{name} interval"] = [round(end, 3) for end in wilson(count, problems)]
    areas = [one.auc * one.mixed for one in own if one.auc is not None]
    made["auc_within"] = round(sum(areas) / mixed, 2) if mixed else None
    made["mixed"] = mixed
    return made


def rows(counts: Mapping[str, Counts]) -> dict[str, dict[str, Any]]:
    """Return the figures of every level."""
    own = {level: [one for one in counts.values() if level_of(one.pass1) == level] for level in LEVELS}
    return {level: row(families) for level, families in own.items() if families}


def rewritten(profile: str, made: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a profile (TOML) with the tables of the levels replaced."""
    tables = profile.split("\n\n")
    for level, values in made.items():
        (place,) = (n for n, table in enumerate(tables) if table.startswith(f'[test."{level}"]'))
        tables[place] = "\n".join(profile_table(level, values)).strip()
    return "\n\n".join(tables)


def main() -> None:
    """Print the rows, and write them with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put them into the profile of the shipped PRM")
    args = parser.parse_args()
    made = rows(kept())
    print(f"families by pass@1: {bounds()}\n\n{markdown({'rows': made})}", end="")
    if args.write:
        path = Path(tts_tui.__file__).parent / "profiles" / "embedded.toml"
        path.write_text(rewritten(path.read_text("utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
