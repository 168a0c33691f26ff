"""Recordings: files with one event per line, which can be replayed into the same tree and resumed where they end."""

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
except ImportError:  # not available on every system; without it, recordings are not locked
    fcntl = None  # type: ignore[assignment]


LONGEST_LINE = 256 << 20
"""Maximum size of one event, in bytes."""


class Recorder:
    """A sink that appends events to a file.

    All events are flushed to the operating system at once, so that they survive a killed process, except for streamed
    text, which is buffered until the next other event.

    Args:
        path: The file; it must not exist unless `resume` is true.
        resume: Continue an existing recording; an incomplete last line is removed.
        unchanged: The `Recording.stamp` that an existing recording must still have.

    Raises:
        UsageError: The file exists already, or cannot be written.
        RecordError: Another process is writing it, or has written it since it was read.
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
        """Append one event to the file.

        Raises:
            RecordingStopped: The disk is full, or the file is gone; a search then continues without recording.
        """
        line = encode(event) + b"\n"
        try:
            if self._torn:  # only once there is an event to write: until then the file may not be a recording
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
        """Flush buffered events and close the file. Never raises: write errors were reported when they occurred."""
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
    """Return the length in bytes of the complete lines of `file`, without a last line that has no line feed."""
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
    """Yield the events of a recording, in order. An incomplete last line is skipped.

    Raises:
        UsageError: The file cannot be read, or is not a regular file.
        RecordCorrupt: The file is not a recording, or a line before the last is damaged.
        RecordVersion: The file was written by a version with another format.
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
    """Return the tree of a recording.

    Args:
        path: The recording.
        into: An empty tree to fold the events into; by default a new one.

    Raises:
        UsageError, RecordError: As for `read`; also if the file is empty.
    """
    return _fold(path, read(path), into)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording in memory, read once and shared.

    Attributes:
        path: The path of the file.
        events: All events of the file, in order.
        stamp: Size in bytes and modification time in nanoseconds, which change when the file is written.
    """

    path: Path
    events: tuple[AnyEvent, ...]
    stamp: tuple[int, int]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read and parse a recording.

        Raises:
            UsageError, RecordError: As for `read`.
        """
        try:
            stamp = _stamp(os.stat(path))  # before reading, so that later writes are detected
        except OSError as error:
            raise _unreadable(path, error) from error
        return cls(Path(path), tuple(read(path)), stamp)

    def tree(self, into: SearchTree | None = None) -> SearchTree:
        """Return the fold of the events.

        Args:
            into: An empty tree to fold the events into; by default a new one.

        Raises:
            RecordError: The events do not form a valid search.
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
