"""Problems with answers: the usual data sets, a user's file, or generated problems."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from platformdirs import user_data_path

from tts_tui.answers.canonical import canonical
from tts_tui.errors import UsageError
from tts_tui.evaluation.datasets.data_files import BY_NAME, Columns, DataFile, Item, looks_like_solution
from tts_tui.evaluation.datasets.families import FAMILIES, Problem, Split, stream

__all__ = [
    "Columns",
    "Dataset",
    "Item",
    "data_folder",
    "family_items",
    "item_of",
    "listed",
    "load",
    "read_file",
    "readable",
]

NAMED = ("math500", "aime24", "amc23")
"""Data sets looked up in the data folder; other files there can be loaded by their stems, too."""
FEW = 20
"""Number of problems of each family if no limit is given."""
MOST = 100_000
"""Maximum number of problems in a file without a limit."""
_LONGEST = 2000
"""Maximum length of an answer in characters; longer ones are solutions or garbage."""


class Dataset(Struct, frozen=True):
    """A list of problems with information about their source.

    Attributes:
        name: `math500`, the stem of a file, or `families`.
        source: File name, or the families joined by commas.
        split: Split of the families; empty for a file.
        items: The problems, in order.
        left_out: Ids of problems without a text or an answer; they are not among the items.
        unreadable: Ids of items whose answers can only be compared as text.
        notes: Sentences to show to the user.
    """

    name: str
    source: str
    split: str
    items: tuple[Item, ...]
    left_out: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load(
    spec: str,
    *,
    data: Path | None = None,
    split: Split = "test",
    limit: int | None = None,
    columns: Columns = BY_NAME,
) -> Dataset:
    """Load the problems of a data set.

    Args:
        spec: `math500`, `aime24`, `amc23` or another file of the data folder by its stem; a path; `families`, or
            `families:add1,lin`.
        data: The data folder, if not the user's default one.
        split: Split of the families, whose seeds never overlap between splits.
        limit: Maximum number of problems, from the first one on; for families, one of each in turn.
        columns: Columns of a file with problem and answer, if their names are not recognized.

    Raises:
        UsageError: There is no such data set, or it cannot be used; the message states what to do.
        UnknownName: There is no such family.
    """
    kind, colon, rest = spec.partition(":")
    if kind == "families":
        columns.refuse("problem families")
        names = [name.strip() for name in rest.split(",") if name.strip()] or list(FAMILIES)
        if colon and not rest.strip(" ,"):
            raise UsageError(f"{spec.strip()} names no family: leave the colon out for all, or see `tts-tui families`")
        return _from_families(names, split, limit)
    return read_file(_find(spec, data), limit, columns)


def data_folder() -> Path:
    """Return the data folder: `data` below `TTS_TUI_HOME` if set, else below the platform's user data path."""
    home = os.environ.get("TTS_TUI_HOME")
    return (Path(os.path.expanduser(home)) if home else user_data_path("tts-tui")) / "data"


def _find(spec: str, data: Path | None) -> Path:
    folder = data or data_folder()
    named = spec.lower().replace("-", "").removesuffix(".jsonl")
    stem = named if named in NAMED else spec
    try:
        if stem not in NAMED and Path(spec).is_file():
            return Path(spec)
        if (path := folder / f"{stem}.jsonl").is_file():
            return path
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {spec}: {getattr(error, 'strerror', None) or error}") from error
    if stem in NAMED:
        raise UsageError(f"there is no {stem}.jsonl in {folder}: put it there, or name its folder with --data")
    if Path(spec).is_dir():
        raise UsageError(f"{spec} is a folder: name a file in it")
    raise UsageError(
        f"there is no data set {spec!r}, neither as a file nor as {stem}.jsonl in {folder}: known are "
        f"{', '.join(NAMED)}, families, families:NAME,… and the path of a file"
    )


# --- families ---------------------------------------------------------------------------------------------------------


