"""Strategies, policies and reward models of other packages: a broken one does not affect anything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripted import ScriptedPolicy
from tts_tui import registry
from tts_tui.cli import main
from tts_tui.errors import PluginError, PluginWarning, UnknownName

FINE = """
class Fine:
    name, summary, needs_scores, uses_width = "fine", "does nothing", False, False

    async def run(self, search):
        return []

fine = Fine()

def make(rest):
    raise ImportError(f"no library for {rest}")
"""
ENTRIES = """
[tts_tui.strategies]
fine = ours.fine:fine
lost = ours.nowhere:lost
torn = ours.torn:torn
gone = ours.gone:gone
half = ours.fine:make
cot = ours.fine:fine
[tts_tui.policies]
lost = ours.nowhere:lost
late = ours.fine:make
[tts_tui.reward_models]
none-such = ours.fine:none_such
uncallable = ours.fine:fine
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a package with a working strategy and many broken plugins."""
    (tmp_path / "ours").mkdir()
    files = {"__init__": "", "fine": FINE, "torn": "def torn(:", "gone": "raise SystemExit(3)"}
    for name, text in files.items():
        (tmp_path / "ours" / f"{name}.py").write_text(text)
    (tmp_path / "ours-1.dist-info").mkdir()
    (tmp_path / "ours-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1\n")
    (tmp_path / "ours-1.dist-info" / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.strategies.cache_clear()
    yield
    registry.strategies.cache_clear()


BROKEN = {"lost": "ModuleNotFoundError", "torn": "SyntaxError", "gone": "SystemExit", "half": "has no name"}


def test_broken_strategies_are_left_out_with_a_warning():
    with pytest.warns(PluginWarning) as told:
        found = registry.strategies()
    assert "fine" in found and not BROKEN.keys() & found.keys()
    said = [str(one.message) for one in told]
    assert len(said) == len(BROKEN) + 1
    for name, cause in BROKEN.items():
        assert any(f"strategy {name} of the package ours" in one and cause in one for one in said)


def test_a_strategy_with_the_name_of_a_built_in_one_is_left_out_and_named():
    with pytest.warns(PluginWarning) as told:
        found = registry.strategies()
    assert found["cot"].name == "cot"
    assert any("strategy cot" in str(one.message) and "name that is taken" in str(one.message) for one in told)


@pytest.mark.filterwarnings("ignore::tts_tui.errors.PluginWarning")
@pytest.mark.parametrize(("name", "cause"), BROKEN.items())
def test_a_broken_strategy_that_is_asked_for_says_why(name, cause):
    with pytest.raises(PluginError, match=cause):
        registry.strategy(name)


@pytest.mark.filterwarnings("ignore::tts_tui.errors.PluginWarning")
def test_a_broken_strategy_is_none_of_those_that_are_offered():
    with pytest.raises(UnknownName) as caught:
        registry.strategy("lots")
    assert "fine" in str(caught.value) and "lost" not in str(caught.value)


def test_a_broken_policy_or_reward_model_that_is_asked_for_says_why():
    with pytest.raises(PluginError, match=r"policy lost of the package ours cannot be loaded .*ours.nowhere"):
        registry.policy("lost:x")
    with pytest.raises(PluginError, match="no library for x"):
        registry.policy("late:x")
    policy = ScriptedPolicy(lambda path, draw: "")
    with pytest.raises(PluginError, match="none_such"):
        registry.reward_model("none-such:x", policy)
    with pytest.raises(PluginError, match="cannot be called"):
        registry.reward_model("uncallable:x", policy)


def test_commands_go_on_and_name_what_is_left_out(capsys):
    assert main.run(["strategies"]) == 0
    out, err = capsys.readouterr()
    assert "does nothing" in out and "beam" in out
    lines = err.splitlines()
    assert len(lines) == len(BROKEN) + 1 and all(line.startswith("tts-tui: the strategy") for line in lines)


def test_a_command_that_asks_for_a_broken_plugin_fails_with_the_cause(capsys):
    assert main.run(["solve", "x", "--policy", "lost:x", "--prm", "none"]) == 3
    *_, last = capsys.readouterr().err.splitlines()
    assert "policy lost" in last and "ModuleNotFoundError" in last
    assert main.run(["solve", "x", "--strategy", "torn", "--prm", "none"]) == 3
    *_, last = capsys.readouterr().err.splitlines()
    assert "strategy torn" in last and "SyntaxError" in last


def test_the_doctor_lists_plugins(capsys):
    main.run(["doctor"])
    found = [line for line in capsys.readouterr().out.splitlines() if " plugin: " in line]
    fine = [line for line in found if line.startswith("ok")]
    assert len(fine) == 3  # fine, the one with a taken name, and the policy that fails only when it is created
    assert len(found) == 10 and all(line.startswith("note") for line in found if line not in fine)
    assert any("strategy lost" in line and "ModuleNotFoundError" in line for line in found)
