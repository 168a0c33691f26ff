"""The policy and the reward model of a terminal UI session, loaded once, when the first search needs them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import warnings

from tts_tui.backends.local import download
from tts_tui.errors import TTSError
from tts_tui.formatting import one_line, percent
from tts_tui.solver import Solver

SERVERS = ("sglang", "openai")
"""Kinds of policies that are connected to at startup: it costs nothing and shows whether the server answers."""


def quieten() -> None:
    """Keep the log output of libraries off the screen, unless debugging is on."""
    if os.environ.get("TTS_TUI_DEBUG"):
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


class ModelLoader:
    """A lazy loader of the models that also reports their state.

    Args:
        solver: The solver that makes and checks plans; its models are not loaded yet.
        policy, prm: The model specs as the user gave them.

    Attributes:
        said: The state of the models as a phrase.
        trouble: Why the last attempt to load failed, as a sentence; empty if it did not.
        ready: Whether the policy is loaded, or its server has answered.
        loading: Whether loading is in progress; a thread that loads cannot be stopped.
    """

    def __init__(self, solver: Solver, policy: str, prm: str) -> None:
        self.solver = solver
        self.policy, self.prm = policy, prm
        self.ready = self.loading = False
        self.trouble = ""
        self._task: asyncio.Task[None] | None = None
        self.said = self._first_words()

    @property
    def remote(self) -> bool:
        """True if the policy is on a server."""
        return self.policy.partition(":")[0] in SERVERS

    @property
    def embedded(self) -> bool:
        """True if the embedded model is needed."""
        return download.EMBEDDED.name in (self.policy, self.prm)

    def _first_words(self) -> str:
        if self.remote:
            return "not asked yet"
        if self.embedded and not download.is_present():
            size = download.EMBEDDED.download_bytes / 1e6
            return f"not here yet: {size:.0f} MB are taken once, at the first problem"
        return "here; loaded at the first problem"

    async def load(self) -> Solver:
        """Return the solver with its policy loaded.

        All callers share one loading task, which continues even if a caller stops waiting.

        Raises:
            TTSError: The models cannot be loaded; `trouble` holds the same message.
        """
        if not self.ready and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._try())
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # retrieve it
        if self._task is not None:
            await asyncio.shield(self._task)
        return self.solver

    async def _try(self) -> None:
        self.loading, self.trouble = True, ""
        try:
            await self._load()
        except BaseException as error:
            self.said = "does not answer" if self.remote else "could not be loaded"
            self.trouble = str(error) if isinstance(error, TTSError) else f"unexpected {type(error).__name__}: {error}"
            raise
        finally:
            self.loading = False
        self.ready = True
        self.said = "answers" if self.remote else "loaded"
        if ":" in self.prm:
            self.said += ", the reward model comes when a plan needs it"
        # Objects made by libraries and models live until the end: scanning them for garbage would stall streams.
        gc.collect()
        gc.freeze()

    async def _load(self) -> None:
        quieten()
        if self.embedded and not download.is_present():
            await asyncio.to_thread(download.pull, self._progress)
        self.said = "connecting …" if self.remote else "loading …"
        await self.solver.__aenter__()

    def _progress(self, message: str, done: int | None, total: int | None) -> None:
        share = f" {percent(done / total)}" if done is not None and total else ""
        self.said = f"{one_line(message, 60)}{share}"

    async def close(self) -> None:
        """Free the models."""
        if self.ready:
            self.ready = False
            await self.solver.__aexit__(None, None, None)
