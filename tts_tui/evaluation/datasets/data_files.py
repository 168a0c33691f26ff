r"""Problems and reference answers from a JSON Lines file, whatever its columns are called.

Public data sets agree on little: the problem is `problem`, `question` or `Question`, the answer `answer`, `Answer`,
`final_answer` or `Correct Answer`. Column names are compared without case, spaces and underscores. A reference answer
comes from an answer column only, never from a solution, and where several columns may be meant the user is asked.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from tts_tui.answers.canonical import boxed
from tts_tui.errors import UnknownName, UsageError
from tts_tui.files import open_regular

MOST_BYTES = 4_000_000
"""Longest line of a file; no model has a context for more."""
_LONG = 300
"""Characters from which an answer may well be a solution."""

PROBLEM_COLUMNS = ("problem", "question", "prompt")
ANSWER_COLUMNS = (
    "answer", "final_answer", "expected_answer", "correct_answer", "reference_answer", "gold_answer", "ground_truth",
    "extracted_groundtruth",
)  # fmt: skip
_IDS = ("unique_id", "id", "problem_idx", "question_id", "record_id")
_SUBJECTS = ("subject", "type", "subfield", "category", "subdomain")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Item(Struct, frozen=True):
    """One problem.

    Attributes:
        id: Its name in this data set.
        problem: What is asked, with the options of a multiple-choice question.
        answer: The right answer, as the data set writes it; the letter of a multiple-choice question.
        level, subject: As the data set has them; else empty.
        family: Of a problem made by program; else empty.
        tolerance: How far a number may be from the answer and still be right.
    """

    id: str
    problem: str
    answer: str
    level: str = ""
    subject: str = ""
    family: str = ""
    tolerance: float = 0.0


class Columns(Struct, frozen=True):
    """Columns of a data file that the user chose; None for those that are found by their names."""

    problem: str | None = None
    answer: str | None = None

    def refuse(self, what: str) -> None:
        """Refuse columns where no data file is read.

        Args:
            what: What is read instead.

        Raises:
            UsageError: A column is chosen.
        """
        for option, column in (("--problem-column", self.problem), ("--answer-column", self.answer)):
            if column is not None:
                raise UsageError(f"{option} is for a data file, not for {what}: leave it out")


BY_NAME = Columns()
"""No column is chosen."""


class DataFile:
    """A file with one JSON object per line, each with a problem and an answer.

    Args:
        path: The file.
        columns: Columns that the user chose.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self._columns = columns
        self._seen: dict[str, None] = {}

    def __iter__(self) -> Iterator[tuple[str, Item]]:
        """Yield where each problem stands ("line 3 of mine.jsonl") and the problem.

        Text or answer are empty where the line has none.

        Raises:
            UsageError: The file cannot be read, a line is no problem, or several columns may be meant.
        """
        for place, (number, row) in enumerate(_objects(self.path)):
            where = f"line {number} of {self.path}"
            self._seen |= dict.fromkeys(row)
            yield where, self._item(row, f"{self.path.stem}-{place:04d}", where)

    def why_no_answer(self) -> UsageError | None:
        """Explain why none of the lines read so far has an answer; None if their columns are not the reason."""
        chosen = self._columns.answer
        if not self._seen or _named(self._seen, [chosen] if chosen is not None else ANSWER_COLUMNS):
            return None
        if chosen is not None:
            return UnknownName(f"column of {self.path.name}", chosen, self._seen)
        return UsageError(
            f"{self.path} has no answer column, such as answer or final_answer: it has {', '.join(self._seen)}; say "
            "which one holds the answers with --answer-column"
        )

    def _item(self, row: Mapping[str, Any], place: str, where: str) -> Item:
        fields = fields_of(row)
        problem = problem_of(row, self._columns.problem, where)
        answer = _stated(_pick(row, ANSWER_COLUMNS, self._columns.answer, "--answer-column", where) or "")
        problem, answer = _with_options(problem, answer, fields)
        return Item(
            _first(fields, _IDS) or place,
            problem,
            answer,
            _first(fields, ("level",)),
            _first(fields, _SUBJECTS),
            tolerance=_tolerance(fields),
        )


def looks_like_solution(answer: str) -> bool:
    """Whether an answer is so long, or has so many lines, that it may be a whole solution."""
    return len(answer) > _LONG or ("\n" in answer and "\\begin" not in answer)


