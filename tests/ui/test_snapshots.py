"""How the screens look. The pictures lie in `__snapshots__`.

`pytest tests/ui/test_snapshots.py --snapshot-update`, and then a look at each, takes a change over.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from tests.displays.test_decisions import FIRST, SECOND
from tests.ui.staging import make, models, running, tick, until
from tts_tui import read
from tts_tui.displays.export import without_fonts
from tts_tui.errors import BackendUnavailable
from tts_tui.tree.events import SearchPaused
from tts_tui.ui.app import TTSApp
from tts_tui.ui.player import Player
from tts_tui.ui.screens.run import RunScreen

RECORDINGS = Path(__file__).parent / "recordings"


class SVG(SingleFileSnapshotExtension):
    """One picture a file."""

    _write_mode = WriteMode.TEXT
    file_extension = "svg"


@pytest.fixture
def picture(snapshot, tmp_path, monkeypatch):
    """Compares what an app shows to its stored picture."""
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path))

    def compare(app: TTSApp) -> None:
        svg = re.sub(r"terminal-\d+", "terminal", without_fonts(app.export_screenshot()))
        assert svg == snapshot(extension_class=SVG)

    return compare


def film(name: str, upto: float = 1.0) -> Player:
    """A recording, at rest at some share of it."""
    player = Player(list(read(RECORDINGS / f"{name}.jsonl")))
    player.playing = False
    player.seek(round(upto * len(player)))
    return player


def auto() -> Player:
    """The same problem under `auto`, as it stands when a search is chosen."""
    start, *events = read(RECORDINGS / "beam.jsonl")
    begun = replace(start, plan=start.plan.replace(strategy="auto", n=64))
    player = Player([begun, FIRST, *events[:-1], replace(SECOND, t=events[-2].t)])
    player.playing = False
    player.seek(len(player))
    return player


async def still(app, pilot, player: Player) -> RunScreen:
    """Shows a film as it stands; no timer turns a spinner."""
    screen = RunScreen(player=player, title="replay")
    screen.look = lambda: None
    await app.push_screen(screen)
    await pilot.pause()
    tick(app, 8)
    await pilot.pause()
    return screen


async def test_wide(picture):
    app = make()
    async with running(app, (130, 34)) as pilot:
        screen = await still(app, pilot, film("beam"))
        screen.tree_view.select(3)
        tick(app, 8)
        await pilot.pause()
        picture(app)


async def test_eighty_by_twenty_four(picture):
    app = make()
    async with running(app, (80, 24)) as pilot:
        await still(app, pilot, film("best-of-n"))
        picture(app)


async def look_at_plan(app, pilot) -> None:
    """Shows what `auto` chose."""
    screen = await still(app, pilot, auto())
    await pilot.press("5")
    await until(lambda: tick(app, 3) or screen.query_one("#plan").size.height > 6, pilot)
    tick(app, 8)
    await pilot.pause()


async def test_auto(picture):
    app = make()
    async with running(app, (130, 40)) as pilot:
        await look_at_plan(app, pilot)
        picture(app)


async def test_auto_at_eighty_by_twenty_four(picture):
    app = make()
    async with running(app, (80, 24)) as pilot:
        await look_at_plan(app, pilot)
        picture(app)


async def test_narrow_and_low(picture):
    app = make()
    async with running(app, (44, 11)) as pilot:
        await still(app, pilot, film("beam"))
        picture(app)


async def test_paused_in_the_middle(picture):
    app = make()
    async with running(app, (110, 30)) as pilot:
        player = film("beam", 0.55)
        player.model.apply(SearchPaused(t=player.model.tree.seconds))
        await still(app, pilot, player)
        picture(app)


async def test_home(picture):
    app = make()
    async with running(app, (100, 28)) as pilot:
        await pilot.pause()
        picture(app)


async def test_help(picture):
    app = make()
    async with running(app, (100, 40)) as pilot:
        await still(app, pilot, film("beam"))
        await pilot.press("question_mark")
        await pilot.pause()
        picture(app)


async def test_the_plan(picture):
    app = make()
    async with running(app, (100, 28)) as pilot:
        await pilot.press("ctrl+o")
        await pilot.pause()
        picture(app)


async def test_no_colour(picture, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = make()
    async with running(app, (100, 28)) as pilot:
        await still(app, pilot, film("beam"))
        picture(app)


async def test_light(picture):
    app = make(theme="textual-light")
    async with running(app, (100, 28)) as pilot:
        await still(app, pilot, film("beam"))
        picture(app)


async def test_an_error(picture):
    own = models()

    async def gone():
        raise BackendUnavailable("the server at http://127.0.0.1:30000 does not answer: start it, or name another one")

    own.load = gone
    app = make(own=own, record=False)
    async with running(app, (100, 28)) as pilot:
        app.begin("What is 7 * 6 + 5?")
        await pilot.pause()
        app.clear_notifications()
        tick(app, 8)
        app.clear_notifications()
        await pilot.pause()
        picture(app)


async def test_compare(picture):
    app = make()
    async with running(app, (120, 32)) as pilot:
        app.compare(film("beam").model, film("best-of-n").model)
        await pilot.pause()
        app.screen.tick()
        await pilot.pause()
        picture(app)
