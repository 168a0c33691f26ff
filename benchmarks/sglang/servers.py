"""SGLang servers for the benchmarks, started as subprocesses, and their token counters."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from tts_tui.backends.remote.http import Http

FLAGS = (
    *("--device", "cpu"),
    *("--dtype", "float32"),
    *("--attention-backend", "torch_native"),
    *("--sampling-backend", "pytorch"),
    "--disable-overlap-schedule",
    *("--cuda-graph-backend-decode", "disabled"),
    *("--cuda-graph-backend-prefill", "disabled"),
    *("--grammar-backend", "none"),
    *("--max-total-tokens", "20000"),
    "--enable-metrics",
    "--incremental-streaming-output",
    "--sleep-on-idle",
    *("--log-level", "warning"),
)
ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
READY_SECONDS = 240.0
_GROUPS: dict[str, int] = {}
_COUNTER = re.compile(r"^sglang:(prompt|cached|generation)_tokens_total\{[^}]*\} ([\d.e+]+)$", re.MULTILINE)


class Counted(Struct, frozen=True):
    """Token counts of a server: prompt tokens, the reused ones among them, and sampled tokens."""

    prompt: int = 0
    cached: int = 0
    generation: int = 0

    def __sub__(self, other: Counted) -> Counted:
        return Counted(self.prompt - other.prompt, self.cached - other.cached, self.generation - other.generation)

    @property
    def computed(self) -> int:
        """Number of tokens that passed through the model."""
        return self.prompt - self.cached + self.generation


async def counted(http: Http) -> Counted:
    """Read the current counters of a server."""
    sums = {"prompt": 0.0, "cached": 0.0, "generation": 0.0}
    for name, value in _COUNTER.findall((await http.read("GET", "/metrics")).decode()):
        sums[name] += float(value)
    return Counted(**{name: int(value) for name, value in sums.items()})


async def busy(http: Http) -> int:
    """Return the number of running and queued requests of a server."""
    load = (await http.get("/v1/loads", dict))["loads"][0]
    return int(load["num_running_reqs"] + load["num_waiting_reqs"])


@contextlib.contextmanager
def serve(python: str, model: str | Path, *flags: str) -> Iterator[str]:
    """Run a server of `model`, and yield its address once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [python, "-m", "sglang.launch_server", "--model-path", str(model), "--port", str(port), *FLAGS, *flags]
    log = tempfile.NamedTemporaryFile("w+", prefix=f"sglang-{port}-", suffix=".log")  # noqa: SIM115
    process = subprocess.Popen(
        argv, env={**os.environ, **ENVIRONMENT}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    _GROUPS[url] = process.pid
    try:
        end = time.monotonic() + READY_SECONDS
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > end:
                log.seek(0)
                raise SystemExit(f"the server did not start: {' '.join(log.read().splitlines()[-3:])}")
            time.sleep(0.5)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def cpu_seconds(url: str) -> float | None:
    """Return the CPU seconds of all processes of a server started by `serve`; None for others, and outside Linux."""
    if url not in _GROUPS:
        return None
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = file.read_text().rpartition(")")[2].split()
            if int(fields[2]) == _GROUPS[url]:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else None


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def make_tiny(folder: Path) -> Path:
    """Write a model of two random layers, with the embedded model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from tts_tui.backends.local.download import model_path

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).float().save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_path()).save_pretrained(folder)
    return folder
