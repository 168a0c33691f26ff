"""Layouts of a PRM's input: from a question and steps to token ids, whose last one is where the score is read.

A layout is made from a table of a profile (`tts_tui/profiles`), where its keys are described. All these PRMs are
causal: the score of a step does not depend on anything after the position where it is read. The ids up to there are
therefore sufficient, and the ids of a path start with those of its parent: with a prefix cache, only the new step is
computed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tts_tui.backends.prm.tokenizer import PRMTokenizer
from tts_tui.errors import BackendUnavailable

_NUMBERED = re.compile(r"\W*step\s*\d+\s*[:.)*]", re.IGNORECASE)
Ids = tuple[int, ...]


class Layout(Protocol):
    """The input format of one PRM."""

    def ids(self, question: str, steps: Sequence[str], first: int = 0) -> Ids:
        """Return ids that end where the last step's score is read.

        Args:
            question: The question as the user typed it.
            steps: The texts of all steps of the path, at least one; separators around them are stripped.
            first: The number of steps to leave out at the beginning, to fit the context.
        """
        ...


def make_layout(table: Mapping[str, Any], tokenizer: PRMTokenizer) -> Layout:
    """Make the layout that a profile describes.

    Args:
        table: The table `[layouts.NAME]` of a profile.
        tokenizer: The checkpoint's tokenizer.

    Raises:
        BackendUnavailable: The tokenizer lacks parts of the layout.
    """
    kinds: dict[str, type[TextLayout] | type[ChatLayout] | type[TurnsLayout]] = {
        "text": TextLayout,
        "chat": ChatLayout,
        "turns": TurnsLayout,
    }
    return kinds[table["kind"]](table, tokenizer)


class TextLayout:
    """A plain text layout: the question, then steps, each followed by a tag (Math-Shepherd, Skywork, TRL)."""

    def __init__(self, table: Mapping[str, Any], tokenizer: PRMTokenizer) -> None:
        self._tokenizer = tokenizer
        self._opening: str = table["opening"]
        self._joined = table.get("joined", False)
        self._numbered = table.get("numbered", False)
        self._lines = table.get("lines", "kept")
        self._between: str = table.get("between", "")
        self._blank = table.get("blank", False)
        self._tag = _tag(table, tokenizer)
        self._begin = _begin(table["bos"], tokenizer)

    def ids(self, question: str, steps: Sequence[str], first: int = 0) -> Ids:
        """Return ids that end where the last step's score is read; see `Layout.ids`."""
        opening = _fill(self._opening, "{question}", question.strip())
        ids = list(self._begin)
        if not self._joined:
            ids += self._tokenizer.plain(opening)
        for place in range(first, len(steps)):
            text = self._text(steps[place], place + 1)
            if place > first and self._blank:
                ids += self._tag
            if not self._joined:  # each part is tokenized separately
                ids += self._step(self._tokenizer.plain, text)
            elif place > first:
                ids += self._step(self._tokenizer.after, self._between + text)
            else:
                ids += self._step(self._tokenizer.plain, opening + text)
        return tuple(ids)

    def _text(self, step: str, number: int) -> str:
        text = step.strip()
        if self._lines == "spaces":
            text = text.replace("\n", " ")
        if self._numbered and not _NUMBERED.match(text):
            text = f"Step {number}: {text}"
        return text

    def _step(self, encode: Any, text: str) -> list[int]:
        lines = text.split("\n") if self._lines == "each" else [text]
        return [token for line in lines for token in (*(encode(line) if line else ()), *self._tag)]


