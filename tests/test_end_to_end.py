"""The main use cases with the real embedded models, on the command line."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tts_tui import load
from tts_tui.displays.phrases import REASONS
from tts_tui.tree.events import decode

pytestmark = pytest.mark.embedded

ROOT = Path(__file__).resolve().parents[1]
TTS = [sys.executable, "-m", "tts_tui"]
PROBLEM = "What is 7 + 8 - 6?"
HARD = "Find the remainder when 3 to the power of 2026 is divided by 1000. Explain every step in detail."


def call(*arguments, **options):
    return subprocess.run([*TTS, *arguments], capture_output=True, text=True, cwd=ROOT, **options)


def start(*arguments):
    return subprocess.Popen([*TTS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def until(process, mark):
    """Return lines of standard output up to the one that contains `mark`."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if mark in line:
            return lines
    raise AssertionError(f"{mark!r} never came: {lines[-3:]} {process.stderr.read()}")


def remainder(process):
    """Return the rest of both outputs. `communicate` would lose lines that are already in the buffer."""
    with process.stdout as out, process.stderr as err:
        rest = out.read(), err.read()
    process.wait()
    return rest


@pytest.mark.parametrize("strategy", ["cot", "majority", "best-of-n", "beam", "dvts"])
def test_every_strategy_comes_to_an_end(strategy, tmp_path):
    done = call(
        *("solve", PROBLEM, "--strategy", strategy, "-n", "1" if strategy == "cot" else "4", "-m", "2"),
        *("--max-depth", "8", "--total-tokens", "200", "--display", "json", "--record", str(tmp_path / "run.jsonl")),
    )
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "search_finished" and last["reason"] in ("solved", "unsolved")
    assert last["plan"]["strategy"] == strategy
    assert set(last["tokens"]["policy"]) == {"prompt_computed", "prompt_cached", "completion", "ahead"}
    assert last["tokens"]["policy"]["completion"] > 0 and last["flops"]["policy"] > 0 and last["seconds"] > 0
    assert (last["answer"] is not None) == (done.returncode == 0)
    assert (tmp_path / "run.jsonl").read_text() == done.stdout
    again = call("replay", str(tmp_path / "run.jsonl"), "--display", "json")
    assert (again.returncode, again.stdout) == (done.returncode, done.stdout)


def test_best_of_16_answers_the_problem_of_the_readme():
    done = call("solve", PROBLEM, "--display", "plain")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "tts-tui: loading embedded …\n"
    assert f"Problem: {PROBLEM}\nPolicy: SmolLM2-135M-Instruct (135M parameters). Reward model: " in done.stdout
    assert "\nAnswer: " in done.stdout and "\nTime: " in done.stdout


def test_the_answer_alone_and_a_problem_on_standard_input():
    done = call("solve", "-", "--strategy", "majority", "-n", "2", "--display", "none", input="What is 2 + 3?\n")
    assert done.returncode in (0, 1)
    assert (len(done.stdout.splitlines()), done.stderr) == (1 - done.returncode, "")


def test_ctrl_c_stops_and_shows_the_best_so_far(tmp_path):
    process = start("solve", HARD, "-n", "8", "--display", "json", "--record", str(tmp_path / "run.jsonl"))
    lines = until(process, "step_streamed")
    process.send_signal(signal.SIGINT)
    rest, err = remainder(process)
    assert (process.returncode, err) == (130, "")
    assert decode(rest.splitlines()[-1]).reason == "interrupted"
    assert (tmp_path / "run.jsonl").read_text() == "".join(lines) + rest


def test_a_killed_search_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "run.jsonl"
    plan = ("--strategy", "majority", "-n", "4", "--total-tokens", "300")
    process = start("solve", PROBLEM, *plan, "--record", str(path), "--display", "json")
    until(process, "step_finished")
    process.kill()
    remainder(process)
    before = load(path)
    whole = {node.id: node.text for node in before.nodes if node.state == "done"}
    assert before.finished is None and len(whole) > 1
    shown = call("replay", str(path), "--display", "plain")
    assert shown.returncode == 1 and "The recording ends before its search did" in shown.stdout
    done = call("resume", str(path), "--display", "plain")
    assert done.returncode in (0, 1), done.stderr
    assert f"Problem: {PROBLEM}" in done.stdout and "Resumed." in done.stdout
    after = load(path)
    assert after.finished is not None and after.finished.reason in ("solved", "unsolved")
    assert {id: after.nodes[id].text for id in whole} == whole
    once_more = call("resume", str(path), "--display", "json")
    assert once_more.returncode == done.returncode
    assert json.loads(once_more.stdout)["event"] == "search_finished"


def test_a_limit_given_to_resume_replaces_the_recorded_one(tmp_path):
    path = tmp_path / "run.jsonl"
    plan = ("--strategy", "majority", "-n", "2", "--total-tokens", "200", "--budget-tokens", "260")
    first = call("solve", PROBLEM, *plan, "--record", str(path), "--display", "none")
    assert load(path).finished.reason == "budget", first.stderr
    call("resume", str(path), "--budget-tokens", "100000", "--display", "none")
    assert load(path).finished.reason in ("solved", "unsolved")


@pytest.mark.parametrize("strategy", ["majority", "best-of-n"])
def test_a_long_problem_is_refused_in_one_sentence(strategy, tmp_path):
    (tmp_path / "long.txt").write_text("What is 7 + 8? " * 70_000)
    done = call("solve", "--file", str(tmp_path / "long.txt"), "--display", "json", "--strategy", strategy)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tts-tui: the prompt has ") and "shorten the problem" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_budget_that_is_too_small_for_one_step_is_refused():
    done = call("solve", PROBLEM, "--budget-tokens", "3", "--display", "json", "--strategy", "majority")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is too small for one step" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("display", ["json", "plain", "none"])
def test_a_full_disk_ends_the_recording_and_not_the_search(display, tmp_path):
    path = tmp_path / "run.jsonl"
    done = call("solve", PROBLEM, "--strategy", "cot", "--record", str(path), "--display", display, preexec_fn=_small)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr.count("recording stopped") == 1 and path.name in done.stderr
    if display == "json":
        assert [line for line in done.stdout.splitlines() if '"event":"notice"' in line and '"warning":true' in line]
        assert json.loads(done.stdout.splitlines()[-1])["event"] == "search_finished"
    assert len(load(path)) >= 0


def _small():
    """Limit the files of this process to 4 kB, which takes the same error path as a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.tmux
@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_live_display_in_a_real_terminal(tmp_path):
    path, ready = tmp_path / "run.jsonl", tmp_path / "ready"
    os.mkfifo(ready)
    solve = shlex.join([*TTS, "solve", PROBLEM, "--strategy", "majority", "-n", "4", "--record", str(path)])
    script = f"cd {shlex.quote(str(ROOT))}; {solve}; echo code $?; echo done > {shlex.quote(str(ready))}; cat"
    tmux = ["tmux", "-L", f"tts-{uuid.uuid4().hex[:8]}", "-f", os.devnull]
    subprocess.run([*tmux, "new-session", "-d", "-x", "80", "-y", "40", f"sh -c {shlex.quote(script)}"], check=True)
    try:
        assert ready.read_text() == "done\n"  # blocks until the search has ended
        screen = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
    finished = load(path).finished
    assert finished is not None
    assert f"Answer: {finished.answer or 'none'}" in screen
    assert f"{'★' if finished.answer else '■'} {REASONS[finished.reason]}" in screen
    assert "★ answer" in screen and "├─" in screen
    assert f"code {0 if finished.answer else 1}" in screen
