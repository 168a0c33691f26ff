"""Signals that ask to end, and a reader that goes away, in real processes. Tests wait for output, never for time."""

from __future__ import annotations

import ast
import contextlib
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tree.test_recording import picture
from tts_tui import SearchTree, load
from tts_tui.tree.events import decode

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Plan, Solver
from tts_tui.cli.main import _prepare
from tts_tui.displays import session
from tts_tui.displays.factory import make

class Slow(ScriptedPolicy):
    "Two of four samples end; the others never do. A deaf one does not even notice that it is cancelled."
    async def stream(self, request):
        number = len(self.requests)
        async for chunk in super().stream(request):
            yield chunk
            if number >= 2:
                while True:
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        if slow:
                            print("stopping", file=sys.stderr, flush=True)
                            await asyncio.to_thread(sys.stdin.readline)
                        if not deaf:
                            raise

    async def start(self):
        if loading:
            print("loading", file=sys.stderr, flush=True)
            await asyncio.to_thread(__import__("time").sleep, 3600)

display, record = sys.argv[1], Path(sys.argv[2])
deaf, loading, slow = ("deaf" in sys.argv, "loading" in sys.argv, "slow" in sys.argv)
_prepare()
solver = Solver(Slow(lambda path, draw: "it is \\\\boxed{7}", piece=3), ScriptedPRM(lambda steps: 0.5))
plan = Plan(n=4)
sys.exit(session.complete(session.search(solver, make(display), "p", plan, record)))
"""


@pytest.fixture
def program(tmp_path):
    """Starts the program above; ends it if the test did not."""
    started = []

    def start(*arguments, **options):
        command = [sys.executable, "-c", PROGRAM, arguments[0], str(tmp_path / "run.jsonl"), *arguments[1:]]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        started.append(subprocess.Popen(command, cwd=ROOT, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def lines_until(stream, mark, times=1):
    """Lines of `stream` up to the one that holds `mark` for the `times`th time."""
    lines = []
    for line in stream:
        lines.append(line)
        times -= mark in line
        if not times:
            return lines
    raise AssertionError(f"{mark!r} never came: {lines}")


def remainder(process):
    """What is left of both outputs. `communicate` would lose the lines that were read ahead."""
    with process.stdout as out, process.stderr as err:
        rest = out.read(), err.read()
    process.wait()
    return rest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_once_stops_and_shows_the_best_so_far(number, program, tmp_path):
    process = program("json")
    lines = lines_until(process.stdout, "solution_found", 2)
    process.send_signal(number)
    rest, err = remainder(process)
    assert (process.returncode, err) == (128 + number, "")
    events = [decode(line) for line in [*lines, *rest.splitlines()]]
    assert (events[-1].reason, events[-1].answer) == ("interrupted", "7")
    assert picture(load(tmp_path / "run.jsonl")) == picture(SearchTree.fold(events))


def test_the_plain_display_says_so_too(program):
    process = program("plain")
    lines_until(process.stdout, "Solution 2")
    process.send_signal(signal.SIGINT)
    rest, err = remainder(process)
    assert process.returncode == 130
    assert "Answer: 7\n" in rest and "Ended: stopped early (stopped by the user)." in rest
    assert err == "tts-tui: stopping; once more to leave at once\n"


def test_twice_leaves_at_once_whatever_still_runs(program, tmp_path):
    process = program("json", "deaf")
    lines_until(process.stdout, "solution_found", 2)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # another one, since two pending signals of one kind are one
    _, err = remainder(process)
    assert process.returncode == 143
    assert err == "tts-tui: left at once, on the second interruption\n"
    assert len(load(tmp_path / "run.jsonl").solutions) == 2


def test_while_models_load_once_is_enough(program, tmp_path):
    process = program("plain", "loading")
    lines_until(process.stderr, "loading")
    process.send_signal(signal.SIGINT)
    out, err = remainder(process)
    assert (process.returncode, out) == (130, "")
    assert err == "tts-tui: interrupted before the search began\n"
    assert not (tmp_path / "run.jsonl").exists()


@pytest.mark.parametrize("kind", ["json", "plain"])
def test_a_reader_that_goes_away_is_no_error(kind, program, tmp_path):
    process = program(kind)
    lines_until(process.stdout, "solution_found" if kind == "json" else "Solution", 2)
    process.stdout.close()
    process.send_signal(signal.SIGINT)  # whatever is written from here on finds no reader
    err = process.stderr.read()
    assert process.wait() == 130
    assert err.removeprefix("tts-tui: stopping; once more to leave at once\n") == ""
    assert load(tmp_path / "run.jsonl").finished is not None


def test_a_terminal_that_hangs_up_more_than_once_is_not_in_a_hurry(program, tmp_path):
    process = program("json", "slow", stdin=subprocess.PIPE)
    lines_until(process.stdout, "solution_found", 2)
    process.send_signal(signal.SIGHUP)
    lines_until(process.stderr, "stopping")
    process.send_signal(signal.SIGHUP)
    process.stdin.close()
    remainder(process)
    assert process.returncode == 129
    assert load(tmp_path / "run.jsonl").finished.reason == "interrupted"


def test_sigquit_leaves_at_once(program, tmp_path):
    process = program("json", "deaf")
    lines_until(process.stdout, "solution_found", 2)
    process.send_signal(signal.SIGQUIT)
    _, err = remainder(process)
    assert (process.returncode, err) == (131, "tts-tui: left at once\n")
    assert len(load(tmp_path / "run.jsonl").solutions) == 2


def test_a_signal_that_the_process_was_started_to_ignore_is_ignored(program, tmp_path):
    process = program("json", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # as nohup does
    lines_until(process.stdout, "solution_found", 2)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    remainder(process)
    assert process.returncode == 130


# -- the terminal ------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(program):
    """Starts the live display on a terminal; returns the process, our end of the terminal, and what was drawn."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}

    def start(*arguments):
        process = program("live", *arguments, stdout=theirs, env=environment)
        os.close(theirs)
        seen = b""
        while "★ answer 7".encode() not in seen:
            seen += os.read(ours, 65536)
        assert b"\x1b[?1049h" in seen
        return process, ours, seen

    yield start
    with contextlib.suppress(OSError):
        os.close(ours)


