"""The terminal UI in a real browser: `tts-tui serve-ui` as a process, Chromium before it, the embedded model behind."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.servers import free_port
from tts_tui import load
from tts_tui.backends.local import download

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.embedded,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
]

SHORT = ("--strategy", "majority", "-n", "2", "--prm", "none", "--max-depth", "2", "--total-tokens", "48")
SECONDS = 90.0
"""What anything may take; loading the model on two busy cores takes the most."""

# The page keeps its terminal to itself; whatever is stored under that name is kept here as well.
FIND_TERMINAL = """
Object.defineProperty(Object.prototype, "terminal", {configurable: true, set(value) {
    window.theTerminal = value;
    Object.defineProperty(this, "terminal", {value, writable: true, configurable: true, enumerable: true});
}});
window.theScreen = () => {
    const {cols, rows, buffer} = window.theTerminal ?? {rows: 0};
    const line = row => buffer.active.getLine(row)?.translateToString(true, 0, cols) ?? "";
    return [...Array(rows).keys()].map(line).join("\\n");
};
"""


class Visitor:
    """Somebody in front of the page: reads what stands on its terminal, clicks, types."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @property
    def screen(self) -> str:
        """The text on the terminal."""
        return str(self.page.evaluate("theScreen()"))

    def wait(self, pattern: str) -> str:
        """The screen, once `pattern` is found on it.

        Raises:
            AssertionError: It never was, or the session has ended; the message shows the screen.
        """
        # Asked from here: the page's policy lets nothing evaluate code inside it, playwright's own waiting included.
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and "-closed" not in self.page.evaluate("document.body.className"):
            shown = self.screen
            if re.search(pattern, shown):
                return shown
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{pattern!r} never stood on the screen:\n{self.screen}")

    def click(self, text: str) -> None:
        """Clicks the first place where `text` stands."""
        lines = self.screen.splitlines()
        row = next(number for number, line in enumerate(lines) if text in line)
        columns, rows = self.page.evaluate("[theTerminal.cols, theTerminal.rows]")
        box = self.page.locator(".xterm-screen").bounding_box()
        assert box is not None
        column = lines[row].index(text) + len(text) / 2
        self.page.mouse.click(box["x"] + column * box["width"] / columns, box["y"] + (row + 0.5) * box["height"] / rows)

    def press(self, *keys: str) -> None:
        """Presses keys, by the browser's names."""
        for key in keys:
            self.page.keyboard.press(key)

    def colours(self) -> int:
        """How many colours the picture of the terminal has, as the browser shows it."""
        picture = self.page.screenshot()
        count = """async data => {
            const image = await createImageBitmap(new Blob([Uint8Array.from(data)], {type: "image/png"}));
            const canvas = new OffscreenCanvas(image.width, image.height), pen = canvas.getContext("2d");
            pen.drawImage(image, 0, 0);
            return new Set(new Uint32Array(pen.getImageData(0, 0, image.width, image.height).data.buffer)).size;
        }"""
        return int(self.page.evaluate(count, list(picture)))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of its own for recordings; the model is the one that is there."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / download.EMBEDDED.folder).symlink_to(download.pull())
    return folder


@pytest.fixture
def server(home: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`tts-tui serve-ui` and its address."""
    own = {"TTS_TUI_HOME": str(home), "TTS_TUI_CONFIG": str(tmp_path / "none.toml"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tts_tui", "serve-ui", "--port", str(free_port()), "--", *SHORT]
    with subprocess.Popen(command, env={**os.environ, **own}, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert found is not None, said
            yield process, found[0]
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def visitor(server: tuple[Any, str]) -> Iterator[Visitor]:
    """Somebody whose browser reaches this machine and no other, and who meets no fault of the page."""
    from playwright.sync_api import sync_playwright

    url, foreign, faults = server[1], [], []

    def route(route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            foreign.append(route.request.url)
            route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 760})
        page.route("**/*", route)
        page.on(
            "websocket", lambda line: foreign.append(line.url) if urlsplit(line.url).hostname != "127.0.0.1" else None
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.add_init_script(FIND_TERMINAL)
        page.goto(url)
        yield Visitor(page)
        browser.close()
    assert foreign == [] and faults == []


def test_a_problem_is_solved_in_the_browser(server, visitor, home):
    process, _ = server
    for word in ("Problem", "Examples", "majority"):  # What a slow machine draws in several steps.
        visitor.wait(word)
    assert visitor.colours() > 20, "the terminal is drawn"

    # Keys count from the start, without a click.
    visitor.page.keyboard.type("What is 2 + 2?")
    visitor.wait(r"What is 2 \+ 2\?")
    visitor.press("Enter")
    visitor.wait(r"★|■")
    (path,) = (home / "runs" / "visitors").glob("*/*.jsonl")
    tree = load(path)
    assert tree.start.problem == "What is 2 + 2?" and tree.plan.n == 2

    # A click in the tree chooses a step, and the step's panel tells of it; so do keys.
    step = next(node for node in tree.nodes[1:] if node.merged_into is None)
    visitor.click(step.text.split("\n")[0][:12])
    visitor.wait(rf"step {re.escape(step.label)} ·")
    visitor.press("g")
    visitor.wait(r"step 0 ·")
    assert visitor.colours() > 20

    # The screen follows the window, and the session ends with the key that ends it.
    visitor.page.set_viewport_size({"width": 700, "height": 420})
    visitor.wait(r"\A([^\n]{0,90}\n)+[^\n]*palette[^\n]*\Z")
    assert "What is 2 + 2?" in visitor.screen
    visitor.press("Control+q")
    visitor.page.locator("body.-closed").wait_for(timeout=1000 * SECONDS)

    process.send_signal(signal.SIGINT)
    assert process.wait(30) in (0, 130)
    assert process.stderr.read() == ""


def test_a_click_in_the_list_of_examples_takes_one(visitor):
    visitor.wait("Examples")
    visitor.click("3x + 5 = 20")
    visitor.wait(r"Problem[^\n]*\n[^\n]*Solve for x: 3x \+ 5 = 20")