def family_items(names: Sequence[str], split: Split, limit: int | None, skip: int = 0) -> list[Item]:
    """Return problems of families, one of each in turn, up to `limit` in total (by default `FEW` of each).

    Args:
        names: Names of the families.
        split: Split to take the problems from.
        limit: Maximum number in total; fewer are returned if the families are exhausted.
        skip: Number of problems of each family to skip first.
    """
    going = [stream(name, split) for name in names]
    for problems in going:
        for _ in zip(range(skip), problems, strict=False):
            pass
    wanted = len(going) * FEW if limit is None else limit
    found: list[Item] = []
    while going and len(found) < wanted:
        for problems in tuple(going):
            problem = next(problems, None) if len(found) < wanted else None
            if problem is not None:
                found.append(item_of(problem))
            elif len(found) < wanted:
                going.remove(problems)
    return found


def item_of(problem: Problem) -> Item:
    """Convert a problem of a family to an item."""
    place = f"{problem.split}-{problem.family}-{problem.index:04d}"
    return Item(place, problem.question, problem.answer, family=problem.family)


def _from_families(names: Sequence[str], split: Split, limit: int | None) -> Dataset:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"the family {twice[0]} is named twice: name each once")
    items = family_items(names, split, limit)
    notes = []
    if limit is not None and len(items) < limit:
        notes.append(f"the families have only {len(items)} {split} problems, fewer than {limit}")
    return Dataset("families", ",".join(names), split, tuple(items), notes=tuple(notes))


# --- files ------------------------------------------------------------------------------------------------------------


def read_file(path: Path, limit: int | None = None, columns: Columns = BY_NAME) -> Dataset:
    """Read a file with one JSON object per line, each with a problem and an answer.

    Reads no more lines than `limit` problems need.

    Raises:
        UsageError: The file cannot be read, a line is not a problem, the column of the problem or the answer is
            ambiguous, ids occur twice, or no problem has an answer.
    """
    items: list[Item] = []
    left_out: list[str] = []
    file = DataFile(path, columns)
    for _, item in file:
        if len(items) >= MOST:
            raise UsageError(f"{path} has more than {MOST:,} problems: split it, or take the first with --limit")
        if item.answer and item.problem:
            items.append(item)
        else:
            left_out.append(item.id)
        if limit is not None and len(items) >= limit:
            break
    if not items and (why := file.why_no_answer()):
        raise why
    _check(path, items, left_out)
    unreadable = [item.id for item in items if not readable(item.answer)]
    notes = _notes(items, left_out, unreadable)
    return Dataset(path.stem, path.name, "", tuple(items), tuple(left_out), tuple(unreadable), tuple(notes))


def readable(answer: str) -> bool:
    """Return whether an answer can be compared by its meaning, not just as text."""
    level = 0
    for place, char in enumerate(answer):
        if char in "{}" and answer[place - 1 : place] != "\\":
            level += 1 if char == "{" else -1
            if level < 0:
                return False
    return level == 0 and len(answer) <= _LONGEST and bool(canonical(answer))


def _check(path: Path, items: Sequence[Item], left_out: Sequence[str]) -> None:
    if not items and not left_out:
        raise UsageError(f"{path} has no problems: write one JSON object a line, with a problem and an answer")
    if not items:
        raise UsageError(
            f"{path} has no problem with a text and an answer ({len(left_out)} without): say which columns hold them "
            "with --problem-column and --answer-column"
        )
    twice = [id for id, count in Counter([*(item.id for item in items), *left_out]).items() if count > 1]
    if twice:
        raise UsageError(f"{path} has ids that occur more than once: {listed(twice)}; give each problem its own")


def _notes(items: Sequence[Item], left_out: Sequence[str], unreadable: Sequence[str]) -> Iterator[str]:
    total = len(items) + len(left_out)
    if left_out:
        yield f"{len(left_out)} of {total} problems have no text or no answer and are left out: {listed(left_out)}"
    if unreadable:
        yield f"{len(unreadable)} answers cannot be read and are compared as text alone: {listed(unreadable)}"
    if long := [item.id for item in items if looks_like_solution(item.answer)]:
        yield (
            f"{len(long)} answers are so long that they may be solutions, and count as answers: {listed(long)}; "
            "--answer-column chooses another column"
        )
    first: dict[str, str] = {}
    twice = [
        f"{item.id} is {first[item.problem]}" for item in items if first.setdefault(item.problem, item.id) != item.id
    ]
    if twice:
        yield f"the same problem occurs more than once and counts each time: {listed(twice)}"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Join names with commas, showing only the first `most` and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
