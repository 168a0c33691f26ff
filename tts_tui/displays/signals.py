"""Signals that ask the process to end, and the exit code that identifies them."""

import os
import signal

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))
"""The terminating signals that this system has."""
HANG_UP = getattr(signal, "SIGHUP", None)
"""SIGHUP, sent when the terminal has gone. Both the kernel and the shell may send it, so several count as one."""
QUIT = getattr(signal, "SIGQUIT", None)
"""SIGQUIT, which asks to end immediately, without waiting for anything."""

_received = 0


def heeded() -> list[signal.Signals]:
    """Return the signals to handle, without those that the parent process has set to be ignored, as nohup does."""
    return [kind for kind in ENDING if signal.getsignal(kind) is not signal.SIG_IGN]


def note(number: int) -> None:
    """Remember a signal for the exit code."""
    global _received
    _received = number


def received() -> bool:
    """Return whether a signal was noted."""
    return bool(_received)


def exit_code() -> int:
    """Return 128 + the number of the last signal that was noted, as in shells; that of SIGINT if there was none."""
    return 128 + (_received or signal.SIGINT)


def leave_quietly_on_interrupt(code: int = 128 + signal.SIGINT) -> None:
    """Make Ctrl-C end the process immediately with `code`, for times when there is nothing to stop.

    An exception would have the same effect, but print a traceback from wherever it happened to be raised.
    """
    if signal.SIGINT in heeded():
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))


def raise_on_signals() -> None:
    """Make every terminating signal except SIGQUIT raise KeyboardInterrupt, as Ctrl-C does."""
    for kind in heeded():
        if kind == signal.SIGINT:
            signal.signal(kind, signal.default_int_handler)  # the handler that asyncio replaces by cancellation
        elif kind != QUIT:
            signal.signal(kind, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    note(number)
    raise KeyboardInterrupt
