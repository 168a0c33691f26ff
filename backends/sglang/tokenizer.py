"""Local copy of a served model's tokenizer, for servers that cannot apply a chat template themselves.

SGLang can apply one over HTTP since about 0.5.23. For older versions, the tokenizer is loaded from the path that the
server reports for its own: a folder on this machine, or a hub id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tts_tui.errors import BackendUnavailable, WrongServer


class LocalTokenizer:
    """A model's tokenizer and chat template, loaded in this process.

    Args:
        path: A folder or a hub id.

    Attributes:
        longest: The longest sequence in tokens that the tokenizer's configuration allows.

    Raises:
        BackendUnavailable: The tokenizer cannot be loaded.
        WrongServer: The tokenizer has no chat template.
    """

    def __init__(self, path: str) -> None:
        try:
            import transformers

            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        except Exception as error:  # damaged files and the hub's client may raise anything
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BackendUnavailable(f"its tokenizer {path} cannot be loaded here ({reason})") from error
        if self._tokenizer.chat_template is None:
            raise WrongServer(f"{path} has no chat template: serve an instruction-tuned model")
        self.longest = int(min(self._tokenizer.model_max_length, 2**31))

    def ids(self, chat: Sequence[dict[str, str]]) -> tuple[int, ...]:
        """Return the token ids of `chat` under the chat template, up to where the model's answer begins."""
        text = self._tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True)
        # The template writes the beginning-of-text token itself.
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def plain(self, text: str) -> tuple[int, ...]:
        """Return the token ids of `text`, without special tokens."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def texts(self, prefixes: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each sequence of ids, without special tokens, as the server's streams have it."""
        return [self._tokenizer.decode(list(ids), skip_special_tokens=True) for ids in prefixes]
