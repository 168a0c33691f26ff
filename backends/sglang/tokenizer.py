"""The tokenizer of a served model, loaded here: for servers that cannot apply a chat template themselves.

SGLang applies one over HTTP since about 0.5.23. Before, the tokenizer is taken from where the server says that it took
it: a folder of this machine, or a hub id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tts_tui.errors import BackendUnavailable, WrongServer


class LocalTokenizer:
    """A model's tokenizer and chat template.

    Args:
        path: A folder or a hub id.

    Raises:
        BackendUnavailable: It cannot be had.
        WrongServer: It has no chat template.
    """

    def __init__(self, path: str) -> None:
        try:
            import transformers

            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        except Exception as error:  # whatever the files and the hub's client raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BackendUnavailable(f"its tokenizer {path} cannot be loaded here ({reason})") from error
        if self._tokenizer.chat_template is None:
            raise WrongServer(f"{path} has no chat template: serve an instruction-tuned model")
        self.longest = int(min(self._tokenizer.model_max_length, 2**31))

    def ids(self, chat: Sequence[dict[str, str]]) -> tuple[int, ...]:
        """Ids of a chat that the model is to answer."""
        text = self._tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True)
        # The template writes the beginning-of-text token itself.
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def plain(self, text: str) -> tuple[int, ...]:
        """Ids of a plain text."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def texts(self, prefixes: Sequence[Sequence[int]]) -> list[str]:
        """Texts of many sequences of ids, special tokens left out as the server leaves them out."""
        return [self._tokenizer.decode(list(ids), skip_special_tokens=True) for ids in prefixes]