class ChatLayout:
    """A chat layout with one answer.

    With a tag after every step, each step has a score (Qwen); without a tag, the score is that of the whole answer.
    """

    def __init__(self, table: Mapping[str, Any], tokenizer: PRMTokenizer) -> None:
        self._tokenizer = tokenizer
        self._tag = _tag(table, tokenizer) if "tag" in table else None
        self._join: str = table.get("join", "\n\n")
        system = [("system", table["system"])] if "system" in table else []
        self._head, self._middle, self._tail = tokenizer.around([*system, ("user", None), ("assistant", None)])

    def ids(self, question: str, steps: Sequence[str], first: int = 0) -> Ids:
        """Return ids that end where the last step's score is read; see `Layout.ids`."""
        texts = [step.strip() for step in steps[first:]]
        start = (*self._head, *self._tokenizer.plain(question.strip()), *self._middle)
        if self._tag is None:
            return self._read((*start, *self._tokenizer.whole(self._join.join(texts)), *self._tail))
        return (*start, *(token for text in texts for token in (*self._tokenizer.plain(text), *self._tag)))

    def _read(self, ids: Ids) -> Ids:
        """Truncate ids to where transformers' classes read a sequence: the last token that is not padding."""
        end = len(ids)
        while end > 1 and ids[end - 1] == self._tokenizer.pad:
            end -= 1
        return ids[:end]


class TurnsLayout:
    """A chat layout in which every step is a user turn, and all earlier ones were answered with `+` (RLHFlow).

    The score is read where the answer to the last step would start.
    """

    def __init__(self, table: Mapping[str, Any], tokenizer: PRMTokenizer) -> None:
        self._tokenizer = tokenizer
        self._first: str = table["first"]
        answer = tuple(table["answer_ids"])
        _check(tokenizer, table["answer"], answer)
        turns = [("user", None), ("assistant", None)] * 2
        self._head, self._reply, again, reply, _ = tokenizer.around(turns)
        if reply != self._reply:
            raise BackendUnavailable(
                f"the chat template of {tokenizer.source} treats the first turn unlike the next ones: take the "
                "checkpoint's own tokenizer files"
            )
        self._next = (*answer, *again)

    def ids(self, question: str, steps: Sequence[str], first: int = 0) -> Ids:
        """Return ids that end where the last step's score is read; see `Layout.ids`."""
        opening = _fill(_fill(self._first, "{question}", question.strip()), "{step}", steps[first].strip())
        ids = [*self._head, *self._tokenizer.plain(opening), *self._reply]
        for step in steps[first + 1 :]:
            ids += [*self._next, *self._tokenizer.plain(step.strip()), *self._reply]
        return tuple(ids)


def check_tokens(tokenizer: PRMTokenizer, head: Mapping[str, Any]) -> None:
    """Check the two tokens whose probabilities make up a causal PRM's score.

    Args:
        tokenizer: The checkpoint's tokenizer.
        head: The table `[head]` of a profile: the ids in `tokens` and their texts in `written`.

    Raises:
        BackendUnavailable: The tokenizer has other ids for them.
    """
    for text, token in zip(head["written"], head["tokens"], strict=True):
        _check(tokenizer, text, (token,))


def _tag(table: Mapping[str, Any], tokenizer: PRMTokenizer) -> Ids:
    text: str = table["tag"]
    if "tag_ids" not in table:
        return tokenizer.plain(text)
    ids = tuple(table["tag_ids"])
    _check(tokenizer, text, ids)
    return ids


def _check(tokenizer: PRMTokenizer, text: str, ids: Ids) -> None:
    if not tokenizer.ends(text, ids):
        raise BackendUnavailable(
            f"{tokenizer.source} has another vocabulary than this PRM: {text!r} should be {_words(ids)} in it and is "
            f"{_words(tokenizer.last(text)) or 'nothing'}; name the PRM that it is, as in hf:PATH@NAME "
            "(see `tts-tui profiles`)"
        )


def _words(ids: Sequence[int]) -> str:
    return f"token{'s' if len(ids) > 1 else ''} {' '.join(map(str, ids))}" if ids else ""


def _begin(rule: str, tokenizer: PRMTokenizer) -> Ids:
    if rule == "never" or (rule == "tokenizer" and tokenizer.bos is None):
        return ()
    if tokenizer.bos is None:
        raise BackendUnavailable(
            f"the tokenizer of {tokenizer.source} names no token that begins a text (bos_token), and this PRM's input "
            "begins with one: take the checkpoint's own tokenizer files"
        )
    return (tokenizer.bos,)


def _fill(template: str, slot: str, text: str) -> str:
    """Insert `text` at the last `slot` of `template`; braces and slots inside `text` are left unchanged."""
    before, _, after = template.rpartition(slot)
    return before + text + after
