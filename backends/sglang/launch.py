"""Command line of the SGLang server that `tts-tui serve` starts, with the flags that a search needs, on CPU or GPUs.

SGLang pins many packages, so it may be installed in another environment than this package: everything here runs a
configurable Python, and imports nothing from SGLang. `tts_tui.backends.sglang.process` runs the resulting command.

How a process reward model is served depends on the model class that its checkpoint names, see `reward_flags`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from tts_tui.backends.local import download
from tts_tui.backends.local.loading import has_pickle
from tts_tui.errors import BackendUnavailable, ModelNotFound, UsageError

Kind = Literal["policy", "prm"]

PYTHON_VARIABLE, KEY_VARIABLE = "TTS_TUI_SGLANG_PYTHON", "TTS_TUI_API_KEY"
HOST, PORT = "127.0.0.1", 30000

_ALWAYS = ("--enable-metrics", "--log-level-http", "warning")
_CAUSAL = ("--incremental-streaming-output",)
_STATES = ("--enable-return-hidden-states",)
_CPU = (
    *("--device", "cpu"),
    *("--dtype", "float32"),  # matrix products in bfloat16 are slow on most CPUs
    *("--attention-backend", "torch_native"),
    *("--sampling-backend", "pytorch"),
    "--disable-overlap-schedule",
    *("--cuda-graph-backend-decode", "disabled"),
    *("--cuda-graph-backend-prefill", "disabled"),
    *("--grammar-backend", "none"),
    *("--max-total-tokens", "20000"),
    *("--max-running-requests", "64"),
    "--sleep-on-idle",  # otherwise an idle server keeps a core busy
)
_CPU_ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "OMP_NUM_THREADS": "1",  # several threads waiting for a busy core are many times slower than one
    "TORCHDYNAMO_DISABLE": "1",  # otherwise the first request with a penalty compiles for half a minute
}
_SHARED_PREFIX = "a search relies on its cache of shared prefixes"
_REFUSED = {
    "--disable-radix-cache": f"--disable-radix-cache cannot be passed on: {_SHARED_PREFIX}",
    "--api-key": f"give the key as {KEY_VARIABLE} in the environment, where no list of processes shows it",
    **{
        flag: f"give {flag} before the --, to tts-tui itself"
        for flag in ("--host", "--port", "--device", "--context-length")
    },
    **dict.fromkeys(("--model-path", "--model"), "give the model before the --, to tts-tui itself"),
}

OURS = (
    "Qwen2ForProcessRewardModel",
    "Qwen2ForPrmModel",
    "Qwen2ForTokenClassification",
    "LlamaForTokenClassification",
    "MistralForTokenClassification",
    "Qwen2ForSequenceClassification",
    "LlamaForSequenceClassification",
    "MistralForSequenceClassification",
)
"""Model classes that SGLang lacks or implements incorrectly: it loads ours, from `backends/served/tts_tui_prms`."""
_VALUE_HEAD = "v_head.summary.weight"
_POOLED = ("ForSequenceClassification", "ForRewardModel")
_OUR_PLACE, _OUR_PACKAGE = Path(__file__).parents[1] / "served", "tts_tui_prms"
_PACKAGE_VARIABLE = "SGLANG_EXTERNAL_MODEL_PACKAGE"


class Environment(Struct, frozen=True):
    """A Python interpreter that has SGLang.

    Attributes:
        python: The path of the interpreter.
        sglang: The version of its SGLang.
        device: The device that the server will compute on, "cpu" or "cuda".
        extensible: True if this SGLang can load model classes from an external package.
    """

    python: str
    sglang: str
    device: str
    extensible: bool = True


class Launch(Struct, frozen=True):
    """The parameters of a server process that is ready to be started.

    Attributes:
        argv: The command with its arguments.
        env: The environment variables of the process.
        host: The host or address that the server listens on.
        port: The port that the server listens on.
        log: The file that the server's output is written to.
        api_key: The key that clients must send; neither in `argv` nor in `env`, where other users could read it.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    host: str
    port: int
    log: Path
    api_key: str | None = None

    @property
    def client_host(self) -> str:
        """Host by which clients on this machine reach the server."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    @property
    def url(self) -> str:
        """URL by which clients on this machine reach the server."""
        host = self.client_host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def command(
    kind: Kind,
    model: str,
    environment: Environment,
    *,
    host: str = HOST,
    port: int = PORT,
    context_length: int | None = None,
    api_key: str | None = None,
    allow_pickle: bool = False,
    return_hidden_states: bool = False,
    extra: Sequence[str] = (),
) -> Launch:
    """Return the server process that serves `model`.

    Args:
        kind: The role of the model: "policy", or "prm" for a process reward model.
        model: A folder or a hub id; see `resolve`.
        environment: The Python that runs the server; see `examine`.
        host: The host or address to listen on.
        port: The port to listen on.
        context_length: Longest sequence in tokens; by default the value in the model's configuration.
        api_key: The key that clients must send.
        allow_pickle: Also serve a reward model whose weights are pickled, which can run code.
        return_hidden_states: Have a policy return hidden states on a GPU too. On a CPU it always does: that costs
            nothing there, while on a GPU the CUDA graphs reserve more memory for it.
        extra: Additional flags for SGLang.

    Raises:
        UsageError: `extra` holds a flag that must not be passed on, or the model cannot be served this way.
        BackendError: The model's configuration cannot be read.
    """
    check_extra(extra)
    flags = ["--model-path", model, "--host", host, "--port", str(port), *_ALWAYS]
    name = "" if kind == "policy" else architecture(model)
    flags += _CAUSAL if kind == "policy" else (*reward_flags(name, model), *_formats(model, allow_pickle, extra))
    if kind == "policy" and (return_hidden_states or environment.device == "cpu"):
        flags += _STATES
    if context_length is not None:
        flags += ["--context-length", str(context_length)]
    env = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    env["PYTHONUNBUFFERED"] = "1"
    if environment.device == "cpu":
        flags += _CPU
        env = {**_CPU_ENVIRONMENT, **env}
    if name in OURS:
        env |= _our_classes(name, environment)
    boot = Path(__file__).with_name("boot.py")
    argv = (environment.python, str(boot), *flags, *extra)
    return Launch(argv, env, host, port, download.cache_root() / "logs" / f"serve-{kind}-{port}.log", api_key)


def check_extra(extra: Sequence[str]) -> None:
    """Check the flags that users pass on to SGLang.

    Raises:
        UsageError: One of them must not be passed on, or the first of them is not a flag.
    """
    if extra and not extra[0].startswith("-"):
        raise UsageError(f"one model is served at a time, {extra[0]!r} is too much: flags for SGLang come after --")
    for word in extra:
        flag = word.partition("=")[0]
        for refused, sentence in _REFUSED.items():
            # SGLang accepts unambiguous abbreviations of flags.
            if flag == refused or (len(flag) > 6 and refused.startswith(flag)):
                raise UsageError(sentence)


def reward_flags(name: str, model: str) -> tuple[str, ...]:
    """Return the flags for a reward model of the class `name`.

    Args:
        name: The model class, as returned by `architecture`.
        model: The folder or hub id of the model, for messages.

    Raises:
        UsageError: Models of this class cannot be served as reward models.
    """
    if name in OURS:  # the configuration may name another class, see `architecture`
        return ("--is-embedding", "--json-model-override-args", json.dumps({"architectures": [name]}))
    if name.endswith(_POOLED):
        return ("--is-embedding",)
    if name.endswith("ForCausalLM"):
        return _CAUSAL
    raise UsageError(
        f"{model} is a {name or 'model of an unnamed class'}, which is not served as a reward model: those named "
        f"…ForCausalLM, …ForSequenceClassification and …ForRewardModel are, and {', '.join(OURS[:5])}"
    )


def _formats(model: str, allow_pickle: bool, extra: Sequence[str]) -> tuple[str, ...]:
    """Return the flags for the format of the weights.

    Raises:
        UsageError: The weights are pickled, and `allow_pickle` is not set.
    """
    if allow_pickle or any(word.startswith("--load-format") for word in extra):
        return ()
    folder = Path(model)
    if folder.is_dir() and has_pickle(folder) and not any(folder.glob("*.safetensors")):
        raise UsageError(
            f"{model} has only pickled weights, which can run code: convert them to safetensors; --allow-pickle takes "
            "them all the same, if you trust where they are from"
        )
    return ("--load-format", "safetensors")


def _our_classes(name: str, environment: Environment) -> dict[str, str]:
    """Return the environment variables by which SGLang finds our model classes.

    Raises:
        BackendUnavailable: This SGLang is too old to load external model classes.
        UsageError: The environment already names another external package.
    """
    if not environment.extensible:
        raise BackendUnavailable(
            f"SGLang {environment.sglang} loads no classes of models but its own, and has no {name}: update it to "
            "0.5.23 or newer, or run this reward model in this process with --prm hf:"
        )
    theirs = os.environ.get(_PACKAGE_VARIABLE, "")
    if theirs not in ("", _OUR_PACKAGE):
        raise UsageError(
            f"{_PACKAGE_VARIABLE} is {theirs}, and a {name} needs tts-tui's own classes there: unset it, or start "
            "SGLang yourself"
        )
    # After the user's own folders, so that none of their modules is shadowed.
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    return {_PACKAGE_VARIABLE: _OUR_PACKAGE, "PYTHONPATH": os.pathsep.join([*places, str(_OUR_PLACE)])}


# -- the model ---------------------------------------------------------------------------------------------------------


def resolve(kind: Kind, model: str) -> str:
    """Return the folder or hub id of `model`, after the checks that are possible without loading it.

    Args:
        kind: The role of the model: "policy" or "prm".
        model: "embedded", a folder or a hub id; the last two may begin with `hf:`.

    Raises:
        ModelNotFound: There is no such folder, or no model in it.
        UsageError: `model` is the embedded reward model, which needs no server.
    """
    if model == download.EMBEDDED.name:
        if kind == "prm":
            raise UsageError("the embedded reward model runs inside tts-tui and needs no server: give --prm embedded")
        return str(download.model_path())
    folder = Path(os.path.expanduser(model.removeprefix("hf:")))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFound(f"{folder} holds no model: it has no config.json")
        return str(folder.resolve())
    name = str(folder)
    if folder.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise ModelNotFound(f"there is no folder {model}: give embedded, a model's folder, or a hub id as ORG/NAME")
    return name


def architecture(model: str) -> str:
    """Return the class that the configuration of `model` names; "" if it names none.

    A value head is recognised by its tensors, because the configuration may name the class of the model below the head.

    Raises:
        BackendUnavailable: The configuration cannot be read.
    """
    try:
        config: Any = json.loads(_file(model, "config.json").read_text(encoding="utf-8"))
        name = str((config.get("architectures") or [""])[0])
    except Exception as error:  # the hub's client may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackendUnavailable(
            f"the configuration of {model} cannot be read: {reason}; check the name and the network, or give a folder"
        ) from error
    if name.startswith("Qwen2") and _VALUE_HEAD in _tensors(model):
        return "Qwen2ForPrmModel"
    return name


def _file(model: str, name: str) -> Path:
    if Path(model).is_dir():
        return Path(model, name)
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(model, name))


def _tensors(model: str) -> set[str]:
    """Return the names of the tensors from an index, or from a local file; empty if neither exists."""
    with contextlib.suppress(Exception):  # a model in one file has no index
        return set(json.loads(_file(model, "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"])
    with contextlib.suppress(Exception), Path(model, "model.safetensors").open("rb") as stream:
        return set(json.loads(stream.read(int.from_bytes(stream.read(8), "little"))))
    return set()


# -- the Python that has SGLang ----------------------------------------------------------------------------------------

_QUESTIONS = """
import json, pathlib, sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
try:
    found = {"sglang": version("sglang")}
    places = getattr(find_spec("sglang"), "submodule_search_locations", None) or []
    registries = [pathlib.Path(place, "srt", "models", "registry.py") for place in places]
    sources = [file.read_text("utf-8") for file in registries if file.is_file()]
    found["extensible"] = not sources or any(VARIABLE in source for source in sources)
