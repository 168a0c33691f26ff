"""What `tts-tui serve` decides: flags, environment, refusals. No server is started."""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import socket
import sys
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest

from tests.servers import alive, free_port
from tts_tui.backends.local import download
from tts_tui.backends.sglang import launch as serving
from tts_tui.backends.sglang.launch import Environment, Launch, command, resolve
from tts_tui.backends.sglang.process import ServerProcess, check_port, reason
from tts_tui.errors import BackendUnavailable, ModelNotFound, UsageError

CPU = Environment("/some/python", "0.5.23", "cpu")
GPU = Environment("/some/python", "0.5.23", "cuda")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkpoint(tmp_path):
    """Makes a folder whose configuration names a class."""

    def make(*architectures: str) -> str:
        (tmp_path / "config.json").write_text(json.dumps({"architectures": architectures}))
        return str(tmp_path)

    return make


def value(launch: Launch, flag: str) -> str:
    """What follows the last `flag`, which is the one that counts."""
    place = len(launch.argv) - launch.argv[::-1].index(flag)
    return launch.argv[place]


def test_on_a_cpu_it_has_flags_and_environment_of_its_own(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launch = command("policy", "/model", CPU, port=30100, context_length=512)
    assert launch.argv[0] == "/some/python" and launch.argv[1].endswith("boot.py")
    assert (value(launch, "--model-path"), value(launch, "--port")) == ("/model", "30100")
    assert (value(launch, "--device"), value(launch, "--context-length")) == ("cpu", "512")
    assert {"--enable-metrics", "--incremental-streaming-output", "--sleep-on-idle"} < set(launch.argv)
    assert launch.env["OMP_NUM_THREADS"] == launch.env["SGLANG_USE_CPU_ENGINE"] == "1"
    assert launch.log == download.cache_root() / "logs" / "serve-policy-30100.log"


def test_on_a_gpu_sglang_decides_itself(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "as the user says")
    launch = command("policy", "ORG/NAME", GPU)
    assert set(launch.argv).isdisjoint(serving._CPU)
    assert launch.env.keys().isdisjoint(serving._CPU_ENVIRONMENT.keys() - os.environ.keys())
    assert {"--enable-metrics", "--incremental-streaming-output"} < set(launch.argv)
    assert launch.env["HF_HUB_OFFLINE"] == "as the user says"


@pytest.mark.parametrize(
    ("kind", "environment", "settings", "shown"),
    [
        ("policy", CPU, {}, True),
        ("policy", GPU, {}, False),
        ("policy", GPU, {"return_hidden_states": True}, True),
        ("prm", CPU, {}, False),
    ],
)
def test_a_policy_shows_its_hidden_states_where_that_costs_nothing_or_is_wanted(
    kind, environment, settings, shown, checkpoint
):
    launch = command(kind, checkpoint("LlamaForCausalLM"), environment, **settings)
    assert ("--enable-return-hidden-states" in launch.argv) == shown


def test_the_user_has_the_last_word(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    launch = command("policy", "/model", CPU, extra=["--max-total-tokens", "9"])
    assert (value(launch, "--max-total-tokens"), launch.env["OMP_NUM_THREADS"]) == ("9", "7")


def test_the_key_is_neither_in_the_command_nor_in_the_environment(monkeypatch):
    monkeypatch.setenv("TTS_TUI_API_KEY", "secret")
    launch = command("policy", "/model", CPU, api_key="secret")
    assert "secret" not in [*launch.argv, *launch.env.values()] and launch.api_key == "secret"


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--disable-radix-cache"], "cache of shared prefixes"),
        (["--tp", "2", "--disable-radix"], "cache of shared prefixes"),
        (["--api-key=x"], "TTS_TUI_API_KEY in the environment"),
        (["--port", "1"], "give --port before the --"),
        (["--model-path", "x"], "give the model before the --"),
        (["another"], "one model is served at a time"),
    ],
)
def test_what_must_not_be_passed_on_is_refused(extra, sentence):
    with pytest.raises(UsageError, match=sentence):
        command("policy", "/model", CPU, extra=extra)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("LlamaForCausalLM", ["--incremental-streaming-output"]),
        ("Qwen2ForRewardModel", ["--is-embedding"]),
        ("Gemma2ForSequenceClassification", ["--is-embedding"]),
        (
            "Qwen2ForProcessRewardModel",
            ["--is-embedding", "--json-model-override-args", '{"architectures": ["Qwen2ForProcessRewardModel"]}'],
        ),
    ],
)
def test_a_reward_model_is_served_as_its_class_wants(name, flags, checkpoint):
    launch = command("prm", checkpoint(name), GPU)
    start = launch.argv.index("warning") + 1
    assert list(launch.argv[start:]) == [*flags, "--load-format", "safetensors"]


def test_pickled_weights_of_a_reward_model_are_served_where_that_is_asked_for(checkpoint):
    folder = Path(checkpoint("LlamaForCausalLM"))
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UsageError, match=r"only pickled weights, which can run code: .* --allow-pickle"):
        command("prm", str(folder), GPU)
    assert "--load-format" not in command("prm", str(folder), GPU, allow_pickle=True).argv
    given = command("prm", str(folder), GPU, extra=["--load-format", "dummy"]).argv
    assert given.count("--load-format") == 1


