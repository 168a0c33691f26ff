"""Textual's drivers, made to outlive any input and to sleep while there is none.

Both block until bytes come instead of polling, decode with `InputDecoder`, and tell the app when their input has ended:
the terminal has gone, or the server behind a browser session.
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
"""Bytes of a read."""
BACKLOG = 1_000
"""Messages that may wait for the app before more input is read."""
BACKLOG_WAIT = 0.05
"""Seconds between looks at whether it has caught up."""


class InputEnded(Message):
    """Nothing will ever be typed again: the terminal or the server behind the app has gone."""


class WakingEvent(threading.Event):
    """An event that also makes a file readable, so that a selector can wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._reading, self._writing = os.pipe()

    def fileno(self) -> int:
        """The file that is readable while the event is set."""
        return self._reading

    def set(self) -> None:
        """Sets it."""
        before = self.is_set()
        super().set()  # first: whoever wakes looks at it
        if not before:
            os.write(self._writing, b"x")

    def clear(self) -> None:
        """Clears it."""
        if self.is_set():
            os.read(self._reading, 1)
        super().clear()


class LenientFile:
    """A file whose disk or reader may go away: from then on, what is written is dropped.

    Textual's output thread would end with the error, and the app would wait for it for ever.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Writes, if that is possible."""
        self._try(lambda: self._file.write(text))

    def flush(self) -> None:
        """Flushes, if that is possible."""
        self._try(self._file.flush)

    def fileno(self) -> int:
        """The file descriptor."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._file.isatty()

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, ValueError):
            return


def watch(fileno: int, closing: WakingEvent, decoder: InputDecoder, take: Callable[[bytes], object]) -> bool:
    """Calls `take` with all that can be read, and with nothing when `decoder` is due, until `closing` is set.

    Returns:
        Whether the input has ended.
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
            except OSError:  # a terminal that has gone
                return True
            if ready and not data:
                return True
            take(data)


class TerminalDriver(LinuxDriver):
    """The app in a terminal."""

    exit_event: WakingEvent

    def __init__(self, app: App[Any], **settings: Any) -> None:
        super().__init__(app, **settings)
        self._file = LenientFile(self._file)  # type: ignore[arg-type, assignment]
        self.exit_event = WakingEvent()

    def run_input_thread(self) -> None:
        """Reads keys until the app ends, or the terminal goes."""
        decoder = InputDecoder(self._debug)
        if watch(self.fileno, self.exit_event, decoder, lambda data: deliver(self, decoder, data, self.exit_event)):
            self.send_message(InputEnded())


class BrowserDriver(WebDriver):
    """The app behind a browser, on the pipes of `tts-tui serve-ui`."""

    exit_event: WakingEvent

    def __init__(self, app: App[Any], **settings: Any) -> None:
        super().__init__(app, **settings)
        self._write = self._write_or_drop  # type: ignore[assignment]
        self.exit_event = WakingEvent()

    def _write_or_drop(self, data: bytes) -> None:
        try:
            os.write(self.fileno, data)
        except OSError:  # the server has gone, which the input tells, too
            return

    def run_input_thread(self) -> None:
        """Reads packets until the app ends, or the server goes."""
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
    """Hands what `data` completes to the app, and waits for an app that has fallen far behind."""
    for message in decoder.feed(data) if data else decoder.tick():
        driver.process_message(message)
    while driver._app.message_queue_size > BACKLOG and not closing.wait(BACKLOG_WAIT):
        pass


def hardened(chosen: type[Driver]) -> type[Driver]:
    """The driver to use in the place of one of Textual's."""
    replacements: dict[type[Driver], type[Driver]] = {LinuxDriver: TerminalDriver, WebDriver: BrowserDriver}
    return replacements.get(chosen, chosen)
