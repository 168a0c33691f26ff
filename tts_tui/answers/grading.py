"""Comparison of answers: immediately if their canonical forms decide, and otherwise by Math-Verify.

Computer algebra on model output may take any amount of time, so it runs in separate processes
(`tts_tui.answers.grading_worker`), which are killed and replaced if a pair takes too long.

There are three verdicts: equivalent, different, and none (`None`). A pair has no verdict if comparing it took too much
time or memory, or if no process was available. This implies nothing about the answers, so it is never stored as a
verdict: the pair is tried again, up to `TRIES` times, and a process that could not be started is started again later.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from tts_tui.answers.canonical import canonical
from tts_tui.answers.grouping import Found, Groups
from tts_tui.answers.structure import is_simple

__all__ = ["TRIES", "Grader", "compare_canonical", "is_simple"]

TRIES = 3
"""Number of attempts to compare a pair before it stays without a verdict."""
_LONGEST = 2000
"""Maximum length of an answer in characters; a longer text is not an answer but runaway output."""
_START = 60.0
"""Seconds that a worker may take to load, allowing for a busy machine."""
_PATIENCE = 6
"""Wall time that a pair may take, as a multiple of its processor time, allowing for a busy machine."""
_PAUSES = (1.0, 60.0)
"""Seconds before a worker that could not be started is started again: the first pause, and the longest one."""
_CACHE = 20_000
"""Maximum number of pairs in each cache."""

T = TypeVar("T")
_Pair = tuple[str, str]


def compare_canonical(left: str, right: str) -> bool | None:
    """Return whether two canonical forms mean the same; None if only computer algebra can decide.

    Numbers, lists and tuples of numbers, words and single letters have one form each.
    """
    if left == right or not left or not right:
        return left == right != ""
    if max(len(left), len(right)) > _LONGEST or (is_simple(left) and is_simple(right)):
        return False
    return None


class _Lost(Exception):
    """Raised when a worker gave no verdict on a pair; `again` is true if the machine's load may be the cause."""

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


class _Unavailable(Exception):
    """Raised when no worker is available at present."""


class _Reply(msgspec.Struct):
    same: bool | None = None
    ready: bool = False
    error: str = ""


class _Worker:
    """A worker process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, limit: float) -> Self:
        """Start a worker and wait until it is ready.

        Args:
            limit: Processor time per pair, in seconds.

        Raises:
            _Unavailable: The worker cannot be started.
        """
        command = [sys.executable, "-P", "-m", "tts_tui.answers.grading_worker", f"{limit:g}"]
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise _Unavailable(error.strerror or str(error)) from error
        worker = cls(process)
        try:
            reply = await worker._reply(_START)
        except _Lost as error:
            await worker.kill()
            raise _Unavailable(str(error)) from error
        except BaseException:
            await worker.kill()
            raise
        if not reply.ready:
            await worker.kill()
            raise _Unavailable(reply.error)
        return worker

    @property
    def is_alive(self) -> bool:
        """True unless the process is known to have ended."""
        return self._process.returncode is None

    async def ask(self, left: str, right: str, limit: float) -> bool:
        """Return the verdict on a pair.

        Args:
            left, right: The answers.
            limit: Seconds to wait for the verdict.

        Raises:
            _Lost: The worker gave no verdict.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode({"left": left, "right": right}) + b"\n")
            await self._process.stdin.drain()
        except OSError as error:
            raise _Lost("it died") from error
        same = (await self._reply(limit)).same
        if same is None:
            raise _Lost("its memory was full")
        return same

    async def _reply(self, limit: float) -> _Reply:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(limit):
                line = await self._process.stdout.readline()
                if not line and await self._process.wait() == _OUT_OF_TIME:
                    raise _Lost("it took too much time", again=False)
            return msgspec.json.decode(line, type=_Reply)
        except TimeoutError as error:
            raise _Lost(f"it took more than {limit:g} s") from error
        except (msgspec.DecodeError, ValueError) as error:
            raise _Lost("it died") from error

    async def kill(self) -> None:
        """Kill the process and wait until it has ended. Never raises; leaves no process behind even if cancelled."""
        if self.is_alive:
            with suppress(ProcessLookupError, PermissionError):  # the process may have ended by itself
                if hasattr(os, "killpg"):
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
        await self._process.communicate()


_OUT_OF_TIME = -int(getattr(signal, "SIGPROF", 0)) or None
"""Exit code of a worker that used up its processor time."""