@pytest.mark.parametrize("theirs", ["", "/their/folder:/another"])
def test_sglang_is_shown_our_classes_behind_the_users_own_modules(theirs, checkpoint, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", theirs)
    env = command("prm", checkpoint("Qwen2ForPrmModel"), GPU).env
    *before, ours = env["PYTHONPATH"].split(":")
    assert ":".join(before) == theirs
    assert [path.name for path in Path(ours).iterdir()] == [env["SGLANG_EXTERNAL_MODEL_PACKAGE"]]
    for kind, name in (("prm", "LlamaForCausalLM"), ("policy", "Qwen2ForCausalLM")):
        env = command(kind, checkpoint(name), GPU).env
        assert env["PYTHONPATH"] == theirs and "SGLANG_EXTERNAL_MODEL_PACKAGE" not in env


def test_each_of_our_classes_is_there():
    written = (ROOT / "backends/served/tts_tui_prms/models.py").read_text()
    assert written.partition("EntryClass = [")[2].split() == [*(f"{name}," for name in serving.OURS), "]"]


def test_a_users_own_classes_are_not_put_aside_in_silence(checkpoint, monkeypatch):
    monkeypatch.setenv("SGLANG_EXTERNAL_MODEL_PACKAGE", "theirs")
    assert command("prm", checkpoint("LlamaForCausalLM"), GPU).env["SGLANG_EXTERNAL_MODEL_PACKAGE"] == "theirs"
    with pytest.raises(UsageError, match="SGLANG_EXTERNAL_MODEL_PACKAGE is theirs, and a Qwen2ForPrmModel needs"):
        command("prm", checkpoint("Qwen2ForPrmModel"), GPU)


def test_an_sglang_that_takes_no_classes_is_told_before_it_starts(tmp_path, checkpoint):
    old = serving.examine(fake_python(tmp_path, '{"sglang": "0.5.3", "cuda": false, "extensible": false}'))
    with pytest.raises(BackendUnavailable, match=r"0\.5\.3 loads no classes .* has no Qwen2ForPrmModel: update it"):
        command("prm", checkpoint("Qwen2ForPrmModel"), old)
    assert command("prm", checkpoint("Gemma2ForSequenceClassification"), old)


def test_a_value_head_is_known_by_its_tensors(tmp_path, checkpoint):
    folder = checkpoint("Qwen2ForCausalLM")
    assert "--is-embedding" not in command("prm", folder, GPU).argv
    index = {"weight_map": {"v_head.summary.weight": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert value(command("prm", folder, GPU), "--json-model-override-args") == '{"architectures": ["Qwen2ForPrmModel"]}'
    (tmp_path / "model.safetensors.index.json").unlink()
    header = json.dumps({"v_head.summary.weight": {}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "--is-embedding" in command("prm", folder, GPU).argv


def test_other_reward_models_are_refused_with_what_is_known(checkpoint):
    with pytest.raises(UsageError, match=r"is a BertModel, .*ForSequenceClassification"):
        command("prm", checkpoint("BertModel"), GPU)
    with pytest.raises(UsageError, match="unnamed class"):
        command("prm", checkpoint(), GPU)


def test_where_models_are(tmp_path, checkpoint):
    assert resolve("policy", "embedded") == str(download.model_path())
    assert resolve("policy", "hf:ORG/NAME") == "ORG/NAME"
    assert resolve("policy", checkpoint("X")) == str(tmp_path)
    for model, sentence in (("/no/where", "no folder /no/where"), (str(ROOT), "no config.json"), ("name", "no folder")):
        with pytest.raises(ModelNotFound, match=sentence):
            resolve("policy", model)
    with pytest.raises(UsageError, match="needs no server"):
        resolve("prm", "embedded")


def test_a_configuration_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BackendUnavailable, match=r"configuration of .* cannot be read"):
        serving.architecture(str(tmp_path))
    with pytest.raises(BackendUnavailable, match="check the name and the network"):
        serving.architecture("ORG/NAME")  # tests are offline


def test_addresses_for_clients():
    known = {"127.0.0.1": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]", "example.org": "example.org"}
    for host, shown in known.items():
        assert command("policy", "/model", GPU, host=host, port=9).url == f"http://{shown}:9"


# -- the other Python --------------------------------------------------------------------------------------------------


def fake_python(folder: Path, answer: str, code: int = 0) -> str:
    """A program that answers `answer` whatever it is asked."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho {shlex.quote(answer)}\necho 'its reason' >&2\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def test_a_gpu_is_taken_where_there_is_one(tmp_path):
    python = fake_python(tmp_path, '{"sglang": "1.0", "cuda": true}')
    assert serving.examine(python) == Environment(python, "1.0", "cuda")
    python = fake_python(tmp_path, '{"sglang": "1.0", "cuda": false}')
    assert serving.examine(python) == Environment(python, "1.0", "cpu")
    with pytest.raises(BackendUnavailable, match="finds no GPU: use --device cpu"):
        serving.examine(python, "cuda")


@pytest.mark.parametrize(
    ("answer", "code", "error", "sentence"),
    [
        ('{"sglang": null}', 0, BackendUnavailable, r"no SGLang: pip install sglang, or name .* --python"),
        ("", 1, BackendUnavailable, "cannot load torch: its reason"),
        ("hello", 0, UsageError, "is no Python"),
    ],
)
def test_a_python_that_cannot_serve_is_told(answer, code, error, sentence, tmp_path):
    with pytest.raises(error, match=sentence):
        serving.examine(fake_python(tmp_path, answer, code))


def test_a_python_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"cannot run .*: No such file"):
        serving.examine(str(tmp_path / "none"))


# -- the process -------------------------------------------------------------------------------------------------------


def test_why_a_server_ended():
    log = [
        "[2026-01-01 10:00:00] Load weight begin.",
        "Traceback (most recent call last):",
        '  File "x.py", line 1, in <module>',
        "RuntimeError: Cannot find any model weights with `x`",
        "",
        "[2026-01-01 10:00:01] Received sigquit from a child process.",
    ]
    assert reason(log) == "RuntimeError: Cannot find any model weights with `x`"
    assert reason(["usage: sglang", "sglang serve: error: unrecognized arguments: --x"]).endswith("arguments: --x")
    assert reason(["[2026-01-01 10:00:00] the last thing."]) == "the last thing"
    assert reason([]) == "it said nothing"


def test_a_port_in_use_is_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} .*in use.*--port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


SERVER = """
import http.server, subprocess, sys, time
key = sys.stdin.readline().strip()
subprocess.Popen(["sleep", "600"])
print("[2026] Load weight begin", key, flush=True)
class Reply(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Reply).serve_forever()
"""


def launch_of(code: str, folder: Path, port: int) -> Launch:
    argv = (sys.executable, "-c", code, str(port))
    return Launch(argv, dict(os.environ), "127.0.0.1", port, folder / "logs" / "server.log", "secret")


def test_a_server_from_its_start_to_its_end(tmp_path):
    stages: list[str] = []
    launch = launch_of(SERVER, tmp_path, free_port())
    with ServerProcess(launch) as server:
        server.wait_ready(stages.append, timeout=60)
        assert server.running and len(alive(server.pid)) == 2
    assert not server.running and not alive(server.pid)
    assert stages
    assert launch.log.read_text() == "[2026] Load weight begin ***\n"
    server.stop()


def test_neither_its_log_nor_its_last_words_hold_the_key_in_another_form(tmp_path):
    key = "sk-0123456789/abcdefgh+ij"
    said = [quote(key, safe=""), base64.b64encode(f"user:{key}".encode()).decode(), key[:16] + "...", f"Bearer {key}"]
    code = f"import sys; print('\\n'.join({said!r})); sys.exit('ValueError: \\x1b[31m ' + ' '.join({said!r}))"
    launch = msgspec.structs.replace(launch_of(code, tmp_path, free_port()), api_key=key)
    with ServerProcess(launch) as server, pytest.raises(BackendUnavailable) as raised:
        server.wait_ready(timeout=60)
    for text in (launch.log.read_text(), str(raised.value)):
        assert "***" in text and not [form for form in (key, key[:16], *said) if form in text]
    assert str(raised.value).isprintable()


def test_one_that_does_not_listen_to_sigterm_is_ended_by_force(tmp_path):
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER
    server = ServerProcess(launch_of(code, tmp_path, free_port()))
    server.start()
    server.wait_ready(timeout=60)
    server.stop(0.2)
    assert not alive(server.pid)


def test_one_that_ends_by_itself_says_why(tmp_path):
    code = "import sys; sys.exit('ValueError: no secret here')"
    with (
        ServerProcess(launch_of(code, tmp_path, free_port())) as server,
        pytest.raises(BackendUnavailable, match=r"starting: ValueError: no \*\*\* here; its log is .*server.log"),
    ):
        server.wait_ready(timeout=60)
    with ServerProcess(launch_of(SERVER, tmp_path, free_port())) as server:
        server.wait_ready(timeout=60)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(BackendUnavailable, match="the server ended: "):
            server.wait()


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "code", "sentence"),
    [
        (["policy", "/no/where"], 2, "there is no folder /no/where"),
        (["policy", "embedded", "--tp", "2"], 2, "put -- before flags for SGLang"),
        (["policy", "embedded", "--", "--disable-radix-cache"], 2, "--disable-radix-cache cannot be passed on"),
        (["policy", "embedded", "--api-key", "a b"], 2, "the API key must be"),
        (["policy", "embedded", "--python", "/no/python"], 2, "cannot run /no/python"),
        (["prm", "embedded"], 2, "needs no server"),
    ],
)
def test_mistakes_are_one_sentence(call, code, sentence, capsys):
    from tts_tui.cli.main import run

    assert run(["serve", call[0], "--port", str(free_port()), *call[1:]]) == code
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1
