"""The embedded policy: a small language model that comes with a Python package and runs in this process.

It needs no server and no hub. `docs/embedded-prm.md` says how well it does on which problems.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tts_tui.backends.local import download, few_shot
from tts_tui.backends.local.policy import LocalPolicy


class EmbeddedPolicy(LocalPolicy):
    """`LocalPolicy` on the pulled model, prompted with the likeliest shots (`tts_tui.backends.local.few_shot`).

    The model is downloaded at the first `start`, and never again.

    Args:
        progress: Told about the download (`pull.Progress`); it is called from another thread.
        options: As `LocalPolicy` takes them.

    Attributes:
        profile: Name of what is known of it (`tts_tui.profiles`).
        path: Folder of the model; known before `start`.
    """

    profile = "embedded"

    def __init__(self, *, progress: download.Progress | None = None, **options: Any) -> None:
        self.path: Path = download.model_path()
        self._progress = progress
        options.setdefault("name", download.EMBEDDED.title)
        super().__init__(self.path, messages=few_shot.messages, **options)

    async def start(self) -> None:
        """Loads the model, after downloading it if the cache has none.

        Raises:
            BackendUnavailable: It cannot be had; the message says what to do.
        """
        if not download.is_present():
            await asyncio.to_thread(download.pull, self._progress)
        await super().start()

    async def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a step in words, as the model would have written it; see `EncodesText.encode`."""
        return self.step_ids(text)

    def step_ids(self, text: str) -> tuple[int, ...]:
        """A step as the model would have written it: what ends no line ends the answer."""
        # The separator is two tokens where the model writes it, and another one where it is tokenized with the text.
        newline = self.ids_of("\n")
        end = newline + newline if text.endswith("\n") else (self.end_of_answer,)
        return self.ids_of(text.strip()) + end

    def ids_of(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece of plain text."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def end_of_answer(self) -> int:
        """Id of the token that ends an answer."""
        return int(self._tokenizer.eos_token_id)
