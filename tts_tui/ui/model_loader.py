"""The policy and the reward model of a session of the terminal UI: loaded once, when the first search needs them."""

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
"""Kinds of policies that are connected to at once, for that costs nothing and says whether they answer."""


def quieten() -> None:
    """Keeps what libraries say about themselves off the screen, unless someone looks for a fault."""
    if os.environ.get("TTS_TUI_DEBUG"):
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


class ModelLoader:
    """Loads the models when they are needed, and says how they are.

    Args:
        solver: Makes and checks plans; its models are not loaded yet.
        policy, prm: Their specs, as the user gave them.

    Attributes:
        said: How the models are, a phrase.
        trouble: Why they could not be had last, a sentence; empty if they could.
        ready: Whether the policy is loaded, or its server answered.
        loading: Whether that is under way; a thread that loads cannot be stopped.
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
        """Whether the policy is on a server."""
        return self.policy.partition(":")[0] in SERVERS

    @property
    def embedded(self) -> bool:
        """Whether the embedded model is needed."""
        return download.EMBEDDED.name in (self.policy, self.prm)

    def _first_words(self) -> str:
        if self.remote:
            return "not asked yet"
        if self.embedded and not download.is_present():
            size = download.EMBEDDED.download_bytes / 1e6
            return f"not here yet: {size:.0f} MB are taken once, at the first problem"
        return "here; loaded at the first problem"

    async def load(self) -> Solver:
        """The solver, with the policy loaded. All who ask wait for one loading, which goes on whoever stops waiting.

        Raises:
            TTSError: It cannot be had; `trouble` says the same.
        """
        if not self.ready and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._try())
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, if nobody waits
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
        # What libraries and models made stays to the end: to look through it again would hold up streams.
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
        """Frees them."""
        if self.ready:
            self.ready = False
            await self.solver.__aexit__(None, None, None)
