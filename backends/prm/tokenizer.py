"""A PRM's tokenizer, which treats text as plain text: special tokens are never recognised in a question or a step.

Inputs are assembled from ids: those of plain text, those of named tokens, and those of the text that the chat template
puts around messages. Encoding the complete text at once would merge tokens across boundaries, and would mistake a tag
inside a step for the real one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tts_tui.errors import BackendUnavailable

_SLOT = "slot{}of a message"
_MOST_KEPT = 2048
"""The number of texts whose ids are cached: the steps of a path are encoded again with each of its next steps."""


class PRMTokenizer:
    """The tokenizer of one checkpoint.

    Args:
        fast: A transformers tokenizer, for its chat template and the names of its special tokens.
        raw: The tokenizer of the checkpoint's tokenizer.json; by default the backend of `fast`.
        source: The folder or hub id that it was loaded from, for error messages.
        pad: The id of the token that the model treats as padding, if any.

    Attributes:
        source: The folder or hub id that it was loaded from.
        bos: The id of the token that begins a text, or None.
        pad: The id of the token that the model treats as padding, or None.
    """

    def __init__(self, fast: Any, raw: Any = None, source: str = "the tokenizer", pad: int | None = None) -> None:
        self.source = source
        self._fast = fast
        self._raw = raw if raw is not None else fast.backend_tokenizer
        self._raw.no_truncation()
        self._raw.no_padding()
        self._text = _without_added_tokens(self._raw)
        self.bos: int | None = fast.bos_token_id
        self.pad = pad
        # SentencePiece prepends a space to a text, so text that follows a tag is encoded after a newline instead.
        self._anchor = self._ids("\n")
        self.plain = lru_cache(_MOST_KEPT)(self._ids)
        self.after = lru_cache(_MOST_KEPT)(self._after)

    @classmethod
    def load(cls, path: str) -> PRMTokenizer:
        """Load the tokenizer of a folder or a hub id.

        Raises:
            BackendUnavailable: It cannot be loaded.
        """
        import transformers
        from tokenizers import Tokenizer
        from transformers.utils import cached_file

        try:
            fast = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            # As shipped: transformers rebuilds some tokenizer classes with a different treatment of spaces.
            file = cached_file(path, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
            raw = Tokenizer.from_file(file) if file else fast.backend_tokenizer
            config = cached_file(path, "config.json", _raise_exceptions_for_missing_entries=False)
            pad = json.loads(Path(config).read_text("utf-8")).get("pad_token_id") if config else None
        except Exception as error:  # whatever the files and the hub's client raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BackendUnavailable(f"the tokenizer of {path} cannot be loaded: {reason}") from error
        if raw.get_vocab_size() < 50:  # transformers makes up one from just its own tokens
            raise BackendUnavailable(f"{path} has no tokenizer: put the checkpoint's own tokenizer.json there")
        return cls(fast, raw, path, pad if isinstance(pad, int) else None)

    def whole(self, text: str) -> tuple[int, ...]:
        """Return the ids of a long plain text, without caching them."""
        return self._ids(text)

    def ends(self, text: str, ids: Sequence[int]) -> bool:
        """Return whether `text`, with tags recognised, encodes to ids that end with `ids` when it follows a letter."""
        found = self._raw.encode("a" + text, add_special_tokens=False).ids
        return bool(ids) and found[-len(ids) :] == list(ids)

    def last(self, text: str) -> list[int]:
        """Return the ids of `text` when it follows a letter, for error messages."""
        return list(self._raw.encode("a" + text, add_special_tokens=False).ids[1:])

    def around(self, roles: Sequence[tuple[str, str | None]]) -> list[tuple[int, ...]]:
        """Return the ids of the text that the chat template puts around messages.

        Args:
            roles: The role and content of each message; a content of None is left open.

        Returns:
            The ids before the first open content, between open contents, and after the last: one tuple more than there
            are open contents.

        Raises:
            BackendUnavailable: There is no chat template, or it does not insert contents unchanged and in order, or
                its text would merge with theirs.
        """
        slots = [_SLOT.format(number) for number in range(len(roles))]
        chat = [
            {"role": role, "content": slot if text is None else text}
            for slot, (role, text) in zip(slots, roles, strict=True)
        ]
        written = self._render(chat)
        literals = []
        rest = written
        for slot, (_, text) in zip(slots, roles, strict=True):
            if text is None:
                before, found, rest = rest.partition(slot)
                if not found or slot in rest:
                    raise self._unfit("does not show every message once, in order")
                literals.append(before)
        literals.append(rest)
        parts = [tuple(self._raw.encode(text, add_special_tokens=False).ids) for text in literals]
        self._check_borders(
            written, parts, [slot for slot, (_, text) in zip(slots, roles, strict=True) if text is None]
        )
        return parts

    def _render(self, chat: list[dict[str, str]]) -> str:
        if getattr(self._fast, "chat_template", None) is None:
            raise BackendUnavailable(
                f"{self.source} has no chat template, which this PRM's input is made with: take the checkpoint's own "
                "tokenizer files, chat_template.jinja with them"
            )
        try:
            return str(self._fast.apply_chat_template(chat, tokenize=False, add_generation_prompt=False))
        except Exception as error:  # whatever a template raises
            raise self._unfit(f"fails: {(str(error).splitlines() or [type(error).__name__])[0]}") from error

    def _check_borders(self, written: str, parts: list[tuple[int, ...]], slots: list[str]) -> None:
        """Check that the tokenizer does not merge tokens across the boundaries of messages."""
        built = list(parts[0])
        for slot, part in zip(slots, parts[1:], strict=True):
            built += [*self._ids(slot), *part]
        if built != self._raw.encode(written, add_special_tokens=False).ids:
            raise self._unfit("runs into the text of the messages, so that ids cannot be put together piece by piece")

    def _unfit(self, why: str) -> BackendUnavailable:
        return BackendUnavailable(
            f"the chat template of {self.source} {why}: take the checkpoint's own tokenizer files"
        )

    def _ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text at the beginning of a text."""
        return tuple(self._text.encode(text, add_special_tokens=False).ids)

    def _after(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text that follows a tag."""
        if len(self._anchor) == 1:
            return self._ids(text)
        return self._ids("\n" + text)[len(self._anchor) :]


def _without_added_tokens(raw: Any) -> Any:
    """Return a copy of the tokenizer without special tokens, which encodes `<extra_0>` as nine plain characters."""
    from tokenizers import Tokenizer

    data = json.loads(raw.to_str())
    data.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    return Tokenizer.from_str(json.dumps(data))
