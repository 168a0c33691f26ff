"""Recordings: one event a line. Written as things happen, read back into the same tree, continued where they stop."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from tts_tui.errors import RecordCorrupt, RecordError, RecordingStopped, RecordVersion, UsageError
from tts_tui.files import open_regular
from tts_tui.tree.events import FORMAT, AnyEvent, StepStreamed, decode, encode
from tts_tui.tree.search_tree import SearchTree

try:
    import fcntl
except ImportError:  # not on every system; there, two writers are not kept apart
    fcntl = None  # type: ignore[assignment]


LONGEST_LINE = 256 << 20
"""Size limit in bytes of one event."""


class Recorder:
    """Appends events to a file.

    Whole steps and everything else of weight reach the operating system at once, so they survive a killed process;
    streamed text is buffered until then.

    Args:
        path: The file; it must not exist unless `resume`.
        resume: Continue an existing recording; a last line that was cut off is removed.
        unchanged: The `Recording.stamp` that an existing recording must still have.

    Raises:
        UsageError: The file exists already, or cannot be written.
        RecordError: Someone else is writing it, or has written it since it was read.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, resume: bool = False, unchanged: tuple[int, int] | None = None
    ) -> None:
        self.path = Path(path)
        try:
            self._file: BinaryIO = open(self.path, "r+b" if resume else "xb")  # noqa: SIM115
        except FileExistsError:
            raise UsageError(
                f"{self.path} exists already: choose another name, or continue it with `tts-tui resume {self.path}`"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        self._torn = resume
        try:
            self._lock()
            if unchanged is not None and _stamp(os.fstat(self._file.fileno())) != unchanged:
                raise RecordError(f"{self.path} was written by another process just now: open it again")
        except RecordError:
            self._file.close()
            raise

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(f"cannot write the recording {self.path}: {error.strerror or error}")

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecordError(f"{self.path} is being written by another process: wait for it, or stop it") from None

    def __call__(self, event: AnyEvent) -> None:
        """Writes one event.

        Raises:
            RecordingStopped: The disk is full, or the file is gone; a search then goes on without recording.
        """
        line = encode(event) + b"\n"
        try:
            if self._torn:  # not before there is something to write: until then the file may be no recording
                self._file.truncate(whole_lines(self._file))
                self._file.seek(0, os.SEEK_END)
                self._torn = False
            self._file.write(line)
            if not isinstance(event, StepStreamed):
                self._file.flush()
        except OSError as error:
            raise RecordingStopped(
                f"recording stopped ({error.strerror or error}): the search goes on, but what follows is not in "
                f"{self.path.name}"
            ) from error

    def close(self) -> None:
        """Writes out what is left. Never raises: what could not be written was reported when it failed."""
        try:
            self._file.close()
        except OSError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def whole_lines(file: BinaryIO) -> int:
    """Length in bytes of the whole lines of `file`; a last line without line feed was cut off."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        block = file.read(end - start)
        if (place := block.rfind(b"\n")) >= 0:
            return start + place + 1
        end = start
    return 0


def read(path: str | os.PathLike[str]) -> Iterator[AnyEvent]:
    """The events of a recording, in order. A last line that was cut off is left out.

    Raises:
        UsageError: The file cannot be read, or is not a regular file.
        RecordCorrupt: It is not a recording, or a line before the last is damaged.
        RecordVersion: It was written by a version with another format.
    """
    try:
        with open_regular(path) as file:
            for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), b""), 1):
                if not line.endswith(b"\n"):
                    if len(line) == LONGEST_LINE:
                        raise RecordCorrupt(f"{path} is damaged in line {number}: no event is that long")
                    if number == 1:
                        raise RecordCorrupt(f"{path} is not a recording: it has no whole line")
                    return
                if number == 1:
                    _check_header(path, line)
                try:
                    yield decode(line)
                except RecordCorrupt as error:
                    raise RecordCorrupt(f"{path} is damaged in line {number}: {error}") from error
    except OSError as error:
        raise _unreadable(path, error) from error


class _Header(msgspec.Struct):
    event: str
    format: int = 0
    version: str = "?"


def _check_header(path: str | os.PathLike[str], line: bytes) -> None:
    try:
        header = msgspec.json.decode(line, type=_Header)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise RecordCorrupt(f"{path} is not a recording: its first line is no event") from None
    if header.event != "search_started":
        raise RecordCorrupt(f"{path} is not a recording of a search: it begins with {header.event!r}")
    if header.format != FORMAT:
        what = "update tts-tui" if header.format > FORMAT else "replay it with the version that wrote it"
        raise RecordVersion(
            f"{path} was written by tts-tui {header.version} in format {header.format or 'unknown'}, and this version "
            f"reads format {FORMAT}: {what}"
        )


def load(path: str | os.PathLike[str], into: SearchTree | None = None) -> SearchTree:
    """The tree of a recording.

    Args:
        path: The recording.
        into: An empty tree to fold it into; by default a new one.

    Raises:
        UsageError, RecordError: As `read`; also if the file is empty.
    """
    return _fold(path, read(path), into)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that was read as a whole, once for everyone who needs it.

    Attributes:
        path: The file.
        events: Its events, in order.
        stamp: What changes when the file is written.
    """

    path: Path
    events: tuple[AnyEvent, ...]
    stamp: tuple[int, int]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Reads and parses the file.

        Raises:
            UsageError, RecordError: As `read`.
        """
        try:
            stamp = _stamp(os.stat(path))  # before it is read: what is written meanwhile changes it
        except OSError as error:
            raise _unreadable(path, error) from error
        return cls(Path(path), tuple(read(path)), stamp)

    def tree(self, into: SearchTree | None = None) -> SearchTree:
        """The fold of the events, into an empty tree or a new one.

        Raises:
            RecordError: They add up to no search.
        """
        return _fold(self.path, self.events, into)


def _fold(path: str | os.PathLike[str], events: Iterable[AnyEvent], into: SearchTree | None) -> SearchTree:
    tree = SearchTree() if into is None else into
    for event in events:
        try:
            tree.apply(event)
        except RecordCorrupt as error:
            raise RecordCorrupt(f"{path} is damaged: {error}") from error
    if tree.started is None:
        raise RecordCorrupt(f"{path} is empty: not a recording")
    return tree


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _unreadable(path: str | os.PathLike[str], error: OSError) -> UsageError:
    return UsageError(f"cannot read {path}: {error.strerror or error}")
