"""What `tts-tui serve` starts: SGLang's server, with the flags that a search needs, on a CPU or on GPUs.

SGLang pins many packages, so it may live in another environment than this package: everything here runs whatever
Python it is told to, and imports nothing of SGLang. `backends/sglang/process.py` runs what is decided here.

How a process reward model is served depends on what its checkpoint says it is, see `reward_flags`.
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
    "--sleep-on-idle",  # else an idle server keeps a core busy
)
_CPU_ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "OMP_NUM_THREADS": "1",  # several threads that wait for a busy core are many times slower than one
    "TORCHDYNAMO_DISABLE": "1",  # else the first request with a penalty compiles for half a minute
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
"""Classes that SGLang has not, or not right: it loads ours, which are in `served/tts_tui_prms`."""
_VALUE_HEAD = "v_head.summary.weight"
_POOLED = ("ForSequenceClassification", "ForRewardModel")
_OUR_PLACE, _OUR_PACKAGE = Path(__file__).parents[1] / "served", "tts_tui_prms"
_PACKAGE_VARIABLE = "SGLANG_EXTERNAL_MODEL_PACKAGE"


class Environment(Struct, frozen=True):
    """A Python that has SGLang.

    Attributes:
        python: Its path.
        sglang: Version of its SGLang.
        device: "cpu" or "cuda": what the server will compute on.
        extensible: Whether it loads classes of models that it has not.
    """

    python: str
    sglang: str
    device: str
    extensible: bool = True


class Launch(Struct, frozen=True):
    """One server, ready to be started.

    Attributes:
        argv: The command.
        env: Its environment.
        host: Where it listens.
        port: On which port.
        log: File that its output goes to.
        api_key: What clients must send; neither in `argv` nor in `env`, where other users could read it.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    host: str
    port: int
    log: Path
    api_key: str | None = None

    @property
    def client_host(self) -> str:
        """The host that clients on this machine use."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    @property
    def url(self) -> str:
        """The address for clients on this machine."""
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
    """Decides how to serve `model`.

    Args:
        kind: As a policy, or as a process reward model.
        model: A folder or a hub id; see `resolve`.
        environment: What runs it; see `examine`.
        host: Where to listen.
        port: On which port.
        context_length: Longest sequence; by default what the model says.
        api_key: What clients must send.
        allow_pickle: Also serve a reward model whose weights are pickled, which can run code.
        return_hidden_states: Have a policy return hidden states on a GPU, too. On a CPU it always does, at no
            cost; on a GPU, CUDA graphs need more memory for it.
        extra: More flags for SGLang.

    Raises:
        UsageError: `extra` holds a flag that must not be passed on, or the model cannot be served so.
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
    """Checks the flags that users pass on to SGLang.

    Raises:
        UsageError: One of them must not be passed on, or they are no flags.
    """
    if extra and not extra[0].startswith("-"):
        raise UsageError(f"one model is served at a time, {extra[0]!r} is too much: flags for SGLang come after --")
    for word in extra:
        flag = word.partition("=")[0]
        for refused, sentence in _REFUSED.items():
            # SGLang takes a flag's unique beginning for the flag.
            if flag == refused or (len(flag) > 6 and refused.startswith(flag)):
                raise UsageError(sentence)


def reward_flags(name: str, model: str) -> tuple[str, ...]:
    """Flags for a reward model whose configuration names the class `name`.

    Raises:
        UsageError: Such a checkpoint is not served.
    """
    if name in OURS:  # the configuration may say otherwise, see `architecture`
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
    """Flags for the files that weights may be in.

    Raises:
        UsageError: They are pickled, and that is not allowed.
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
    """The environment in which SGLang finds our classes of models.

    Raises:
        BackendUnavailable: That SGLang is too old for it.
        UsageError: The user has it load classes of their own.
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
    # Behind the user's own folders, so that nothing of theirs is hidden.
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    return {_PACKAGE_VARIABLE: _OUR_PACKAGE, "PYTHONPATH": os.pathsep.join([*places, str(_OUR_PLACE)])}


# -- the model ---------------------------------------------------------------------------------------------------------


def resolve(kind: Kind, model: str) -> str:
    """The folder or hub id of `model`, checked as far as that can be done without loading it.

    Raises:
        ModelNotFound: There is no such folder, or no model in it.
        UsageError: The embedded reward model is meant, which needs no server.
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
    """The class that the configuration of `model` names; "" if it names none.

    A value head is known by its tensors, for a configuration may name the class that it was put on.

    Raises:
        BackendUnavailable: The configuration cannot be read.
    """
    try:
        config: Any = json.loads(_file(model, "config.json").read_text(encoding="utf-8"))
        name = str((config.get("architectures") or [""])[0])
    except Exception as error:  # whatever the hub's client raises
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
    """Names of tensors, as far as they are listed: in an index, or in a file of this machine."""
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
    """Asks a Python for its SGLang, and its torch for a GPU.

    Args:
        python: Its path; by default the one that runs this.
        device: "cpu" or "cuda"; "auto" takes a GPU where there is one.

    Raises:
        UsageError: There is no such Python.
        BackendUnavailable: It has no SGLang, or no GPU though one is wanted.
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
    # -c would look for modules in the current folder first.
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
        raise BackendUnavailable(f"{python} cannot load torch: {reason}; mend it, or name another Python with --python")
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise UsageError(f"{python} is no Python: name one with --python") from None
    return found
