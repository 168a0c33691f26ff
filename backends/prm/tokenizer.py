"""A PRM's tokenizer, used so that text stays text: no token with a meaning is ever read out of a question or a step.

Inputs are put together from ids: of plain text, of tokens that are named, and of what the chat template writes around
messages. Encoding the finished text as a whole would merge text across borders, and would take a tag that stands in a
step for the real one.
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
"""Texts whose ids are kept: the steps of a path are encoded again with each of its next steps."""


class PRMTokenizer:
    """The tokenizer of one checkpoint.

    Args:
        fast: A transformers tokenizer, for its chat template and the names of its special tokens.
        raw: What stands in the checkpoint's tokenizer.json; by default what `fast` is made of.
        source: Where it is from, for messages.

    Attributes:
        source: As given.
        bos: Id of the token that begins a text, None if it has none.
        pad: Id of the token that the model takes for padding, None if it takes none.
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
        # Sentencepiece puts a blank before a text: what follows a tag is encoded behind a line feed instead.
        self._anchor = self._ids("\n")
        self.plain = lru_cache(_MOST_KEPT)(self._ids)
        self.after = lru_cache(_MOST_KEPT)(self._after)

    @classmethod
    def load(cls, path: str) -> PRMTokenizer:
        """Loads the tokenizer of a folder or a hub id.

        Raises:
            BackendUnavailable: It cannot be had.
        """
        import transformers
        from tokenizers import Tokenizer
        from transformers.utils import cached_file

        try:
            fast = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            # As the checkpoint ships it: transformers builds some classes anew, with spaces treated differently.
            file = cached_file(path, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
            raw = Tokenizer.from_file(file) if file else fast.backend_tokenizer
            config = cached_file(path, "config.json", _raise_exceptions_for_missing_entries=False)
            pad = json.loads(Path(config).read_text("utf-8")).get("pad_token_id") if config else None
        except Exception as error:  # whatever the files and the hub's client raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BackendUnavailable(f"the tokenizer of {path} cannot be loaded: {reason}") from error
        if raw.get_vocab_size() < 50:  # transformers makes one out of nothing but its own tokens
            raise BackendUnavailable(f"{path} has no tokenizer: put the checkpoint's own tokenizer.json there")
        return cls(fast, raw, path, pad if isinstance(pad, int) else None)

    def whole(self, text: str) -> tuple[int, ...]:
        """Ids of a long plain text, which are not kept."""
        return self._ids(text)

    def ends(self, text: str, ids: Sequence[int]) -> bool:
        """Whether `text`, tags in it meant as such, ends with `ids` when it follows a letter."""
        found = self._raw.encode("a" + text, add_special_tokens=False).ids
        return bool(ids) and found[-len(ids) :] == list(ids)

    def last(self, text: str) -> list[int]:
        """The last ids of `text` behind a letter, for messages."""
        return list(self._raw.encode("a" + text, add_special_tokens=False).ids[1:])

    def around(self, roles: Sequence[tuple[str, str | None]]) -> list[tuple[int, ...]]:
        """What the chat template writes around messages, as ids.

        Args:
            roles: Role and content of each message; a content of None is left open.

        Returns:
            One more than there are open contents: what stands before the first, between them, and behind the last.

        Raises:
            BackendUnavailable: There is no chat template, or it does not show contents as they are, in order, or its
                text would merge with theirs.
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
        """Refuses a tokenizer that merges across the borders of messages."""
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
        """Ids of plain text that stands at the beginning."""
        return tuple(self._text.encode(text, add_special_tokens=False).ids)

    def _after(self, text: str) -> tuple[int, ...]:
        """Ids of plain text that follows a tag."""
        if len(self._anchor) == 1:
            return self._ids(text)
        return self._ids("\n" + text)[len(self._anchor) :]


def _without_added_tokens(raw: Any) -> Any:
    """The same tokenizer, to which `<extra_0>` is nine letters."""
    from tokenizers import Tokenizer

    data = json.loads(raw.to_str())
    data.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    return Tokenizer.from_str(json.dumps(data))
