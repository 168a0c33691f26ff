"""The embedded policy: a small language model that is distributed in a Python package and runs in this process.

It needs neither a server nor the Hugging Face hub. See `docs/embedded-prm.md` for its accuracy by kind of problem.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tts_tui.backends.local import download, few_shot
from tts_tui.backends.local.policy import LocalPolicy


class EmbeddedPolicy(LocalPolicy):
    """A `LocalPolicy` on the embedded model, prompted with the most similar few-shot examples (`few_shot`).

    The model is downloaded by the first `start` only.

    Args:
        progress: A callback for download progress (`download.Progress`), called from another thread.
        options: Keyword arguments for `LocalPolicy`.

    Attributes:
        profile: The name of its profile (`tts_tui.profiles`).
        path: The folder of the model; known before `start`.
    """

    profile = "embedded"

    def __init__(self, *, progress: download.Progress | None = None, **options: Any) -> None:
        self.path: Path = download.model_path()
        self._progress = progress
        options.setdefault("name", download.EMBEDDED.title)
        super().__init__(self.path, messages=few_shot.messages, **options)

    async def start(self) -> None:
        """Load the model, after downloading it if it is not in the cache.

        Raises:
            BackendUnavailable: The model cannot be downloaded or loaded; the message explains what to do.
        """
        if not download.is_present():
            await asyncio.to_thread(download.pull, self._progress)
        await super().start()

    async def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a step given as text, as the model would generate them; see `EncodesText.encode`."""
        return self.step_ids(text)

    def step_ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of a step as the model would generate them; a text without a final newline ends the answer."""
        # The separator is two tokens when the model generates it, but a single other one when tokenized with the text.
        newline = self.ids_of("\n")
        end = newline + newline if text.endswith("\n") else (self.end_of_answer,)
        return self.ids_of(text.strip()) + end

    def ids_of(self, text: str) -> tuple[int, ...]:
        """Return the token ids of plain text."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def end_of_answer(self) -> int:
        """The id of the token that ends an answer."""
        return int(self._tokenizer.eos_token_id)