except PackageNotFoundError:
    found = {"sglang": None}
if found["sglang"] and sys.argv[1] != "cpu":
    import torch
    found["cuda"] = torch.cuda.is_available()
print("\\n" + json.dumps(found))
""".replace("VARIABLE", repr(_PACKAGE_VARIABLE))


def examine(python: str | None = None, device: str = "auto") -> Environment:
    """Run a Python interpreter to find out its version of SGLang, and whether its torch finds a GPU.

    Args:
        python: The path of the interpreter; by default the one that runs this process.
        device: "cpu" or "cuda"; "auto" uses a GPU if there is one.

    Raises:
        UsageError: There is no such Python.
        BackendUnavailable: It has no SGLang, or finds no GPU although `device` is "cuda".
    """
    path = os.path.expanduser(python) if python else sys.executable
    found = _ask(path, device)
    if found.get("sglang") is None:
        raise BackendUnavailable(
            f"{path} has no SGLang: pip install sglang, or name a Python that has it with --python"
        )
    if device == "cuda" and not found.get("cuda"):
        raise BackendUnavailable(f"the torch of {path} finds no GPU: use --device cpu, or install torch with CUDA")
    where = "cuda" if found.get("cuda") else "cpu"
    return Environment(path, str(found["sglang"]), where, bool(found.get("extensible", True)))


def _ask(python: str, device: str) -> Mapping[str, Any]:
    # Without this, -c would search the current folder for modules first.
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    ask = [python, "-c", _QUESTIONS, device]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, errors="replace", env=env, timeout=300)
    except OSError as error:
        raise UsageError(f"cannot run {python}: {error.strerror or error}; name a Python with --python") from error
    except subprocess.TimeoutExpired:
        raise BackendUnavailable(f"{python} did not answer within 5 minutes: try again, or name another") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise BackendUnavailable(f"{python} cannot load torch: {reason}; fix it, or name another Python with --python")
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise UsageError(f"{python} is no Python: name one with --python") from None
    return found
