"""Real SGLang servers for tests that are marked `sglang`, started as `tts-tui serve` starts them."""

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
"""A Python that has SGLang. Read once: tests do not see the user's own environment."""

SECONDS = 300
"""Longest start; a busy machine of two cores takes a minute."""

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(group: int) -> dict[int, str]:
    """The processes of a process group that run, with their command lines."""
    fields = ["ps", "-e", "-ww", "-o", "pid=,pgid=,stat=,args="]
    if Path("/proc/self/stat").exists():  # a bare machine has no ps
        rows = list(_processes())
    else:
        listed = subprocess.run(fields, capture_output=True, text=True, check=True).stdout
        rows = [line.split(maxsplit=3) for line in listed.splitlines()]
    return {int(pid): args for pid, pgid, state, args in rows if int(pgid) == group and state[0] != "Z"}


def _processes() -> Iterator[list[str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            command_line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            yield [folder.name, group, state, command_line]


class Server:
    """A running server.

    Attributes:
        url: Its address, without a slash at the end.
        model: The folder that it serves.
        log: File with all that it printed.
        pid: Its process, and process group.
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
        """Starts one and waits until it answers; `flags` go to SGLang as they are."""
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
        self.kill()  # an end in good order takes SGLang six seconds

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.running

    def stop(self) -> None:
        """Ends it in good order. Safe to call twice."""
        self._process.stop()

    def kill(self) -> None:
        """Ends it at once, as a crash does. Safe to call twice."""
        self._process.kill()

    def ask(self, path: str, body: Any = None, headers: Sequence[tuple[str, str]] = ()) -> Any:
        """One request: GET, or POST of `body` as JSON; returns the reply's JSON, or its text if it is none."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **dict(headers)})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as reply:
            text = reply.read().decode()
        try:
            return json.loads(text)
        except ValueError:
            return text


def make_tiny(folder: Path, kind: str = "LlamaForCausalLM", **changes: Any) -> Path:
    """Writes a random model of two layers with the embedded model's tokenizer: ten times as fast, and senseless."""
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
