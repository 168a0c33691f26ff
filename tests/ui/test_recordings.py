"""The folder of recordings: names, what a list tells of each file, and that nothing in the folder can break it."""

from __future__ import annotations

import errno
import io
import os
import string
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import SEPARATOR, ScriptedPolicy, ScriptedPRM
from tts_tui import Plan, Solver, read
from tts_tui.errors import UsageError
from tts_tui.tree.recording import Recorder
from tts_tui.ui import recordings

NOW = datetime(2026, 11, 24, 14, 35, 1)
PLAN = Plan(strategy="beam", n=8, m=4)


def script(path: tuple[str, ...], draw: int) -> str:
    return f"Step {len(path) + 1}: {draw % 5}{SEPARATOR}" if len(path) < 2 else f"\\boxed{{{draw % 2 + 9}}}"


def rule(steps: tuple[str, ...]) -> float:
    return (sum(map(ord, "".join(steps))) % 97) / 97


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "runs"


@pytest.fixture
async def recording(home: Path) -> Path:
    """A whole recording, as the terminal UI keeps it."""
    path = recordings.new_path("What is 4 + 5?", NOW)
    async with Solver(ScriptedPolicy(script), ScriptedPRM(rule)) as solver:
        await solver.solve("What is 4 + 5?", PLAN, record=path)
    return path


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_name_says_when_and_what(home):
    assert recordings.new_path("What is 7 + 8 - 6?", NOW) == home / "2026-11-24-143501-what-is-7-8-6.jsonl"
    assert home.is_dir()


def test_without_a_home_of_its_own_the_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("TTS_TUI_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert recordings.folder().name == "runs"
    assert "tts-tui" in recordings.folder().parts


def test_two_runs_of_one_second_get_two_names():
    first = recordings.new_path("Same", NOW)
    first.touch()
    second = recordings.new_path("Same", NOW)
    second.touch()
    third = recordings.new_path("Same", NOW)
    assert (second.name, third.name) == ("2026-11-24-143501-same-2.jsonl", "2026-11-24-143501-same-3.jsonl")


@given(st.text(max_size=600))
def test_whatever_the_problem_says_the_name_is_plain_and_stays_in_the_folder(problem):
    path = recordings.new_path(problem, NOW)
    assert path.parent == recordings.folder()
    assert set(path.name) <= set(string.ascii_lowercase + string.digits + "-.")
    assert len(path.name) < 80 and not path.name.startswith((".", "-"))


def test_pictures_have_a_folder_of_their_own(home):
    assert recordings.picture_path("Why?", "svg", NOW) == home / "pictures" / "2026-11-24-143501-why.svg"


def test_a_folder_that_cannot_be_made_is_told_with_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"cannot be written \(.*\): set TTS_TUI_HOME to one that can"):
        recordings.new_path("x", NOW)


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(home, monkeypatch):
    monkeypatch.setattr(recordings.os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match=r"cannot be written \(permission denied\): set TTS_TUI_HOME"):
        recordings.new_path("x", NOW)


# -- lists -------------------------------------------------------------------------------------------------------------


def test_without_a_folder_there_are_no_runs():
    assert recordings.recent() == []


async def test_a_run_that_ended_is_told_with_its_answer(recording):
    (run,) = recordings.recent()
    assert (run.path, run.problem, run.strategy) == (recording, "What is 4 + 5?", "beam")
    finished = list(read(recording))[-1]
    assert (run.answer, run.reason, run.steps) == (finished.answer, "solved", finished.nodes)
    assert run.seconds == finished.seconds
    assert run.when is not None and run.when.tzinfo is not None
    assert run.finished and not run.broken


async def test_a_run_that_was_cut_off_anywhere_is_unfinished_and_not_broken(recording):
    whole = recording.read_bytes()
    first = whole.index(b"\n") + 1
    for size in (first, first + 10, len(whole) // 2, len(whole) - 1):
        recording.write_bytes(whole[:size])
        (run,) = recordings.recent()
        assert (run.problem, run.finished, run.reason, run.broken) == ("What is 4 + 5?", False, "", ""), size


async def test_a_run_that_is_still_being_written_is_told(recording):
    with Recorder(recording, resume=True):
        assert recordings.recent()[0].finished


async def test_a_resumed_run_that_goes_on_is_not_told_as_finished(recording):
    with open(recording, "ab") as file:
        file.write(b'{"event":"search_resumed","created":"2026-11-24T15:00:00+00:00"}\n')
    assert not recordings.recent()[0].finished


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"no json\n", b"\0" * 50, b"[" * 100_000 + b"\n", b'{"event":"search_paused"}\n', b"\xff\xfe\n",
     b'{"event":"search_started"}\n', b'{"event":"search_started","problem":"half'],
)  # fmt: skip
async def test_what_is_no_recording_is_told_as_such_and_hides_no_other(recording, home, content):
    (home / "other.jsonl").write_bytes(content)
    found = {run.path.name: run for run in recordings.recent()}
    assert found["other.jsonl"].broken and not found["other.jsonl"].finished
    assert not found[recording.name].broken


async def test_what_is_no_file_is_left_out(recording, home):
    (home / "folder.jsonl").mkdir()
    os.mkfifo(home / "pipe.jsonl")
    (home / "away.jsonl").symlink_to(home / "nowhere")
    (home / "notes.txt").write_text("mine")
    assert [run.path for run in recordings.recent()] == [recording]


async def test_a_file_that_may_not_be_read_is_told_as_such(recording, monkeypatch):
    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(recordings, "open_regular", refused)
    (run,) = recordings.recent()
    assert run.broken == "Permission denied"


async def test_the_newest_come_first_and_no_more_than_asked_for(recording, home):
    for age in range(5):
        path = home / f"{age}.jsonl"
        path.write_bytes(recording.read_bytes())
        os.utime(path, (1000 - age, 1000 - age))
    os.utime(recording, (1, 1))
    assert [run.path.stem for run in recordings.recent(3)] == ["0", "1", "2"]
    assert recordings.recent()[-1].path == recording


async def test_of_a_large_recording_only_the_ends_are_read(recording, monkeypatch):
    lines = recording.read_bytes().splitlines(keepends=True)
    filler = b'{"event":"notice","message":"' + b"x" * 1000 + b'"}\n'
    recording.write_bytes(lines[0] + filler * 20_000 + lines[-1])
    counted = 0

    class Counting(io.FileIO):
        def readinto(self, buffer):
            nonlocal counted
            got = super().readinto(buffer)
            counted += got or 0
            return got

        def readall(self):
            nonlocal counted
            got = super().readall()
            counted += len(got)
            return got

    monkeypatch.setattr("builtins.open", lambda path, mode: io.BufferedReader(Counting(path, "r")))
    assert recordings.look(recording).finished
    assert recording.stat().st_size > 20_000_000
    assert counted < 2 * recordings.TAIL


async def test_a_run_can_be_removed_and_one_that_has_gone_is_no_mistake(recording):
    recordings.remove(recording)
    recordings.remove(recording)
    assert recordings.recent() == []


def test_what_cannot_be_removed_is_told(tmp_path):
    with pytest.raises(UsageError, match="cannot remove"):
        recordings.remove(tmp_path)
