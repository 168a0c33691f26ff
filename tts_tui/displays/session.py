"""Running a search, a resumption or a replay with a display: signals, pacing, exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from tts_tui.budget import Budget
from tts_tui.displays import signals
from tts_tui.displays.base import Display
from tts_tui.displays.base import note as note
from tts_tui.plan import Plan
from tts_tui.search.result import Result
from tts_tui.solver import Solver
from tts_tui.tree.events import AnyEvent, SearchFinished
from tts_tui.tree.recording import Recording

FAILED = 3
INTERRUPTED = 130
SILENCE = 2.0
"""Longest wait of a paced replay, in seconds; longer ones (a machine asleep, a slow server) are shortened to it."""


def exit_code(finished: SearchFinished | None) -> int:
    """Return the exit code of a search.

    It is 0 with an answer, 1 without, 3 if a model failed, and 130 if interrupted, or 128 + the number of the signal if
    that was another one.
    """
    if finished is None:
        return 1
    if finished.reason == "interrupted":
        return signals.exit_code()
    if finished.reason == "failed":
        return FAILED
    return 0 if finished.answer is not None else 1


def leave(display: Display, message: str) -> NoReturn:
    """End the process immediately, without waiting for computing threads. Recorded events are already in the file."""
    display.restore()
    note(message)
    os._exit(signals.exit_code())


@contextmanager
def interrupts(display: Display, stop: Callable[[], None]) -> Iterator[None]:
    """Handle signals: Ctrl-C, SIGTERM or SIGHUP calls `stop`; the second one, or one before the search starts, exits.

    A terminal that closes may send SIGHUP several times, which counts once. SIGQUIT always exits immediately. These are
    plain signal handlers, not the event loop's: they also work while the loop is busy.
    """
    stopping = False

    def handle(number: int, _: object) -> None:
        nonlocal stopping
        signals.note(number)
        if not display.began:
            leave(display, "interrupted before the search began")
        if number == signals.QUIT:
            leave(display, "left at once")
        if stopping and number != signals.HANG_UP:
            leave(display, "left at once, on the second interruption")
        if not stopping:
            stopping = True
            display.stopping()
            stop()

    before = {kind: signal.signal(kind, handle) for kind in signals.heeded()}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def hear(handler: Callable[[int], object]) -> None:
    """Make the running loop call `handler` for every terminating signal except SIGQUIT, and for SIGHUP only once."""
    loop = asyncio.get_running_loop()
    hung_up = False

    def heard(kind: int) -> None:
        nonlocal hung_up
        signals.note(kind)
        if kind == signals.HANG_UP and hung_up:
            return
        hung_up = hung_up or kind == signals.HANG_UP
        handler(kind)

    for kind in signals.heeded():
        if kind != signals.QUIT:
            with suppress(NotImplementedError):  # not every system has event loops that support signal handlers
                loop.add_signal_handler(kind, heard, kind)


async def _run(solver: Solver, display: Display, work: Callable[[], Awaitable[Result]]) -> int:
    loop = asyncio.get_running_loop()
    display.on_closed = solver.stop

    def stop() -> None:
        loop.call_soon_threadsafe(solver.stop)

    with interrupts(display, stop):
        async with solver:
            # Objects made by libraries and models live until the end: scanning them for garbage would stall streams.
            gc.collect()
            gc.freeze()
            async with display:
                result = await work()
            display.conclude(result.finished)
        return FAILED if display.failed else exit_code(result.finished)


async def search(solver: Solver, display: Display, problem: str, plan: Plan, record: Path | None) -> int:
    """Solve one problem with `display`, and return the exit code."""
    return await _run(solver, display, lambda: solver.solve(problem, plan, record=record, sinks=[display]))


async def resume(solver: Solver, display: Display, recording: Recording, budget: Budget | None) -> int:
    """Continue a recording with `display`, and return the exit code."""
    display.past(recording.events)
    return await _run(solver, display, lambda: solver.resume(recording, sinks=[display], budget=budget))


async def replay(display: Display, events: Iterable[AnyEvent], speed: float) -> int:
    """Show recorded events with `display`, at `speed` times the original speed; 0 shows them without waiting.

    Returns:
        0 if the recording has an answer, 1 if not, 128 + the number of the signal if interrupted.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    display.on_closed = stopped.set

    def stop() -> None:
        loop.call_soon_threadsafe(stopped.set)

    with interrupts(display, stop):
        async with display:
            await _play(display, events, speed, stopped)
        finished = display.tree.finished
        display.conclude(finished)
    if stopped.is_set():
        return signals.exit_code()
    return 0 if finished is not None and finished.answer is not None else 1


async def _play(display: Display, events: Iterable[AnyEvent], speed: float, stopped: asyncio.Event) -> None:
    shown_until = 0.0
    for number, event in enumerate(events):
        if speed and event.t > shown_until:
            await _wait(min((event.t - shown_until) / speed, SILENCE), stopped)
            shown_until = event.t
        elif number % 1000 == 0:  # lets the display paint, and interruptions through
            await asyncio.sleep(0)
        if stopped.is_set():
            return
        display(event)


async def _wait(seconds: float, stopped: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopped.wait()
    except TimeoutError:
        return


def complete(work: Any) -> int:
    """Run one of the above coroutines to its end, in a new event loop."""
    code: int = asyncio.run(work)
    return code
