"""Whether two answers mean the same, as programs ask: at once where that is plain, and else by Math-Verify.

Computer algebra on what a model wrote may take any time, so it runs in processes of their own
(`tts_tui.grading_worker`), which are killed when a pair takes too long, and replaced.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec

from tts_tui.answer_forms import is_words
from tts_tui.answers import canonical
from tts_tui.concurrency import concurrently

__all__ = ["Grader", "certain", "is_simple"]

_NUMBERS = re.compile(r"-?\d+(?:/\d+)?(?:,-?\d+(?:/\d+)?)*|[(\[]-?\d+(?:/\d+)?(?:,-?\d+(?:/\d+)?)+[)\]]")
_LONGEST = 2000
"""Characters; what is longer is no answer but a runaway."""
_START = 60.0
"""Seconds that a worker may take to load, on a busy machine."""
_CACHE = 20_000
"""Pairs that are remembered."""


def certain(left: str, right: str) -> bool | None:
    """Whether two canonical forms mean the same; None if only computer algebra can tell.

    Numbers, lists and tuples of numbers, words and single letters have one form each.
    """
    if left == right or not left or not right:
        return left == right != ""
    if max(len(left), len(right)) > _LONGEST or (is_simple(left) and is_simple(right)):
        return False
    return None


def is_simple(form: str) -> bool:
    """Whether a canonical form is the only one of all that mean the same and are simple, too."""
    return bool(_NUMBERS.fullmatch(form)) or (len(form) == 1 and form.isalpha()) or is_words(form)


class _Lost(Exception):
    """A worker died or was killed over a pair."""


class _Unavailable(Exception):
    """No worker can be had at all."""


class _Reply(msgspec.Struct):
    same: bool = False
    ready: bool = False
    error: str = ""


class _Worker:
    """One process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, limit: float) -> Self:
        """Starts one, and waits until it is ready.

        Raises:
            _Unavailable: It cannot be started.
        """
        seconds = str(math.ceil(limit) + 5)  # by then it has been killed from here, unless nobody is left here
        command = [sys.executable, "-P", "-m", "tts_tui.grading_worker", seconds]
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

    async def ask(self, left: str, right: str, limit: float) -> bool:
        """Its verdict.

        Raises:
            _Lost: There is none in that time, or it died.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode({"left": left, "right": right}) + b"\n")
            await self._process.stdin.drain()
        except OSError as error:
            raise _Lost("it died") from error
        return (await self._reply(limit)).same

    async def _reply(self, limit: float) -> _Reply:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(limit):
                line = await self._process.stdout.readline()
            return msgspec.json.decode(line, type=_Reply)
        except TimeoutError as error:
            raise _Lost(f"it took more than {limit:g} s") from error
        except (msgspec.DecodeError, ValueError) as error:
            raise _Lost("it died") from error

    async def kill(self) -> None:
        """Ends it, and waits until it is gone. Never raises, and leaves nothing behind even if it is cancelled."""
        try:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        except (ProcessLookupError, PermissionError):
            pass  # it has ended by itself
        await self._process.communicate()


class Grader:
    """Decides whether answers mean the same. Use it as an async context manager; leaving it ends its processes.

    The first pair that is not plain starts a process. Where none can be had, canonical forms decide alone.

    Args:
        workers: Processes at once, at most.
        timeout: Seconds for a pair; one that takes longer counts as not the same.

    Attributes:
        unsettled: Pairs without a verdict, because they took too long or ended their process.
        broken: Why Math-Verify cannot be used; empty as long as nothing is known against it.
    """

    def __init__(self, *, workers: int = 2, timeout: float = 5.0) -> None:
        self.unsettled: list[tuple[str, str]] = []
        self.broken = ""
        self._timeout = timeout
        self._workers = workers
        self._places = asyncio.Semaphore(workers)
        self._idle: list[_Worker] = []
        self._closings = 0
        self._known: dict[tuple[str, str], bool] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the processes; one that is at work, when it is done. What is asked afterwards starts new ones."""
        self._closings += 1
        idle, self._idle = self._idle, []
        await asyncio.gather(*(worker.kill() for worker in idle), return_exceptions=True)

    async def same(self, left: str, right: str) -> bool:
        """Whether two answers mean the same; the order does not matter. An empty answer is like no other."""
        one, two = canonical(left), canonical(right)
        plain = certain(one, two)
        if plain is not None:
            return plain
        if one > two:
            one, two, left, right = two, one, right, left
        known = self._known.get((one, two))
        if known is None:
            known = await self._ask(left, right)
            if len(self._known) >= _CACHE:
                self._known.pop(next(iter(self._known)))
            self._known[one, two] = known
        return known

    async def group(self, answers: Sequence[str | None], found: Callable[[str, str], None] | None = None) -> list[int]:
        """A number for each answer: the same for those that mean the same, counted from 0 in the order seen.

        Args:
            answers: As written. None and what says nothing have -1.
            found: Told each pair that means the same although its canonical forms differ, when that is known.
        """
        numbers: dict[str, int] = {}
        first: list[tuple[str, bool]] = []
        groups = []
        for answer in answers:
            form = canonical(answer) if answer is not None else ""
            if answer is not None and form and form not in numbers:
                simple = is_simple(form)
                others = [(number, other) for number, (other, plain) in enumerate(first) if not (plain and simple)]
                number = await self._first_same(answer, others)
                if number is None:
                    numbers[form] = len(first)
                    first.append((answer, simple))
                else:
                    numbers[form] = number
                    if found is not None:
                        found(first[number][0], answer)
            groups.append(numbers.get(form, -1))
        return groups

    async def _first_same(self, answer: str, others: Sequence[tuple[int, str]]) -> int | None:
        """The number of the first of `others` that means the same."""
        for start in range(0, len(others), self._workers):
            some = others[start : start + self._workers]
            verdicts = await concurrently(self.same(other, answer) for _, other in some)
            for (number, _), verdict in zip(some, verdicts, strict=True):
                if verdict:
                    return number
        return None

    async def _ask(self, left: str, right: str) -> bool:
        async with self._places:
            if self.broken:
                return False
            closings = self._closings
            try:
                worker = self._idle.pop() if self._idle else await _Worker.start(self._timeout)
            except _Unavailable as error:
                self.broken = f"answers are compared without Math-Verify, which cannot be used here: {error}"
                return False
            try:
                verdict = await worker.ask(left, right, self._timeout)
            except _Lost:
                await worker.kill()
                self.unsettled.append((left, right))
                return False
            except BaseException:
                await worker.kill()
                raise
            if closings == self._closings:
                self._idle.append(worker)
            else:
                await worker.kill()
            return verdict