class Grader:
    """A grader, which decides whether answers mean the same.

    Use it as an async context manager; leaving it ends its processes. The first pair that needs computer algebra starts
    a process. If none is available, such pairs have no verdict.

    Args:
        workers: Maximum number of processes.
        timeout: Processor time per pair, in seconds, which does not depend on how busy the machine is.
        clock: Returns the time in seconds.

    Attributes:
        broken: The reason why Math-Verify is unavailable at present, a sentence; empty if no problem is known.
    """

    def __init__(self, *, workers: int = 2, timeout: float = 5.0, clock: Callable[[], float] = monotonic) -> None:
        self.broken = ""
        self._timeout = timeout
        self._workers = workers
        self._clock = clock
        self._places = asyncio.Semaphore(workers)
        self._idle: list[_Worker] = []
        self._closings = 0
        self._pause = 0.0
        self._start_again = -float("inf")
        self._known: dict[_Pair, bool] = {}
        # By canonical forms: the answers as written, and the number of attempts without a verdict.
        self._unsettled: dict[_Pair, tuple[_Pair, int]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the processes; a busy one ends after its current pair. Later comparisons start new ones."""
        self._closings += 1
        idle, self._idle = self._idle, []
        await asyncio.gather(*(worker.kill() for worker in idle), return_exceptions=True)

    @property
    def unsettled(self) -> list[tuple[str, str]]:
        """The pairs, as written, that were compared and have no verdict so far."""
        return [pair for pair, _ in self._unsettled.values()]

    def known(self, left: str, right: str) -> bool | None:
        """Return whether two canonical forms mean the same; None if that is not known without asking a process."""
        plain = compare_canonical(left, right)
        return self._known.get((min(left, right), max(left, right))) if plain is None else plain

    async def same(self, left: str, right: str) -> bool | None:
        """Return whether two answers mean the same, in either order. An empty answer equals no other.

        Returns:
            The verdict, or None if there is none. Another call tries again, until the pair was compared `TRIES` times.
        """
        one, two = canonical(left), canonical(right)
        verdict = self.known(one, two)
        if verdict is not None:
            return verdict
        if one > two:
            one, two, left, right = two, one, right, left
        return await self._compare((one, two), left, right)

    async def group(self, answers: Sequence[str | None], found: Found | None = None) -> list[int]:
        """Return a group number for each answer: equivalent answers have the same number.

        Numbers count from 0 in order of first appearance. A pair without a verdict counts as different, unless other
        answers link the two.

        Args:
            answers: Answers as written. None and answers without content get -1.
            found: Called with each pair that means the same although its canonical forms differ, as soon as it is
                found.
        """
        groups = Groups(answers)
        await groups.compare(self.same, self._workers, found)
        return groups.numbers

    async def _compare(self, key: _Pair, left: str, right: str) -> bool | None:
        """Ask a process, and once more if there was no verdict and the machine's load may be the cause."""
        for _ in range(2):
            tries = self._unsettled[key][1] if key in self._unsettled else 0
            if tries >= TRIES:
                return None
            again = False
            try:
                verdict = await self._ask(left, right)
            except _Unavailable:
                pass  # not caused by the pair, so not counted as an attempt
            except _Lost as error:
                tries, again = tries + 1, error.again
            else:
                self._unsettled.pop(key, None)
                _remember(self._known, key, verdict)
                return verdict
            _remember(self._unsettled, key, ((left, right), tries))
            if not again:
                break
        return None

    async def _ask(self, left: str, right: str) -> bool:
        async with self._places:
            closings = self._closings
            worker = await self._worker()
            try:
                verdict = await worker.ask(left, right, _PATIENCE * self._timeout)
            except BaseException:
                await worker.kill()
                raise
            if closings == self._closings:
                self._idle.append(worker)
            else:
                await worker.kill()
            return verdict

    async def _worker(self) -> _Worker:
        """Return an idle process, or start a new one.

        Raises:
            _Unavailable: No process can be started, or starting one failed a moment ago.
        """
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive:
                return worker
            await worker.kill()
        if self._clock() < self._start_again:
            raise _Unavailable(self.broken)
        try:
            worker = await _Worker.start(self._timeout)
        except _Unavailable as error:
            shortest, longest = _PAUSES
            self._pause = min(max(shortest, 2 * self._pause), longest)
            self._start_again = self._clock() + self._pause
            self.broken = f"Math-Verify cannot be used at present: {error}"
            raise
        self.broken, self._pause = "", 0.0
        return worker


def _remember(cache: dict[_Pair, T], key: _Pair, value: T) -> None:
    """Add an entry to a cache, and drop the oldest one if it is full."""
    if len(cache) >= _CACHE and key not in cache:
        cache.pop(next(iter(cache)))
    cache[key] = value
