"""The terminal UI on scripted models: what tests of screens share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from textual.pilot import Pilot

from tests.scripted import SEPARATOR, ScriptedPolicy, ScriptedPRM, encode
from tts_tui import Plan, Solver
from tts_tui.ui.app import TTSApp
from tts_tui.ui.model_loader import ModelLoader
from tts_tui.ui.runner import Runner
from tts_tui.ui.screens.run import RunScreen
from tts_tui.ui.settings import Settings


def script(path: tuple[str, ...], draw: int) -> str:
    """Two steps, then one of two answers."""
    if len(path) == 2:
        return f"So the answer is \\boxed{{{draw % 2 + 9}}}"
    return f"Step {len(path) + 1}: thought {draw % 5}{SEPARATOR}"


def rule(steps: tuple[str, ...]) -> float:
    """A score that depends on the texts alone."""
    return (sum(map(ord, "".join(steps))) % 97) / 97


class Wordy(ScriptedPolicy):
    """Takes steps in words."""

    async def encode(self, text: str) -> tuple[int, ...]:
        """One id a character."""
        return tuple(encode(text))


def models(said: Callable[[tuple[str, ...], int], str] = script, **settings: Any) -> ModelLoader:
    """Scripted models, as the app has real ones."""
    policy = Wordy(said, piece=settings.pop("piece", 5), **settings)
    return ModelLoader(Solver(policy, ScriptedPRM(rule)), "scripted", "scripted")


PLAN = Plan(strategy="beam", n=8, m=4, why="chosen by the test")


def make(plan: Plan = PLAN, *, own: ModelLoader | None = None, **settings: Any) -> TTSApp:
    """An app on scripted models."""
    return TTSApp(own or models(), plan, Settings(**settings))


@asynccontextmanager
async def running(app: TTSApp, size: tuple[int, int] = (120, 36)) -> AsyncIterator[Pilot[int]]:
    """The app on a screen of `size` columns and rows."""
    async with app.run_test(size=size, notifications=True) as pilot:
        await pilot.pause()
        yield pilot


def policy_of(app: TTSApp) -> ScriptedPolicy:
    """The scripted policy of the app."""
    assert app.models is not None
    policy = app.models.solver.policy
    assert isinstance(policy, ScriptedPolicy)
    return policy


async def until(condition: Callable[[], object], pilot: Pilot[int], turns: int = 300) -> None:
    """Lets the app go on until `condition` holds."""
    for _ in range(turns):
        if condition():
            return
        await pilot.pause()
        await asyncio.sleep(0)
    raise AssertionError(f"it never came true; the screen:\n{picture(pilot.app)}")


async def solved(app: TTSApp, pilot: Pilot[int], problem: str = "What is it?") -> Runner:
    """A run that has ended, on its screen."""
    runner = app.begin(problem)
    assert runner is not None
    await until(lambda: runner.done, pilot)
    await until(lambda: isinstance(app.screen, RunScreen), pilot)
    tick(app)
    await pilot.pause()
    return runner


def tick(app: Any, times: int = 4) -> None:
    """What the timer of the screen does."""
    for _ in range(times):
        app.screen.tick()


def picture(app: Any) -> str:
    """The text on the screen."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())
