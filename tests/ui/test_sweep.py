"""Every key of every screen, pressed in every odd state: whatever happens, nothing raises and the app lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from rich.text import Text
from textual.binding import Binding
from textual.events import Key
from textual.screen import Screen

from tests.ui.staging import PLAN, make, models, policy_of, running, solved, tick, until
from tts_tui import read
from tts_tui.errors import BackendUnavailable
from tts_tui.ui import recordings
from tts_tui.ui.app import TTSApp
from tts_tui.ui.keys import OWNERS
from tts_tui.ui.player import Player
from tts_tui.ui.screens.compare import CompareScreen
from tts_tui.ui.screens.dialogs import ChoiceDialog, Question, Write
from tts_tui.ui.screens.help import Help
from tts_tui.ui.screens.home import HomeScreen
from tts_tui.ui.screens.plan import PlanForm
from tts_tui.ui.screens.run import RunScreen
from tts_tui.ui.widgets.tree_view import TreeView

RECORDINGS = Path(__file__).parent / "recordings"
LAST = ("t", "ctrl+c")
"""Keys that end what a state is about are pressed last."""

Show = Callable[[], Screen]
"""Puts the screen of a state on top, as at first."""
STATES: list[Callable[..., Awaitable[Show]]] = []


def state(prepare: Callable[..., Awaitable[Show]]) -> Callable[..., Awaitable[Show]]:
    """Makes a function one of the states."""
    STATES.append(prepare)
    return prepare


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TTS_TUI_CONFIG", str(tmp_path / "none.toml"))


def keys_of(screen: type, most: int = 99) -> list[str]:
    """All keys of a screen, of the tree that may stand in it, and of the app, at most so many a binding, in order."""
    owners = [screen, TTSApp, *([TreeView] if issubclass(screen, RunScreen | CompareScreen) else [])]
    assert set(owners) <= set(OWNERS)
    pressed = {
        key: None
        for owner in owners
        for base in owner.__mro__
        if base.__module__.startswith("tts_tui")
        for binding in base.__dict__.get("BINDINGS", ())
        if isinstance(binding, Binding)
        for key in binding.key.split(",")[:most]
    }
    return sorted(pressed, key=lambda key: (key in LAST, key))


# -- the first screen --------------------------------------------------------------------------------------------------


def home(app):
    def show():
        while not isinstance(app.screen, HomeScreen):
            app.pop_screen()
        return app.screen

    return show


@state
async def home_empty(app, pilot):
    return home(app)


@state
async def home_with_runs(app, pilot):
    await solved(app, pilot)
    show = home(app)
    show().query_one("#runs").focus()
    return show


@state
async def home_with_a_run_that_goes_on(app, pilot):
    await begun(app, pilot)
    show = home(app)
    show().refresh_runs()
    app.screen.query_one("#runs").focus()
    app.screen.query_one("#runs").highlighted = 0
    return show


# -- runs --------------------------------------------------------------------------------------------------------------


async def begun(app, pilot, done=0):
    """A run whose policy has stopped in the middle."""
    policy = policy_of(app)
    policy.hold = asyncio.Event()
    runner = app.begin("What is it?")
    await until(lambda: runner.running and len(runner.model.writing) >= 4, pilot)
    return runner


def run(app, runner):
    return lambda: shown(app, RunScreen(runner=runner))


def shown(app, screen):
    app.push_screen(screen)
    return screen


@state
async def run_before_it_began(app, pilot):
    async def never():
        await asyncio.Event().wait()

    app.models.load = never
    return run(app, app.begin("What is it?"))


@state
async def run_running(app, pilot):
    return run(app, await begun(app, pilot))


@state
async def run_paused(app, pilot):
    runner = await begun(app, pilot)
    runner.search.pause()
    return run(app, runner)


@state
async def run_over(app, pilot):
    return run(app, await solved(app, pilot))


@state
async def run_failed(app, pilot):
    async def gone():
        raise BackendUnavailable("the server is gone: start it")

    app.models.load = gone
    runner = app.begin("What is it?")
    await until(lambda: runner.done, pilot)
    return run(app, runner)


@state
async def run_stopped_before_it_began(app, pilot):
    await run_before_it_began(app, pilot)
    await pilot.pause()
    app.runners[0].stop()
    await until(lambda: app.runners[0].done, pilot)
    return run(app, app.runners[0])


# -- recordings --------------------------------------------------------------------------------------------------------


def replay(app, share, name="beam.jsonl", change=(b"beam", b"beam")):
    path = recordings.folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((RECORDINGS / name).read_bytes().replace(*change))

    def show():
        player = Player(list(read(path)))
        player.playing = False
        player.seek(round(share * len(player)))
        return shown(app, RunScreen(player=player, path=path, title="replay"))

    return show


@state
async def replay_at_its_beginning(app, pilot):
    return replay(app, 0.0)


@state
async def replay_in_the_middle(app, pilot):
    return replay(app, 0.5)


@state
async def replay_at_its_end(app, pilot):
    return replay(app, 1.0)


@state
async def replay_of_a_strategy_that_is_not_installed(app, pilot):
    return replay(app, 1.0, change=(b'"strategy":"beam"', b'"strategy":"[/mine]"'))


@state
async def replay_without_models(app, pilot):
    app.models = app.plan = None
    return replay(app, 0.5)


# -- two runs ----------------------------------------------------------------------------------------------------------


@state
async def compare_a_run_with_itself(app, pilot):
    model = (await solved(app, pilot)).model
    return lambda: shown(app, CompareScreen(model, model, ("[/]", "same")))


@state
async def compare_a_run_that_goes_on_with_one_before_its_first_event(app, pilot):
    first = (await begun(app, pilot)).model
    player = Player(list(read(RECORDINGS / "best-of-n.jsonl")))
    return lambda: shown(app, CompareScreen(first, player.model))


# -- windows -----------------------------------------------------------------------------------------------------------


@state
async def question(app, pilot):
    return lambda: shown(app, Question("[/]?", "yes"))


@state
async def write(app, pilot):
    return lambda: shown(app, Write("0.1"))


@state
async def choice(app, pilot):
    return lambda: shown(app, ChoiceDialog("[/]", [Text("[/]"), Text("b")]))


@state
async def choice_among_nothing(app, pilot):
    return lambda: shown(app, ChoiceDialog("", []))


@state
async def plan(app, pilot):
    return lambda: shown(app, PlanForm(PLAN, app.models.solver.plan, app.models.solver.check))


@state
async def plan_of_a_strategy_that_is_not_installed(app, pilot):
    mine = PLAN.replace(strategy="mine")
    return lambda: shown(app, PlanForm(mine, app.models.solver.plan, app.models.solver.check))


@state
async def help_of_a_screen(app, pilot):
    return lambda: shown(app, Help(app.screen))


AT_ONCE = [run_before_it_began, compare_a_run_with_itself, write, plan]


# -- the sweep ---------------------------------------------------------------------------------------------------------


async def settle(app):
    """Lets everything come of what was pressed: until no message waits anywhere, some turns in a row."""
    quiet = 0
    for _ in range(2000):
        await asyncio.sleep(0)
        pumps = [app, *(widget for screen in app.screen_stack for widget in screen.walk_children(with_self=True))]
        stands = getattr(app.screen, "stands", True)
        quiet = quiet + 1 if stands and not any(pump.message_queue_size for pump in pumps) else 0
        if quiet > 2 or app._exception is not None:
            return


async def press(app, *keys, where):
    """Presses keys, one right after the other, and looks at the screen as its timer does."""
    for key in keys:
        app.post_message(Key(key, key if len(key) == 1 else None))
    await settle(app)
    if hasattr(app.screen, "tick"):
        tick(app, 1)
        await asyncio.sleep(0)
    assert app._exception is None, f"{keys} in {where}: {app._exception!r}"
    assert app.is_running, f"{keys} in {where}: the app is gone"


async def back_to(app, screen, show):
    """The screen of the state again, anew if it was left."""
    while app.screen is not screen and screen in app.screen_stack:
        await app.pop_screen()
    if app.screen is not screen:
        screen = show()
        await settle(app)
    return screen


@pytest.mark.parametrize("prepare", STATES, ids=lambda prepare: prepare.__name__)
async def test_no_key_breaks_anything(prepare, monkeypatch):
    monkeypatch.setattr(TTSApp, "leave_soon", lambda app, code: None)
    app = make(own=models())
    async with running(app, (80, 24)) as pilot:
        show = await prepare(app, pilot)
        screen = show()
        await settle(app)
        keys = keys_of(type(screen))
        for key in keys:
            await press(app, key, where=prepare.__name__)
            screen = await back_to(app, screen, show)
        await end(app, pilot)


@pytest.mark.parametrize("prepare", AT_ONCE, ids=lambda prepare: prepare.__name__)
async def test_no_key_breaks_a_screen_that_does_not_stand_yet(prepare, monkeypatch):
    monkeypatch.setattr(TTSApp, "leave_soon", lambda app, code: None)
    app = make(own=models())
    async with running(app, (80, 24)) as pilot:
        show = await prepare(app, pilot)
        screen = show()
        await settle(app)
        keys = keys_of(type(screen), most=1)
        for start in range(0, len(keys), 6):
            while len(app.screen_stack) > 2:
                await app.pop_screen()
            show()
            await press(app, *keys[start : start + 6], where=f"{prepare.__name__}, at once")
        await end(app, pilot)


async def end(app, pilot):
    """Ends what still runs."""
    for runner in app.runners:
        runner.stop()
        if (hold := runner.models.solver.policy.hold) is not None:
            hold.set()
    await until(lambda: all(runner.done for runner in app.runners), pilot)
