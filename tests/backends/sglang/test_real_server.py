"""`tts-tui serve` with a real SGLang: it starts, answers, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
from pathlib import Path
from time import sleep

import pytest

from tests.servers import PYTHON, PYTHON_VARIABLE, Server, alive, free_port, make_tiny
from tts_tui.backends.sglang.launch import command, examine
from tts_tui.backends.sglang.process import ServerProcess
from tts_tui.errors import BackendUnavailable

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(600)]

KEY = "a-key-to-find"


def child(pid: int) -> int:
    """The only child of the process `pid`."""
    (only,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(only)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Starts `tts-tui serve policy ...`, with a cache folder of its own; ends it if the test did not."""
    started = []

    def start(model, *options, python=PYTHON, **extra):
        env = {**os.environ, PYTHON_VARIABLE: str(python), **extra}
        call = [sys.executable, "-m", "tts_tui", "serve", "policy", str(model), *options]
        started.append(subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env))
        return started[-1]

    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path / "home"))
    yield start
    for process in started:
        process.kill()  # the server notices, and ends too
        process.communicate()


def until_ready(process) -> int:
    """Reads what is said up to the last line before it waits; returns the server's process group."""
    said = []
    for line in process.stdout:
        said.append(line)
        if "Ctrl-C" in line:
            server = child(process.pid)
            assert "is served at http://127.0.0.1:" in said[0]
            return server
    raise AssertionError(f"never ready: {said}, {process.stderr.read()}")


def test_ctrl_c_leaves_nothing_behind_and_no_key_anywhere(serve, tiny_model, tmp_path):
    port = free_port()
    process = serve(tiny_model, "--port", str(port), TTS_TUI_API_KEY=KEY)
    pid = until_ready(process)
    assert len(alive(pid)) >= 3
    commands = alive(pid)
    assert f"--port {port}" in commands[pid]
    assert not any(KEY in line for line in commands.values())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not alive(pid)
    stages = [line for line in err.splitlines() if "starting SGLang" in line]
    words = [line.rpartition("CPU: ")[2].rpartition(" ")[0] for line in stages]
    assert words == [*dict.fromkeys(words)] and (words[0], words[-1]) == ("importing", "ready")
    assert len(words) > 2  # some stages are too short to be seen
    (log,) = (tmp_path / "home" / "logs").iterdir()
    text = log.read_text()
    assert KEY not in text + out + err and "'api_key': '***'" in text
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_server_that_dies_is_told(serve, tiny_model):
    process = serve(tiny_model, "--port", str(free_port()))
    os.killpg(until_ready(process), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "tts-tui: the server ended: " in err and "its log is" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_or_killed_while_it_starts(number, serve, tiny_model):
    process = serve(tiny_model, "--port", str(free_port()))
    assert "importing" in process.stderr.readline()
    pid = child(process.pid)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else -number)
    for _ in range(100):  # a server whose parent was killed notices that itself
        if not alive(pid):
            break
        sleep(0.1)
    assert not alive(pid)


def test_the_running_server_has_what_a_search_needs(tiny_server: Server):
    info = tiny_server.ask("/server_info")
    assert not info["disable_radix_cache"] and info["incremental_streaming_output"]
    assert "sglang:" in tiny_server.ask("/metrics")
    body = {"text": "Once upon a time " * 20, "sampling_params": {"max_new_tokens": 4}}
    tiny_server.ask("/generate", body)
    again = tiny_server.ask("/generate", body)
    assert again["meta_info"]["cached_tokens"] == again["meta_info"]["prompt_tokens"] - 1


def test_the_embedded_model_answers_in_its_chat_format(smollm2_server: Server):
    chat = [{"role": "user", "content": "What is the capital of France? Answer with its name."}]
    body = {"model": "default", "messages": chat, "max_tokens": 12, "temperature": 0}
    reply = smollm2_server.ask("/v1/chat/completions", body)
    assert "Paris" in reply["choices"][0]["message"]["content"]
    assert reply["usage"]["prompt_tokens"] > 20  # the template's markers and its system message are there


def test_a_reward_model_wants_the_key_too(sglang_python, tmp_path):
    model = make_tiny(tmp_path / "reward", "LlamaForSequenceClassification", num_labels=1)
    with Server.start(model, kind="prm", api_key=KEY) as server:
        key = [("Authorization", f"Bearer {KEY}")]
        reply = server.ask("/classify", {"text": "two and two"}, key)
        assert len(reply["embedding"]) == 2  # a logit, and how many tokens it took
        with pytest.raises(urllib.error.HTTPError, match="401"):
            server.ask("/classify", {"text": "two and two"})


def test_why_it_did_not_start(sglang_python, tmp_path, monkeypatch):
    model = make_tiny(tmp_path / "model")
    (model / "model.safetensors").unlink()
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path / "home"))
    launch = command("policy", str(model), examine(sglang_python, "cpu"), port=free_port())
    with (
        ServerProcess(launch) as server,
        pytest.raises(BackendUnavailable, match=r"starting: .*Cannot find any model weights.*; its log is"),
    ):
        server.wait_ready(timeout=300)
    assert not alive(server.pid)
