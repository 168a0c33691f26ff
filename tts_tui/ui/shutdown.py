"""The ways the terminal UI ends: a key, a signal, or an error of its own. Searches end before it does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from dataclasses import replace
from typing import ClassVar, NoReturn

from textual.app import App
from textual.binding import BindingType
from textual.css.query import NoMatches
from textual.driver import Driver
from textual.worker import WorkerFailed

from tts_tui.displays import signals
from tts_tui.displays.session import INTERRUPTED, hear
from tts_tui.ui.bindings import keys
from tts_tui.ui.model_loader import ModelLoader
from tts_tui.ui.runner import Runner
from tts_tui.ui.screens.dialogs import Question

PATIENCE = 5.0
"""Seconds that searches have for their last events when the app is closed."""


class ShutdownApp(App[int]):
    """An app whose searches end before it does.

    Attributes:
        models: The loader of the models that searches use; None for a session that only shows recordings.
        runners: Runs of this session, oldest first.
        hung_up: Whether the terminal has gone.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        replace(binding, priority=True)
        for binding in keys(
            ("app.quit", "ctrl+q", "leave", "quit", "Quit; asks if something runs"),
            ("app.interrupt", "ctrl+c", "interrupt", "stop", "Stop the search; once more quits"),
            show=False,
        )
    ]

    models: ModelLoader | None
    runners: list[Runner]
    hung_up = False
    _leaving = False

    @property
    def busy(self) -> bool:
        """True if any search is running or about to start."""
        return any(not runner.done for runner in self.runners)

    def listen(self) -> None:
        """Start listening for signals."""
        hear(self._signalled)
        if signals.QUIT in signals.heeded():
            signal.signal(signals.QUIT, self._quit)

    def on_input_ended(self) -> None:
        """Stop and exit, because the terminal or the server of a browser session has gone: the app is not visible."""
        if not self._leaving and signals.HANG_UP is not None:
            signals.note(signals.HANG_UP)
            self._signalled(signals.HANG_UP)

    def _signalled(self, kind: int) -> None:
        """Stop all runs and exit on a signal from outside; the second signal does not wait."""
        if self.hung_up and kind == signals.HANG_UP:  # already handled when the input ended
            return
        if self._leaving or not self.is_running:
            self._leave_at_once()
        self._leaving = True
        self.hung_up = kind == signals.HANG_UP
        self._leave_at_last()
        self.leave_soon(signals.exit_code())

    def _quit(self, kind: int, _: object) -> None:
        signals.note(kind)
        self._leave_at_once()

    def _leave_at_last(self) -> None:
        """Start a watchdog that ends the process after a while, even if something is still running."""
        last = threading.Timer(PATIENCE + 2, lambda: os._exit(signals.exit_code()))
        last.daemon = True
        last.start()

    def _leave_at_once(self) -> NoReturn:
        """Restore the terminal, if there still is one, and end the process."""
        if self._driver is not None and not self.hung_up:
            self._leave_at_last()  # the terminal may accept no more output
            with contextlib.suppress(Exception):
                self._driver.stop_application_mode()
                self._driver.close()
        os._exit(signals.exit_code())

    def leave_soon(self, code: int) -> None:
        """Exit as soon as all searches have ended."""
        self.run_worker(self._wind_up(code), exit_on_error=False, group="end")

    async def _wind_up(self, code: int) -> None:
        """Stop all searches, wait for their last events, free the models, and exit."""
        for runner in self.runners:
            runner.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for runner in self.runners:
                    await runner.ended.wait()
        if self.models is not None and not self.models.loading:
            await self.models.close()
        self.exit(code)

    def get_driver_class(self) -> type[Driver]:
        """Return a driver that survives any input."""
        chosen = super().get_driver_class()
        if os.name != "posix":
            return chosen
        from tts_tui.ui.drivers import hardened  # needs termios

        return hardened(chosen)

    # -- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Let Ctrl-C copy where text is selected, as everywhere else."""
        if action == "interrupt":
            return not (getattr(self.focused, "selected_text", "") or self.screen.get_selected_text())
        return True

    def action_interrupt(self) -> None:
        """Stop the search on the screen on Ctrl-C; exit the second time, or if there is none."""
        shown = (getattr(screen, "runner", None) for screen in reversed(self.screen_stack))
        runner: Runner | None = next((runner for runner in shown if runner is not None and not runner.done), None)
        if isinstance(self.screen, Question) or (runner is not None and runner.stopping):
            self.leave_soon(INTERRUPTED if self.busy else 0)
        elif runner is None:
            self.action_leave()
        else:
            runner.stop()
            self.notify("Stopping: the best answer so far is taken. Once more quits.", markup=False)

    def action_leave(self) -> None:
        """Exit, after confirmation if a search is running."""
        if not self.busy:
            self.leave_soon(0)
            return

        def answer(yes: bool | None) -> None:
            if yes:
                self.leave_soon(INTERRUPTED if self.busy else 0)

        self.push_screen(Question("A search is running. Stop it, keep what it has, and quit?", "stop and quit"), answer)

    def _handle_exception(self, error: Exception) -> None:
        """Handle an error as Textual does, but ignore workers whose screen has been closed, such as the palette's."""
        if not (isinstance(error, WorkerFailed) and isinstance(error.error, NoMatches)):
            super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Restore the terminal after an error of the UI itself, without a traceback unless `TTS_TUI_DEBUG` is set."""
        if os.environ.get("TTS_TUI_DEBUG"):
            super()._fatal_error()
        else:
            self._close_messages_no_wait()
