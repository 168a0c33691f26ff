"""How a PRM's input is laid out: from a question and steps to token ids, the last of which is where a score is read.

A layout is made from a table of a profile (`tts_tui/profiles`), where its keys are described. All these PRMs are
causal: the score of a step depends on nothing behind the place where it is read. So the ids up to there are all that is
needed, and the ids of a path begin with those of its parent: a cache of prefixes computes the new step alone.
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
    """The input of one PRM."""

    def ids(self, question: str, steps: Sequence[str], first: int = 0) -> Ids:
        """Ids that end where the last step's score is read.

        Args:
            question: As the user typed it.
            steps: Texts of all steps of the path, at least one; separators around them are left out.
            first: How many steps at the beginning are left out, for want of room.
        """
        ...


def make_layout(table: Mapping[str, Any], tokenizer: PRMTokenizer) -> Layout:
    """The layout that a profile describes.

    Args:
        table: `[layouts.NAME]` of a profile.
        tokenizer: The checkpoint's.

    Raises:
        BackendUnavailable: The tokenizer lacks what the layout is made of.
    """
    kinds: dict[str, type[TextLayout] | type[ChatLayout] | type[TurnsLayout]] = {
        "text": TextLayout,
        "chat": ChatLayout,
        "turns": TurnsLayout,
    }
    return kinds[table["kind"]](table, tokenizer)


class TextLayout:
    """Plain text: the question, then steps, each with a tag behind it (Math-Shepherd, Skywork, TRL)."""

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
        """See `Layout`."""
        opening = _fill(self._opening, "{question}", question.strip())
        ids = list(self._begin)
        if not self._joined:
            ids += self._tokenizer.plain(opening)
        for place in range(first, len(steps)):
            text = self._text(steps[place], place + 1)
            if place > first and self._blank:
                ids += self._tag
            if not self._joined:  # each is tokenized alone
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
    """One answer in a chat. With a tag, behind every step (Qwen); without, the score is the whole answer's."""

    def __init__(self, table: Mapping[str, Any], tokenizer: PRMTokenizer) -> None:
        self._tokenizer = tokenizer
        self._tag = _tag(table, tokenizer) if "tag" in table else None
        self._join: str = table.get("join", "\n\n")
        system = [("system", table["system"])] if "system" in table else []
        self._head, self._middle, self._tail = tokenizer.around([*system, ("user", None), ("assistant", None)])

    def ids(self, question: str, steps: Sequence[str], first: int = 0) -> Ids:
        """See `Layout`."""
        texts = [step.strip() for step in steps[first:]]
        start = (*self._head, *self._tokenizer.plain(question.strip()), *self._middle)
        if self._tag is None:
            return self._read((*start, *self._tokenizer.whole(self._join.join(texts)), *self._tail))
        return (*start, *(token for text in texts for token in (*self._tokenizer.plain(text), *self._tag)))

    def _read(self, ids: Ids) -> Ids:
        """Up to where transformers' classes read a whole sequence: its last token that is no padding."""
        end = len(ids)
        while end > 1 and ids[end - 1] == self._tokenizer.pad:
            end -= 1
        return ids[:end]


class TurnsLayout:
    """A chat in which every step is a turn of the user's, and `+` was answered to all before it (RLHFlow).

    The score is read where the answer to the last step would begin.
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
        """See `Layout`."""
        opening = _fill(_fill(self._first, "{question}", question.strip()), "{step}", steps[first].strip())
        ids = [*self._head, *self._tokenizer.plain(opening), *self._reply]
        for step in steps[first + 1 :]:
            ids += [*self._next, *self._tokenizer.plain(step.strip()), *self._reply]
        return tuple(ids)


def check_tokens(tokenizer: PRMTokenizer, head: Mapping[str, Any]) -> None:
    """Checks the two tokens whose probabilities a causal PRM's score is made of.

    Args:
        tokenizer: The checkpoint's.
        head: `[head]` of a profile: ids in `tokens`, and how they are written.

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
    """`text` in its place; braces and slots that stand in it are left as they are."""
    before, _, after = template.rpartition(slot)
    return before + text + after
