"""Textual's drivers, hardened to survive any input and to sleep while there is none.

Both block until bytes arrive instead of polling, decode with `InputDecoder`, and notify the app when their input has
ended because the terminal, or the server behind a browser session, has gone.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable
from typing import IO, Any

from textual import log
from textual.app import App
from textual.driver import Driver
from textual.drivers._byte_stream import ByteStream
from textual.drivers.linux_driver import LinuxDriver
from textual.drivers.web_driver import WebDriver, _ExitInput
from textual.message import Message

from tts_tui.ui.terminal_input import InputDecoder

CHUNK = 65_536
"""Maximum number of bytes per read."""
BACKLOG = 1_000
"""Number of messages that may wait for the app before more input is read."""
BACKLOG_WAIT = 0.05
"""Seconds between checks whether the app has caught up."""


class InputEnded(Message):
    """A message that input has ended for good: the terminal or the server behind the app has gone."""


class WakingEvent(threading.Event):
    """An event that also makes a file descriptor readable, so that a selector can wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._reading, self._writing = os.pipe()

    def fileno(self) -> int:
        """Return the file descriptor that is readable while the event is set."""
        return self._reading

    def set(self) -> None:
        """Set the event and make its file descriptor readable."""
        before = self.is_set()
        super().set()  # before the write: the selector's thread checks the flag when it wakes
        if not before:
            os.write(self._writing, b"x")

    def clear(self) -> None:
        """Clear the event and drain its file descriptor."""
        if self.is_set():
            os.read(self._reading, 1)
        super().clear()


class LenientFile:
    """A text file whose disk or reader may go away: output written after that is dropped.

    Otherwise Textual's output thread would end with the error, and the app would wait for it forever.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write `text`, ignoring errors."""
        self._try(lambda: self._file.write(text))

    def flush(self) -> None:
        """Flush the file, ignoring errors."""
        self._try(self._file.flush)

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """Return whether the file is a terminal."""
        return self._file.isatty()

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, ValueError):
            return


def watch(fileno: int, closing: WakingEvent, decoder: InputDecoder, take: Callable[[bytes], object]) -> bool:
    """Call `take` with all input, and with empty bytes when `decoder` is due, until `closing` is set.

    Returns:
        True if the input has ended.
    """
    with selectors.SelectSelector() as selector:
        selector.register(fileno, selectors.EVENT_READ)
        selector.register(closing.fileno(), selectors.EVENT_READ)
        while True:
            ready = selector.select(decoder.timeout)
            if closing.is_set():
                return False
            try:
                data = os.read(fileno, CHUNK) if ready else b""
            except BlockingIOError:
                continue
            except OSError:  # the terminal has gone
                return True
            if ready and not data:
                return True
            take(data)


class TerminalDriver(LinuxDriver):
    """A driver for the app in a terminal."""

    exit_event: WakingEvent

    def __init__(self, app: App[Any], **settings: Any) -> None:
        super().__init__(app, **settings)
        self._file = LenientFile(self._file)  # type: ignore[arg-type, assignment]
        self.exit_event = WakingEvent()

    def run_input_thread(self) -> None:
        """Read keys until the app ends or the terminal goes away."""
        decoder = InputDecoder(self._debug)
        if watch(self.fileno, self.exit_event, decoder, lambda data: deliver(self, decoder, data, self.exit_event)):
            self.send_message(InputEnded())


class BrowserDriver(WebDriver):
    """A driver for the app in a browser, on the pipes of `tts-tui serve-ui`."""

    exit_event: WakingEvent

    def __init__(self, app: App[Any], **settings: Any) -> None:
        super().__init__(app, **settings)
        self._write = self._write_or_drop  # type: ignore[assignment]
        self.exit_event = WakingEvent()

    def _write_or_drop(self, data: bytes) -> None:
        try:
            os.write(self.fileno, data)
        except OSError:  # the server has gone; the input thread notices it, too
            return

    def run_input_thread(self) -> None:
        """Read packets until the app ends or the server goes away."""
        decoder, stream = InputDecoder(self._debug), ByteStream()

        def take(data: bytes) -> None:
            if not data:
                deliver(self, decoder, data, self.exit_event)
            for kind, payload in stream.feed(data) if data else ():
                if kind == "D":
                    deliver(self, decoder, payload, self.exit_event)
                else:
                    self._take_meta(kind, payload)

        try:
            ended = watch(self._input_reader._fileno, self.exit_event, decoder, take)
        except _ExitInput:
            return
        if ended:
            self.send_message(InputEnded())

    def _take_meta(self, kind: str, payload: bytes) -> None:
        try:
            self._on_meta(kind, payload)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error(f"not a message of the server: {error}")


def deliver(driver: Driver, decoder: InputDecoder, data: bytes, closing: WakingEvent) -> None:
    """Send the messages that `data` completes to the app, and wait if the app has fallen far behind."""
    for message in decoder.feed(data) if data else decoder.tick():
        driver.process_message(message)
    while driver._app.message_queue_size > BACKLOG and not closing.wait(BACKLOG_WAIT):
        pass


def hardened(chosen: type[Driver]) -> type[Driver]:
    """Return the hardened replacement of one of Textual's drivers, or the driver itself if it has none."""
    replacements: dict[type[Driver], type[Driver]] = {LinuxDriver: TerminalDriver, WebDriver: BrowserDriver}
    return replacements.get(chosen, chosen)
