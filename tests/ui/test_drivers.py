"""The drivers of the terminal UI: how they wait for input, and what they outlive."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator

import pytest
from textual.drivers.linux_driver import LinuxDriver
from textual.drivers.web_driver import WebDriver

from tests.ui.staging import make
from tests.ui.terminal import Terminal
from tts_tui.ui import drivers
from tts_tui.ui.drivers import BrowserDriver, LenientFile, TerminalDriver, WakingEvent, watch
from tts_tui.ui.terminal_input import InputDecoder


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(end)


class Sleeper(InputDecoder):
    """Nothing is ever due, so that only bytes or the end wake the reader."""

    timeout = None


@pytest.mark.parametrize(
    ("chosen", "used"),
    [
        ("textual.drivers.linux_driver:LinuxDriver", TerminalDriver),
        ("textual.drivers.web_driver:WebDriver", BrowserDriver),
    ],
)
def test_the_app_takes_the_driver_that_outlives_its_input(chosen, used, monkeypatch):
    monkeypatch.setattr("textual.constants.DRIVER", chosen)
    assert make().driver_class is used
    assert issubclass(used, LinuxDriver | WebDriver)


def test_the_end_of_the_input_is_told(pipe):
    reading, writing = pipe
    os.write(writing, b"ab")
    os.close(writing)
    taken = []
    assert watch(reading, WakingEvent(), Sleeper(), taken.append) is True
    assert taken == [b"ab"]


def test_a_terminal_that_has_gone_is_the_end_of_the_input():
    ours, theirs = os.openpty()
    os.close(ours)
    assert watch(theirs, WakingEvent(), Sleeper(), lambda data: None) is True
    os.close(theirs)


def test_a_reader_that_waits_for_ever_ends_as_soon_as_the_driver_closes(pipe):
    closing, results = WakingEvent(), []
    thread = threading.Thread(target=lambda: results.append(watch(pipe[0], closing, Sleeper(), lambda data: None)))
    thread.start()
    closing.set()
    thread.join(60)
    assert results == [False]
    closing.set()
    closing.clear()
    os.write(pipe[1], b"a")  # as after Ctrl-Z and fg: the event can be used again
    assert watch(pipe[0], closing, Sleeper(), lambda data: closing.set()) is False


def test_an_app_that_has_fallen_behind_is_waited_for():
    sizes, taken = [drivers.BACKLOG + 1, drivers.BACKLOG + 1, drivers.BACKLOG], []

    class App:
        @property
        def message_queue_size(self):
            return sizes.pop(0)

    class Driver:
        _app = App()
        process_message = taken.append

    class Closing:
        wait = staticmethod(lambda seconds: False)

    drivers.deliver(Driver, InputDecoder(), b"abc", Closing)
    assert len(taken) == 3 and not sizes


def test_what_is_written_to_a_terminal_that_has_gone_is_dropped():
    ours, theirs = os.openpty()
    os.close(ours)
    gone = os.fdopen(theirs, "w")
    file = LenientFile(gone)
    file.write("x")
    file.flush()
    with pytest.raises(OSError):
        gone.close()


HOSTILE = [
    b"\x1b[M#\xa50",  # a mouse report beyond column 95, in the encoding of X10
    b"\xff\xfe\x80\xc3",
    b"\x1b[1114112u\x1b[99999999999999999999u",
    b"\x1b[55296u\x1b[97;1;55296u",
    b"\x1b[48;0;0;0;0t",
    b"\x1b[" + b"9" * 2000,
    b"\0" * 100,
    b"\x1b[200~a paste\xff\x1b[201~",
]


@pytest.mark.tmux
@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_whatever_a_terminal_sends_the_next_key_arrives(tmp_path):
    home = {"TTS_TUI_HOME": str(tmp_path), "TTS_TUI_CONFIG": str(tmp_path / "none.toml")}
    with Terminal("tui", **home) as terminal:
        terminal.wait("Problem")
        for data in HOSTILE:
            terminal.send(data)
        terminal.wait("paste")
        terminal.type(" and a key")
        terminal.wait("and a key")
        terminal.press("C-q")
        terminal.wait("EXIT=0")
        terminal.wait("WHOLE", 5)
