"""Helpers for loading any model: choice of device, required files in a folder, and messages for failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from tts_tui.errors import BackendUnavailable, ModelNotFound

T = TypeVar("T")


class Loading(Generic[T]):
    """A cancellable load that runs in a thread.

    The thread of a cancelled load cannot be stopped: its result is discarded, and the next load waits for it.

    Args:
        make: A blocking function that loads and returns the result.
        discard: A function that frees a result whose load was cancelled.
    """

    def __init__(self, make: Callable[[], T], discard: Callable[[T], None]) -> None:
        self._make, self._discard = make, discard
        self._work: asyncio.Task[T] | None = None

    async def done(self) -> T:
        """Load and return the result, after an earlier cancelled load has finished."""
        if self._work is not None and not self._work.done():
            await asyncio.wait([self._work])
        work = self._work = asyncio.create_task(asyncio.to_thread(self._make))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(self._unwanted)
            raise

    def _unwanted(self, work: asyncio.Task[T]) -> None:
        if not work.cancelled() and work.exception() is None:
            self._discard(work.result())


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class name if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def pick_device(torch: Any, device: str | None, dtype: str | None) -> tuple[Any, Any]:
    """Return the device and dtype, by default the best ones available.

    Raises:
        BackendUnavailable: There is no such device or dtype.
    """
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise BackendUnavailable(f"{device!r} is no device: use cpu, cuda or cuda:N") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("there is no CUDA device, or torch was installed without CUDA: use device cpu")
    name = dtype or ("float32" if found.type == "cpu" else "bfloat16")
    if name not in ("float32", "bfloat16", "float16"):
        raise BackendUnavailable(f"{name!r} is no dtype: use float32, bfloat16 or float16")
    return found, getattr(torch, name)


def folder_of(source: str) -> Path | None:
    """Return the folder that `source` names; None for a hub id.

    Raises:
        ModelNotFound: `source` is neither, or the folder contains no model.
    """
    folder = Path(source)
    try:
        there = folder.is_dir()
    except OSError as error:
        raise ModelNotFound(f"{source[:100]} cannot be looked into: {error.strerror or error}") from error
    if there:
        if not (folder / "config.json").is_file():
            raise ModelNotFound(f"{folder} holds no model: it has no config.json")
        return folder
    if folder.is_absolute() or source.startswith(".") or source.count("/") != 1:
        raise ModelNotFound(f"there is no folder {source}: give a model's folder, or a hub id as ORG/NAME")
    return None


def name_of(source: str) -> str:
    """Return a model's name: the last part of its hub id or folder; for a folder in the hub's cache, of its hub id."""
    parts = Path(source).resolve().parts
    cached = next((part for part in parts if part.startswith("models--")), "")
    return cached.rpartition("--")[2] or parts[-1]


def check_weights(folder: Path) -> None:
    """Check that a folder has weights in a format that cannot run code.

    Raises:
        BackendUnavailable: It has no weights, or only pickled ones.
    """
    if any(folder.glob("*.safetensors")):
        return
    if has_pickle(folder):
        raise BackendUnavailable(
            f"{folder} has only pickled weights, which can run code: convert them to safetensors first"
        )
    raise BackendUnavailable(f"{folder} has no weights: no *.safetensors file is in it")


def has_pickle(folder: Path) -> bool:
    """Return whether a folder has weights that were pickled by torch."""
    return any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))


def load_error_message(source: str, error: BaseException) -> str:
    """Return the message for a model that could not be loaded: the reason, and the remedy where it is known."""
    kinds = {type(link).__name__ for link in _chain(error)}
    if "GatedRepoError" in kinds:
        return f"{source} is given out at the hub to those who have agreed to its terms: do so there, and set HF_TOKEN"
    if "RepositoryNotFoundError" in kinds:
        return f"the hub has no {source}: check its name, or set HF_TOKEN if it is private"
    if "LocalEntryNotFoundError" in kinds or "OfflineModeIsEnabled" in kinds:
        return f"{source} is not on this machine, and the hub cannot be reached: download it, and give its folder"
    if "weights_only" in str(error):
        return f"the pickled weights of {source} hold more than tensors, which could run code: they are not loaded"
    if "header" in str(error) and "SafetensorError" in kinds:
        return f"a file of {source} is damaged or not whole ({first_line(error)}): download it again"
    if "trust_remote_code" in str(error):
        return f"{source} is of a kind that transformers does not know, and code of a checkpoint is never run"
    at_hub = "from the hub (offline? then download it and give its folder)"
    return f"{source} cannot be loaded {'from its folder' if Path(source).is_dir() else at_hub}: {first_line(error)}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def quietly(transformers: Any) -> Iterator[None]:
    """Suppress progress bars and log messages of transformers, which would disturb the display."""
    log = transformers.utils.logging
    bars, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
