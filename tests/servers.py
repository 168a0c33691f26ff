"""Real SGLang servers for tests that are marked `sglang`, started in the same way as by `tts-tui serve`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from tts_tui.backends.local import download
from tts_tui.backends.sglang.launch import PYTHON_VARIABLE, Environment, Kind, command, examine
from tts_tui.backends.sglang.process import ServerProcess

PYTHON = os.environ.get(PYTHON_VARIABLE)
"""A Python that has SGLang. It is read once, because tests do not see the user's own environment."""

SECONDS = 300
"""The longest time to start in seconds; a busy machine with two cores takes a minute."""

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def free_port() -> int:
    """Return an unused port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(group: int) -> dict[int, str]:
    """Return the running processes of a process group, with their command lines."""
    fields = ["ps", "-e", "-ww", "-o", "pid=,pgid=,stat=,args="]
    if Path("/proc/self/stat").exists():  # minimal systems have no ps
        rows = list(_processes())
    else:
        listed = subprocess.run(fields, capture_output=True, text=True, check=True).stdout
        rows = [line.split(maxsplit=3) for line in listed.splitlines()]
    return {int(pid): args for pid, pgid, state, args in rows if int(pgid) == group and state[0] != "Z"}


def _processes() -> Iterator[list[str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has just exited
            state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            command_line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            yield [folder.name, group, state, command_line]


class Server:
    """A running server.

    Attributes:
        url: The server's address, without a trailing slash.
        model: The model folder that it serves.
        log: The file with all of its output.
        pid: The id of its process and process group.
    """

    def __init__(self, process: ServerProcess, model: Path) -> None:
        self._process, self.model = process, model
        self.url, self.log, self.pid = process.url, process.launch.log, process.pid

    @classmethod
    def start(
        cls,
        model: Path,
        *flags: str,
        port: int | None = None,
        kind: Kind = "policy",
        context_length: int | None = None,
        api_key: str | None = None,
        python: str | None = None,
    ) -> Self:
        """Start a server and wait until it answers; `flags` are passed to SGLang unchanged."""
        environment: Environment = examine(python or PYTHON, "cpu")
        settings = {"port": port or free_port(), "context_length": context_length, "api_key": api_key}
        launch = command(kind, str(model), environment, extra=flags, **settings)
        process = ServerProcess(launch)
        try:
            process.start()
            process.wait_ready(timeout=SECONDS)
        except BaseException:
            process.kill()
            raise
        return cls(process, model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()  # a graceful shutdown of SGLang takes six seconds

    @property
    def running(self) -> bool:
        """True if the process has not exited."""
        return self._process.running

    def stop(self) -> None:
        """Shut the server down gracefully. It is safe to call this twice."""
        self._process.stop()

    def kill(self) -> None:
        """Kill the server at once, as a crash would. It is safe to call this twice."""
        self._process.kill()

    def ask(self, path: str, body: Any = None, headers: Sequence[tuple[str, str]] = ()) -> Any:
        """Send one GET request, or POST `body` as JSON; return the reply's JSON, or its text if it is not JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **dict(headers)})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as reply:
            text = reply.read().decode()
        try:
            return json.loads(text)
        except ValueError:
            return text


def make_tiny(folder: Path, kind: str = "LlamaForCausalLM", **changes: Any) -> Path:
    """Write a random two-layer model with the embedded model's tokenizer: ten times as fast, meaningless output."""
    import torch
    import transformers

    torch.manual_seed(0)
    model_class = getattr(transformers, kind)
    settings = {
        "vocab_size": 49152,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "tie_word_embeddings": True,
    }
    config = model_class.config_class(**{**settings, **changes})
    model_class(config).float().save_pretrained(folder)
    for name in _TOKENIZER:
        if (download.model_path() / name).exists():
            shutil.copy(download.model_path() / name, folder)
    return folder
