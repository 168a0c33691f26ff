r"""Problems and reference answers from a JSON Lines file with any of the usual column names.

Public data sets differ in their column names: the problem is `problem`, `question` or `Question`, the answer is
`answer`, `Answer`, `final_answer` or `Correct Answer`. Names are compared without case, spaces and underscores. A
reference answer is only taken from an answer column, never from a solution, and if several columns match, the user
must choose one.
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
"""Maximum length of a line in bytes; no model has a context for more."""
_LONG = 300
"""Length in characters from which an answer is probably a solution."""

PROBLEM_COLUMNS = ("problem", "question", "prompt")
ANSWER_COLUMNS = (
    "answer", "final_answer", "expected_answer", "correct_answer", "reference_answer", "gold_answer", "ground_truth",
    "extracted_groundtruth",
)  # fmt: skip
_IDS = ("unique_id", "id", "problem_idx", "question_id", "record_id")
_SUBJECTS = ("subject", "type", "subfield", "category", "subdomain")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Item(Struct, frozen=True):
    """A problem with its reference answer.

    Attributes:
        id: Name of the problem in its data set.
        problem: Text of the problem, including the options of a multiple-choice question.
        answer: The right answer as spelled in the data set; the letter for a multiple-choice question.
        level, subject: Level and subject as given in the data set; empty if it has none.
        family: Family of a generated problem; empty for others.
        tolerance: Maximum distance between a number and the answer for the number to be right.
    """

    id: str
    problem: str
    answer: str
    level: str = ""
    subject: str = ""
    family: str = ""
    tolerance: float = 0.0


class Columns(Struct, frozen=True):
    """Columns of a data file chosen by the user; None for columns that are found by their names."""

    problem: str | None = None
    answer: str | None = None

    def refuse(self, what: str) -> None:
        """Raise an error if a column is chosen although no data file is read.

        Args:
            what: Description of what is read instead, for the error message.

        Raises:
            UsageError: A column is chosen.
        """
        for option, column in (("--problem-column", self.problem), ("--answer-column", self.answer)):
            if column is not None:
                raise UsageError(f"{option} is for a data file, not for {what}: leave it out")


BY_NAME = Columns()
"""The default: no column is chosen, all are found by their names."""


class DataFile:
    """A file with one JSON object per line, each with a problem and an answer.

    Args:
        path: Path of the file.
        columns: Columns chosen by the user.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self._columns = columns
        self._seen: dict[str, None] = {}

    def __iter__(self) -> Iterator[tuple[str, Item]]:
        """Yield the position of each problem ("line 3 of mine.jsonl") and the problem.

        The problem's text or answer is empty if the line has none.

        Raises:
            UsageError: The file cannot be read, a line is not a problem, or several columns match.
        """
        for place, (number, row) in enumerate(_objects(self.path)):
            where = f"line {number} of {self.path}"
            self._seen |= dict.fromkeys(row)
            yield where, self._item(row, f"{self.path.stem}-{place:04d}", where)

    def why_no_answer(self) -> UsageError | None:
        """Return an error explaining why no line read so far has an answer; None if the columns are not the reason."""
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
    """Return whether an answer is long enough, or has enough lines, to be an entire solution."""
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
    """Return a row keyed by normalized column names: lower case, without spaces and underscores."""
    return {_plain(key): value for key, value in reversed(list(row.items()))}


def problem_of(row: Mapping[str, Any], chosen: str | None, where: str) -> str:
    """Return the problem of a row, which may be blank.

    Args:
        row: A row of the data file.
        chosen: Column chosen by the user; None to find it by name.
        where: Position of the row, for error messages.

    Raises:
        UsageError: No column matches, or more than one does.
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
    """Return a column's name in lower case, letters and digits only, so that `Final Answer` equals `final_answer`."""
    return "".join(filter(str.isalnum, name.casefold()))


def _named(row: Collection[str], names: Collection[str]) -> list[str]:
    """Return the columns with one of these names: exact matches, else those that differ in case or spacing."""
    if len(names) == 1 and (exact := [key for key in row if key in names]):
        return exact
    wanted = {_plain(name) for name in names}
    return [key for key in row if _plain(key) in wanted]


def _pick(row: Mapping[str, Any], names: Collection[str], chosen: str | None, option: str, where: str) -> str | None:
    """Return the text of the column with one of these names, or of the chosen one; None if there is no such column."""
    keys = _named(row, names if chosen is None else [chosen])
    texts = {key: text for key in keys if (text := as_text(row[key]))}
    if len(texts) > 1:
        raise UsageError(f"{where} has several columns that may be meant, {' and '.join(texts)}: choose with {option}")
    return next(iter(texts.values()), "") if keys else None


def _first(fields: Mapping[str, Any], names: Collection[str]) -> str:
    return next((text for name in names if (text := as_text(fields.get(_plain(name))))), "")


def as_text(value: Any) -> str:
    """Return a value as text: numbers in plain form (27.0 is 27), lists joined by commas, anything else as ""."""
    if isinstance(value, list):
        parts = [as_text(part) for part in value]
        return ", ".join(parts) if all(parts) else ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _stated(text: str) -> str:
    """Extract the stated answer of a column: after GSM8K's ####, from a solution's final box, else the entire text."""
    if "####" in text:
        return text.rpartition("####")[2].strip()
    return boxed(text) or text


def _tolerance(fields: Mapping[str, Any]) -> float:
    """Return OlympiadBench's `error`, else 0; in other data sets the name has other meanings."""
    try:
        error = float(as_text(fields.get("error"))) if "ismultipleanswer" in fields else 0.0
    except ValueError:
        return 0.0
    return error if 0 < error < math.inf else 0.0


def _with_options(problem: str, answer: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    """Append the options to a multiple-choice question, and return it with the letter of the right one.

    MMLU-Pro has `options` and a letter. GPQA has the right answer and wrong ones; these are sorted by a hash of their
    texts, so that each question always gets the same letters.
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