# --- lines ------------------------------------------------------------------------------------------------------------


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with open_regular(path) as file:
            number = 0
            while line := file.readline(MOST_BYTES + 1):
                number += 1
                if len(line) > MOST_BYTES:
                    raise UsageError(f"line {number} of {path} is larger than {MOST_BYTES // 1_000_000} MB: no problem")
                if line.strip(b"\xef\xbb\xbf \t\r\n"):
                    yield number, _object(line, f"line {number} of {path}")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        stored = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not text: it is not in UTF-8") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{where} is no JSON: write one object a line, with a problem and an answer") from None
    if not isinstance(stored, dict):
        raise UsageError(f"{where} is no object: write one a line, with a problem and an answer")
    return stored


# --- columns ----------------------------------------------------------------------------------------------------------


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row by the plain names of its columns, in lower case and without spaces and underscores."""
    return {_plain(key): value for key, value in reversed(list(row.items()))}


def problem_of(row: Mapping[str, Any], chosen: str | None, where: str) -> str:
    """The problem of a row, which may be blank.

    Args:
        row: The row.
        chosen: The column that the user chose.
        where: The row's place, for errors.

    Raises:
        UsageError: No column, or more than one, may hold it.
    """
    texts = {key: value for key, value in row.items() if isinstance(value, str)}
    problem = _pick(texts, PROBLEM_COLUMNS, chosen, "--problem-column", where)
    if problem is None:
        raise UsageError(
            f"{where} has no problem: its columns are {', '.join(row) or 'none'}, and none of them is "
            f"{chosen or ', '.join(PROBLEM_COLUMNS)}; choose one with --problem-column"
        )
    return problem


def _plain(name: str) -> str:
    """A column's name in lower case, letters and digits only: `Final Answer` and `final_answer` are one."""
    return "".join(filter(str.isalnum, name.casefold()))


def _named(row: Collection[str], names: Collection[str]) -> list[str]:
    """The columns with one of these names: those that are spelled so, else those that differ in case or spacing."""
    if len(names) == 1 and (exact := [key for key in row if key in names]):
        return exact
    wanted = {_plain(name) for name in names}
    return [key for key in row if _plain(key) in wanted]


def _pick(row: Mapping[str, Any], names: Collection[str], chosen: str | None, option: str, where: str) -> str | None:
    """The text of the one column that has one of these names, or of the chosen one; None if there is no such column."""
    keys = _named(row, names if chosen is None else [chosen])
    texts = {key: text for key in keys if (text := as_text(row[key]))}
    if len(texts) > 1:
        raise UsageError(f"{where} has several columns that may be meant, {' and '.join(texts)}: choose with {option}")
    return next(iter(texts.values()), "") if keys else None


def _first(fields: Mapping[str, Any], names: Collection[str]) -> str:
    return next((text for name in names if (text := as_text(fields.get(_plain(name))))), "")


def as_text(value: Any) -> str:
    """A value as text: numbers as people write them (27.0 is 27), lists with commas. Empty for anything else."""
    if isinstance(value, list):
        parts = [as_text(part) for part in value]
        return ", ".join(parts) if all(parts) else ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _stated(text: str) -> str:
    """The answer in an answer column: behind GSM8K's ####, in a box where a solution ends with one, else all of it."""
    if "####" in text:
        return text.rpartition("####")[2].strip()
    return boxed(text) or text


def _tolerance(fields: Mapping[str, Any]) -> float:
    """OlympiadBench's `error`. Other data sets mean other things by that name."""
    try:
        error = float(as_text(fields.get("error"))) if "ismultipleanswer" in fields else 0.0
    except ValueError:
        return 0.0
    return error if 0 < error < math.inf else 0.0


def _with_options(problem: str, answer: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    """A multiple-choice question with its options below it, and the letter of the right one.

    MMLU-Pro has `options` and a letter. GPQA has the right answer and wrong ones, which are put into an order that
    depends on their texts alone, so that each question always has the same letters.
    """
    listed = fields.get("options")
    wrong = [text for name, value in fields.items() if name.startswith("incorrectanswer") and (text := as_text(value))]
    if isinstance(listed, list):
        options = [as_text(option) for option in listed]
    elif wrong and answer:
        options = sorted({answer, *wrong}, key=lambda text: hashlib.sha256(f"{problem}\0{text}".encode()).digest())
    else:
        return problem, answer
    if not problem or not 1 < len(options) <= len(_LETTERS):
        return problem, answer
    shown = "\n".join(f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=False))
    letter = _LETTERS[options.index(answer)] if answer in options else answer
    return f"{problem}\n\n{shown}", letter
