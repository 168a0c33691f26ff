"""The folder of the terminal UI's recordings, and its contents."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

import msgspec
from platformdirs import user_data_path

from tts_tui.backends.local.download import HOME
from tts_tui.errors import TTSError, UsageError
from tts_tui.files import open_regular
from tts_tui.tree.events import SearchFinished, SearchStarted, decode
from tts_tui.tree.search_tree import SearchTree

RUNS = "TTS_TUI_RUNS"
"""Environment variable with another folder for recordings, as `tts-tui serve-ui` sets it for each of its visitors."""
TAIL = 262_144
"""Number of bytes read from the end of a recording to find its last event."""
HEAD = 4_000_000
"""Number of bytes read from the start of a recording for its first event, which holds the problem and prompt ids."""


class RecordedRun(msgspec.Struct, frozen=True):
    """A recording as shown in lists.

    Attributes:
        path: The file.
        problem: The problem.
        strategy: The search strategy.
        when: The start time, with its time zone; None if unknown.
        answer: The answer, or None.
        reason: Why the search ended; empty if it did not.
        steps: Number of steps in the tree; 0 if the search did not end.
        seconds: Duration of the search.
        broken: Why the recording cannot be used, as a sentence; empty if it can.
    """

    path: Path
    problem: str = ""
    strategy: str = ""
    when: datetime | None = None
    answer: str | None = None
    reason: str = ""
    steps: int = 0
    seconds: float = 0.0
    broken: str = ""

    @property
    def finished(self) -> bool:
        """True if the search ran to its end, so that there is nothing left to resume."""
        return self.reason in ("solved", "unsolved")


def folder() -> Path:
    """Return the folder of recordings: `TTS_TUI_RUNS`, or below `TTS_TUI_HOME`, or in the user's data folder."""
    if named := os.environ.get(RUNS):
        return Path(os.path.expanduser(named))
    home = os.environ.get(HOME)
    return (Path(os.path.expanduser(home)) if home else user_data_path("tts-tui")) / "runs"


def new_path(problem: str, now: datetime, taken: Collection[Path | None] = ()) -> Path:
    """Return a new path for the recording of `problem`: one that does not exist and is not among those `taken`.

    Raises:
        UsageError: The folder is not writable.
    """
    return _free(folder(), problem, now, "jsonl", taken)


def picture_path(problem: str, kind: str, now: datetime | None = None) -> Path:
    """Return a new path for a picture of a run; `kind` is `svg` or `html`.

    Raises:
        UsageError: The folder is not writable.
    """
    return _free(folder() / "pictures", problem, now or datetime.now(), kind)


def _free(place: Path, problem: str, now: datetime, suffix: str, taken: Collection[Path | None] = ()) -> Path:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(place, error.strerror or str(error)) from error
    if not os.access(place, os.W_OK):
        raise _unwritable(place, "permission denied")
    words = re.sub(r"[^a-z0-9]+", "-", problem[:400].lower()).strip("-")[:40].strip("-")
    stem = f"{now:%Y-%m-%d-%H%M%S}" + (f"-{words}" if words else "")
    names = (f"{stem}.{suffix}", *(f"{stem}-{number}.{suffix}" for number in range(2, 1000)))
    return next(path for path in map(place.joinpath, names) if path not in taken and not path.exists())


def _unwritable(place: Path, why: str) -> UsageError:
    return UsageError(f"the folder {place} cannot be written ({why}): set {HOME} to one that can")


def recent(limit: int = 20) -> list[RecordedRun]:
    """Return the latest recordings, newest first. Reads only the ends of each file, and never raises."""
    try:
        with os.scandir(folder()) as entries:
            files = [
                (_age(entry), entry.path) for entry in entries if entry.name.endswith(".jsonl") and entry.is_file()
            ]
    except OSError:
        return []
    files.sort(reverse=True)
    return [look(Path(path)) for _, path in files[:limit]]


def _age(entry: os.DirEntry[str]) -> float:
    """Return the modification time of a file; one that has just been removed counts as oldest, and hides no other."""
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0


def look(path: Path) -> RecordedRun:
    """Return the summary of a recording, from its first and its last event."""
    try:
        with open_regular(path) as file:
            first = file.readline(HEAD)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            last = file.read()
    except OSError as error:
        return RecordedRun(path, broken=error.strerror or str(error))
    except UsageError:
        return RecordedRun(path, broken="it is not a regular file")
    try:
        start = decode(first)
        if not isinstance(start, SearchStarted):
            return RecordedRun(path, broken="it is no recording of a search")
        SearchTree().apply(start)
    except TTSError:
        return RecordedRun(path, broken="its first line is no event" if first else "it is empty")
    finished = next((event for event in _last(last) if isinstance(event, SearchFinished)), None)
    run = RecordedRun(path, start.problem, start.plan.strategy, _when(start.created))
    if finished is None:
        return run
    return msgspec.structs.replace(
        run,
        answer=finished.answer,
        reason=finished.reason,
        steps=finished.nodes,
        seconds=finished.seconds,
        strategy=finished.plan.strategy,
    )


def _last(block: bytes) -> Iterator[object]:
    """Yield the event of the last complete line, if it is a valid one."""
    lines = block[: block.rfind(b"\n") + 1].splitlines()
    if lines:
        try:
            yield decode(lines[-1])
        except TTSError:
            return


def _when(created: str) -> datetime | None:
    try:
        return datetime.fromisoformat(created)
    except ValueError:
        return None


def remove(path: Path) -> None:
    """Delete a recording; it is not an error if it is already gone.

    Raises:
        UsageError: The file cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot remove {path}: {error.strerror or error}") from error