@pytest.mark.parametrize(
    ("numbers", "deaf", "code"),
    [
        ([signal.SIGINT], False, 130),
        ([signal.SIGTERM], False, 143),
        ([signal.SIGHUP], False, 129),
        ([signal.SIGINT, signal.SIGTERM], True, 143),
        ([signal.SIGQUIT], True, 131),
    ],
)
def test_the_terminal_is_given_back(numbers, deaf, code, drawn, tmp_path):
    process, ours, seen = drawn(*(["deaf"] if deaf else []))
    for number in numbers:
        process.send_signal(number)
    try:
        while data := os.read(ours, 65536):
            seen += data
    except OSError:  # the other side is closed
        pass
    process.wait()
    assert process.returncode == code
    after = seen.rpartition(b"\x1b[?1049l")[2]
    assert b"\x1b[?25h" in seen.rpartition(b"\x1b[?1049")[0].rpartition(b"\x1b[?25l")[2] + after
    assert (b"Answer: 7" in after) == (not deaf)
    assert (load(tmp_path / "run.jsonl").finished is not None) == (not deaf)


def test_a_terminal_that_has_gone_leaves_a_recording_with_its_end(drawn, tmp_path):
    process, ours, _ = drawn()
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    said = process.stderr.read()
    assert "Traceback" not in said
    assert process.wait() == 129, said
    assert load(tmp_path / "run.jsonl").finished.reason == "interrupted"


# -- before anything runs ----------------------------------------------------------------------------------------------

EARLY = """
import signal, sys

class Interrupting:
    "Sends Ctrl-C when the import of a module begins for the n-th time."
    left = int(sys.argv.pop(1))

    def find_spec(self, name, path=None, target=None):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)

from tts_tui.__main__ import main
sys.meta_path.insert(0, Interrupting())
main()
"""


@pytest.mark.parametrize("imports", [1, 2, 5, 20, 50, 100, 150, 200, 250, 300, 350])
def test_ctrl_c_while_the_program_is_loaded_is_quiet(imports, tmp_path):
    environment = {**os.environ, "TTS_TUI_HOME": str(tmp_path), "TTS_TUI_CONFIG": str(tmp_path / "none.toml")}
    command = [sys.executable, "-c", EARLY, str(imports), "tui"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() in ("", "tts-tui: interrupted")


def test_nothing_but_the_signals_is_loaded_before_ctrl_c_is_handled():
    code = "import sys; before = set(sys.modules); import tts_tui.__main__; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    ours = {name for name in ast.literal_eval(done.stdout) if name.startswith("tts_tui")}
    rooms = {"tts_tui.displays"}  # an empty package
    assert ours == {"tts_tui", "tts_tui.__main__", "tts_tui._version", "tts_tui.displays.signals"} | rooms
