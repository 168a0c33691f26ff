"""Launching the terminal UI from the command line, and restoring the terminal afterwards."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tts_tui.budget import Budget
from tts_tui.displays import phrases, signals
from tts_tui.displays.base import is_terminal
from tts_tui.displays.session import INTERRUPTED, exit_code, note
from tts_tui.errors import UsageError
from tts_tui.formatting import one_line
from tts_tui.plan import Plan
from tts_tui.tree.recording import Recording
from tts_tui.ui.app import TTSApp
from tts_tui.ui.model_loader import ModelLoader
from tts_tui.ui.runner import Runner
from tts_tui.ui.settings import Settings

Opening = Callable[[TTSApp], "Runner | None"]
"""A function that opens something in the started app, and returns the run that sets the session's exit code, if any."""


def launch(models: ModelLoader | None, plan: Plan | None, settings: Settings, opening: Opening | None = None) -> int:
    """Run the app until it is closed, and return the exit code.

    Raises:
        UsageError: There is no terminal, or the settings name keys that do not exist.
    """
    if not can_open():
        raise UsageError(
            "the terminal UI needs a terminal: use `tts-tui solve` with --display plain or json, or `tts-tui --help`"
        )
    app = TTSApp(models, plan, settings, opening)
    code, loading = _run(app)
    if app.asked is not None and not app.hung_up:
        code = _report(app.asked)
    if signals.received():
        code = signals.exit_code()
    if (fault := app._exception) is not None:
        what = one_line(f"{type(fault).__name__}: {fault}", 400)
        note(f"the terminal UI failed ({what}); what was recorded is kept, TTS_TUI_DEBUG=1 says more")
        code = 3
    if loading:  # a thread that is still loading would delay the exit by seconds
        sys.stdout.flush()
        os._exit(code)
    return code


def _run(app: TTSApp) -> tuple[int, bool]:
    """Run the app like `App.run`, but without waiting for threads that are still loading a model.

    Returns:
        The exit code, and whether there is such a thread.
    """
    loop = asyncio.new_event_loop()
    try:
        code = loop.run_until_complete(_attentive(app)) or 0
        loading = app.models is not None and app.models.loading  # False as soon as its task is cancelled
        loop.run_until_complete(_end_all())
        if not loading:
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    return code, loading


async def _attentive(app: TTSApp) -> int | None:
    """Run the app, listening for signals before anything is drawn."""
    app.listen()
    return await app.run_async()


async def _end_all() -> None:
    """Cancel all tasks that are still running in this loop, and wait for them."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def can_open() -> bool:
    """Return whether the app has something to draw on: a terminal on standard error, or a browser."""
    return served() or (sys.stdin is not None and is_terminal(sys.stderr) and sys.stdin.isatty())


def served() -> bool:
    """Return whether the app is drawn in a browser by `tts-tui serve-ui`, not in a terminal on standard error."""
    return "web_driver" in os.environ.get("TEXTUAL_DRIVER", "")


def _report(runner: Runner) -> int:
    """Print the answer on the terminal's normal screen, and return the exit code."""
    finished = runner.model.tree.finished
    if finished is None and not runner.trouble:
        note("stopped before the search began")
    if finished is not None:
        print("\n".join(phrases.closing(finished)))
    if runner.path is not None and runner.path.exists():
        print(f"Recorded in {runner.path}")
    if runner.trouble:
        note(one_line(runner.trouble, 1000))
        return 3
    return exit_code(finished) if finished is not None else INTERRUPTED


def problem(text: str, path: Path | None) -> Opening:
    """Return an opening that starts a search for `text`."""
    return lambda app: app.begin(text, path)


def recording(read: Recording, speed: float) -> Opening:
    """Return an opening that replays a recording."""

    def play(app: TTSApp) -> None:
        app.open_recording(read, speed)

    return play


def resumption(read: Recording, budget: Budget | None) -> Opening:
    """Return an opening that resumes a run."""
    return lambda app: app.resume_recording(read, budget)


def comparison(first: Recording, second: Recording) -> Opening:
    """Return an opening that shows two recordings side by side."""

    def show(app: TTSApp) -> None:
        app.compare_recordings(first, second)

    return show
