"""What was measured of the problem families: all of them, and what the list says of each."""

from __future__ import annotations

from click.testing import CliRunner

from tts_tui.cli import cli
from tts_tui.evaluation.families import FAMILIES, TRAINED, UNSEEN
from tts_tui.evaluation.measured import listing, measured, of_level


def test_every_family_was_measured() -> None:
    assert set(measured()) == set(FAMILIES)
    for own in measured().values():
        assert 0 <= own.pass1 <= own.passk <= 1
        assert 0 <= own.majority <= own.passk
        assert own.problems > 0


def test_there_are_families_of_every_level_and_each_is_of_one() -> None:
    levels = [of_level(level) for level in ("easy", "medium", "hard")]
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
