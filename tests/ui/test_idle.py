"""While nothing changes nothing is computed or drawn: not a single timer is left that would wake the app."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.ui.staging import make, models, picture, running, script, solved, until
from tts_tui.tree.recording import Recording
from tts_tui.ui.screens.home import HomeScreen
from tts_tui.ui.screens.pulsing import Pulsing
from tts_tui.ui.screens.run import RunScreen

MOST = 100
"""Timers that may go off until the app rests: ten seconds of frames."""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TTS_TUI_CONFIG", str(tmp_path / "none.toml"))


async def rested() -> int:
    """How many timers went off until none was left.

    An event loop without timers sleeps until something comes from outside, for however many seconds that is.

    Raises:
        AssertionError: They never cease.
    """
    loop = asyncio.get_running_loop()
    for count in range(MOST):
        for _ in range(20):  # lets everything run that needs no timer
            await asyncio.sleep(0)
        waiting = [handle for handle in loop._scheduled if not handle.cancelled()]
        if not waiting:
            return count
        due = loop.create_future()
        loop.call_at(min(handle.when() for handle in waiting), due.set_result, None)
        await due
    raise AssertionError(f"something goes on without an end: {waiting}")


async def test_the_first_screen_rests():
    app = make()
    async with running(app) as pilot:
        await rested()
        assert isinstance(app.screen, HomeScreen) and app.screen.resting
        await pilot.press("a")
        assert not app.screen.resting
        await rested()


async def test_a_search_that_is_over_rests_on_every_screen():
    app = make()
    async with running(app) as pilot:
        runner = await solved(app, pilot)
        await rested()
        for key in ("slash", "escape", "2", "question_mark", "escape", "tab", "down"):
            await pilot.press(key)
            await pilot.pause()
            await rested()
        app.compare(runner.model, runner.model)
        await pilot.pause()
        await rested()
        await pilot.press("escape", "escape")
        await pilot.pause()
        assert isinstance(app.screen, HomeScreen)
        await rested()


async def test_a_recording_rests_at_its_end():
    app = make()
    async with running(app) as pilot:
        runner = await solved(app, pilot)
        app.open_recording(Recording.load(runner.path))
        await pilot.pause()
        assert isinstance(app.screen, RunScreen) and app.screen.player is not None
        await rested()


async def test_a_paused_search_rests_and_wakes_with_its_next_event():
    app = make(own=models(script))
    async with running(app) as pilot:
        runner = app.begin("What is it?")
        runner.held = True
        await until(lambda: runner.model.tree.paused and not runner.model.writing, pilot)
        await until(lambda: isinstance(app.screen, RunScreen), pilot)
        await rested()
        before = len(runner.model.tree)
        assert not runner.changing and app.screen.resting and "paused" in picture(app)
        runner.search.go_on()  # by program, without any key
        await until(lambda: runner.done, pilot)
        assert not app.screen.resting
        await rested()
        assert len(runner.model.tree) > before and "complete" in picture(app)


async def test_a_search_that_ends_behind_another_window_is_seen_when_that_is_closed():
    app = make(own=models(script))
    async with running(app) as pilot:
        runner = app.begin("What is it?")
        runner.held = True
        await until(lambda: runner.model.tree.paused and isinstance(app.screen, RunScreen), pilot)
        await rested()
        await pilot.press("question_mark")
        await rested()
        runner.search.go_on()
        await until(lambda: runner.done, pilot)
        await rested()
        await pilot.press("escape")
        await rested()
        assert "complete" in picture(app)


async def test_what_changes_by_itself_keeps_a_screen_awake():
    class Changing(Pulsing):
        lively = True
        looks = 0

        def on_mount(self):
            self.begin_pulse(1000)

        def look(self):
            self.looks += 1

    app = make()
    async with running(app) as pilot:
        screen = Changing()
        app.push_screen(screen)
        await until(lambda: screen.looks > 3 * screen.LINGER, pilot)
        screen.lively = False
        await rested()
        looks = screen.looks
        screen.wake()
        await rested()
        assert screen.looks == looks + screen.LINGER
