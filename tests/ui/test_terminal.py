"""The terminal UI on the real embedded models, in a real terminal: keys in, screen out."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
from pathlib import Path

import pytest

from tests.ui.terminal import Terminal
from tts_tui import load
from tts_tui.backends.local import download

pytestmark = [
    pytest.mark.embedded,
    pytest.mark.tmux,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]

LONG = "Find the remainder when 3 to the power of 2026 is divided by 1000. Explain every step."


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A folder of its own for runs and settings; the model is the one that is there."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / download.EMBEDDED.folder).symlink_to(download.pull())
    return {"TTS_TUI_HOME": str(folder), "TTS_TUI_CONFIG": str(tmp_path / "none.toml"), "HF_HUB_OFFLINE": "1"}


def recordings(home):
    return sorted(Path(home["TTS_TUI_HOME"], "runs").glob("*.jsonl"))


def test_a_problem_is_typed_steered_and_answered(home):
    with Terminal("tui", "--strategy", "beam", "-n", "8", "--max-depth", "6", "--seed", "3", **home) as terminal:
        terminal.wait("Problem")
        terminal.type("What is 7 + 8 - 6?")
        terminal.press("Space", "BSpace", "Enter")
        terminal.wait(r"● running|★")
        terminal.press("Space")
        terminal.wait(r"‖ paused")
        terminal.wait(r"‖ paused │")  # nothing is written any more
        terminal.press("G")
        terminal.wait(r"step 0\.\d+ · ")
        terminal.press("x")
        terminal.wait("cut by hand")
        terminal.press("g", "i")
        terminal.wait("Your own next step")
        terminal.type("Step 1: 7 + 8 = 15")
        terminal.press("Enter")
        terminal.wait("✎ yours")
        terminal.press("Space")
        shown = terminal.wait(r"★ the search is complete", 120)
        answer = re.search(r"★ (\S+) +█", shown)
        assert answer, shown
        terminal.press("g", "j", "b")
        terminal.wait("A new run that begins with step")
        terminal.press("C-s")
        terminal.wait(r"A fork of run", 120)
        terminal.wait(r"★ the search is complete", 120)
        terminal.press("q")
        terminal.wait("EXIT=0")
    first, second = recordings(home)
    old, new = load(first), load(second)
    assert old.finished.reason == new.finished.reason == "solved"
    assert any(node.cut for node in old.nodes) and any(node.by_hand for node in old.nodes)
    assert new.start.origin is not None and new.start.origin.run == old.start.run


def test_solve_with_the_ui_leaves_the_answer_behind(home, tmp_path):
    record = tmp_path / "run.jsonl"
    arguments = ("solve", "What is 7 + 8 - 6?", "--display", "tui", "-n", "4", "--record", str(record))
    with Terminal(*arguments, **home) as terminal:
        terminal.wait(r"★ the search is complete", 120)
        terminal.press("q")
        shown = terminal.wait("EXIT=0")
        answer = load(record).finished.answer
        assert f"Answer: {answer}" in shown and "Recorded in" in shown
        terminal.wait("WHOLE", 5)


def test_a_replay_opens_in_the_ui_and_goes_back(home, tmp_path):
    record = tmp_path / "run.jsonl"
    with Terminal(
        "solve", "What is 2 + 2?", "-n", "4", "--display", "none", "--record", str(record), **home
    ) as terminal:
        terminal.wait("EXIT=0", 120)
    with Terminal("replay", str(record), "--speed", "64", size=(80, 24), **home) as terminal:
        terminal.wait(r"event ([\d,]+) of \1 ")
        terminal.wait(r"★ the search is complete")  # the screen is drawn part after part
        terminal.press("[")
        terminal.wait(r"● running")
        terminal.press("C-c")
        terminal.wait("EXIT=0")


@pytest.mark.parametrize(
    ("kind", "code"), [("key", 130), ("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGQUIT", 131)]
)
def test_whatever_interrupts_it_the_recording_opens_and_the_terminal_is_whole(home, kind, code):
    with Terminal("solve", LONG, "--display", "tui", "-n", "16", **home) as terminal:
        terminal.wait(r"● running, \d+ writing")
        if kind == "key":
            terminal.press("C-c")
            terminal.wait("stopped early")
            terminal.press("C-c")
        else:
            os.kill(terminal.pid(), getattr(signal, kind))
        shown = terminal.wait(f"EXIT={code}", 30)
        assert "Traceback" not in shown
        terminal.wait("WHOLE", 5)
    (path,) = recordings(home)
    finished = load(path).finished
    assert finished is None if kind == "SIGQUIT" else finished.reason == "interrupted"


def test_a_terminal_that_closes_ends_the_search_with_its_event(home):
    with Terminal("solve", LONG, "--display", "tui", "-n", "16", **home) as terminal:
        terminal.wait(r"● running, \d+ writing")
        watched = os.pidfd_open(terminal.pid())
    assert select.select([watched], [], [], 30)[0]
    os.close(watched)
    (path,) = recordings(home)
    assert load(path).finished.reason == "interrupted"


def test_ctrl_c_while_the_model_loads_leaves_at_once(home):
    with Terminal("solve", LONG, "--display", "tui", **home) as terminal:
        terminal.wait(r"loading|getting ready")
        terminal.press("C-c", "C-c")
        shown = terminal.wait(r"EXIT=130", 30)
        assert "Traceback" not in shown
        terminal.wait("WHOLE", 5)


def test_without_colour_everything_is_still_said(home):
    with Terminal("solve", "What is 2 + 2?", "--display", "tui", "-n", "4", NO_COLOR="1", **home) as terminal:
        terminal.wait(r"★ the search is complete", 120)
        coloured = re.findall(r"\x1b\[[\d;]*[34]8;2;(\d+);(\d+);(\d+)", terminal.screen("-e"))
        assert all(red == green == blue for red, green, blue in coloured)
        assert re.search(r"\.\d\d █", terminal.screen())
        terminal.press("q")
        terminal.wait("EXIT=0")


def test_a_terminal_of_twenty_by_five_shows_what_fits(home):
    with Terminal("solve", "What is 2 + 2?", "--display", "tui", "-n", "4", size=(20, 5), **home) as terminal:
        terminal.wait(r"★ the", 120)
        terminal.resize(100, 30)
        terminal.wait(r"Answers|answers")
        terminal.resize(20, 5)
        terminal.press("q")
        terminal.wait("EXIT=0")


def test_a_dead_server_is_one_sentence_on_the_screen(home):
    with Terminal(
        "tui", "--policy", "sglang:http://127.0.0.1:9", "--prm", "none", "--strategy", "majority", **home
    ) as terminal:
        terminal.wait("does not answer")
        terminal.type("What is 2 + 2?")
        terminal.press("Enter")
        shown = terminal.wait("! failed")
        assert "127.0.0.1:9" in shown and "Traceback" not in shown
        terminal.press("q")
        terminal.wait("EXIT=")


def test_a_full_disk_costs_the_recording_and_not_the_search(home):
    arguments = ("solve", "What is 2 + 2?", "--display", "tui", "-n", "4")
    with Terminal(*arguments, before="ulimit -f 4", **home) as terminal:
        terminal.wait(r"★ the search is complete", 120)
        terminal.press("4")
        assert "recording stopped" in " ".join(terminal.wait(r"recording stopped").split())
        terminal.press("q")
        terminal.wait("EXIT=0")
    (path,) = recordings(home)
    assert len(load(path)) > 0


def test_it_opens_and_closes_without_loading_a_model(home):
    with Terminal("tui", **home) as terminal:
        terminal.wait("Problem")
        terminal.press("C-q")
        terminal.wait("EXIT=0")
