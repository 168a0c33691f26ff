"""Measurements of the problem families: complete, and listed for each family."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.accuracy import levels as by_level
from benchmarks.accuracy.card import markdown
from tts_tui import profiles
from tts_tui.cli.main import cli
from tts_tui.controller.levels import LEVELS, level_of
from tts_tui.evaluation.datasets.families import FAMILIES, TRAINED, UNSEEN
from tts_tui.evaluation.datasets.family_stats import listing, measured, of_level


def test_every_family_was_measured() -> None:
    assert set(measured()) == set(FAMILIES)
    for own in measured().values():
        assert 0 <= own.pass1 <= own.passk <= 1
        assert 0 <= own.majority <= own.passk
        assert own.problems > 0


def test_there_are_families_of_every_level_and_each_is_of_one() -> None:
    levels = [of_level(level) for level in LEVELS]
    assert all(len(names) >= 3 for names in levels)
    assert sorted(name for names in levels for name in names) == sorted(FAMILIES)
    assert len(UNSEEN) >= 2


def test_the_list_has_a_line_for_each_family_the_easiest_first() -> None:
    lines = [line.split() for line in listing().splitlines()]
    rows = {line[0]: line for line in lines if line and line[0] in FAMILIES}
    assert set(rows) == set(FAMILIES)
    assert all(("train," in rows[name]) == (name in TRAINED) for name in FAMILIES)
    shares = [float(row[2]) for row in rows.values()]
    assert shares == sorted(shares, reverse=True)


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(cli, ["families"])
    assert done.exit_code == 0
    assert listing() in done.output


# -- levels ------------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("pass1", "level"),
    [(1, "easy"), (0.5, "easy"), (0.499, "medium"), (0.33, "medium"), (0.1, "medium"), (0.099, "hard"), (0, "hard")],
)
def test_levels_are_those_of_the_paper(pass1, level) -> None:
    assert level_of(pass1) == level


def test_a_share_that_was_rounded_keeps_its_level() -> None:
    assert level_of(0.3 - 0.2) == "medium" and level_of(1 - 0.9) == "medium"


def test_the_counts_that_were_kept_are_those_of_the_families() -> None:
    kept = by_level.kept()
    assert kept.keys() == measured().keys()
    for name, own in measured().items():
        counts = kept[name]
        assert counts.problems == own.problems
        shares = (counts.pass1, counts.majority / own.problems, counts.passk / own.problems)
        assert shares == pytest.approx((own.pass1, own.majority, own.passk), abs=0.0006)
        assert level_of(counts.pass1) == own.level


@pytest.mark.parametrize("group", ["all", "trained families", "unseen families"])
def test_the_counts_that_were_kept_give_the_figures_that_were_published(group) -> None:
    names = {"all": tuple(FAMILIES), "trained families": TRAINED, "unseen families": UNSEEN}[group]
    made = by_level.row(by_level.kept()[name] for name in names)
    published = profile()[group]
    assert made.pop("auc_within") == pytest.approx(published["auc_within"], abs=0.0051)
    assert made == {name: published[name] for name in made}


def profile() -> dict:
    path = Path(profiles.__file__).with_name("embedded.toml")
    return tomllib.loads(path.read_text("utf-8"))["test"]


def test_the_profile_and_the_card_have_the_rows_of_the_levels() -> None:
    made = by_level.rows(by_level.kept())
    card = (ROOT / "docs" / "embedded-prm.md").read_text("utf-8").splitlines()
    for level, row in made.items():
        assert {name: profile()[level][name] for name in row} == row
        (line,) = markdown({"rows": {level: row}}).splitlines()[2:]
        cells = line.split(" | ")
        del cells[5]  # the card leaves PRM-max out, which Best-of-N is
        assert " | ".join(cells) in card
    for name, counts in by_level.kept().items():
        assert any(line.startswith(f"| {name} ") and f"| {level_of(counts.pass1)} |" in line for line in card)
