"""Signals that ask the process to end, and the exit code that tells which of them it was."""

import os
import signal

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))
"""Those that this system has."""
HANG_UP = getattr(signal, "SIGHUP", None)
"""The terminal has gone. The kernel and the shell may both say so: several of them mean no more than one."""
QUIT = getattr(signal, "SIGQUIT", None)
"""Asks to end at once, without waiting for anything."""

_received = 0


def heeded() -> list[signal.Signals]:
    """The signals to handle: not those that whoever started the process has it ignore, such as SIGHUP under nohup."""
    return [kind for kind in ENDING if signal.getsignal(kind) is not signal.SIG_IGN]


def note(number: int) -> None:
    """Remembers a signal for the exit code."""
    global _received
    _received = number


def received() -> bool:
    """Whether one was noted."""
    return bool(_received)


def exit_code() -> int:
    """128 + the number of the last signal that was noted, as shells have it; that of Ctrl-C if none was."""
    return 128 + (_received or signal.SIGINT)


def leave_quietly_on_interrupt(code: int = 128 + signal.SIGINT) -> None:
    """Has Ctrl-C end the process at once with `code`: for while there is nothing to stop yet, or nothing any more.

    An exception would do the same with a traceback, wherever it happened to be raised.
    """
    if signal.SIGINT in heeded():
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))


def raise_on_signals() -> None:
    """Has every signal that asks to end raise KeyboardInterrupt, as Ctrl-C does."""
    for kind in heeded():
        if kind == signal.SIGINT:
            signal.signal(kind, signal.default_int_handler)  # asyncio knows it, and cancels instead
        elif kind != QUIT:
            signal.signal(kind, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    note(number)
    raise KeyboardInterrupt
