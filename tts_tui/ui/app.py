"""The Textual app of the terminal UI: its screens, the runs of this session, and the commands that open them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from pathlib import Path

from rich.text import Text
from textual.app import SystemCommand
from textual.events import Event, InputEvent, Paste
from textual.screen import Screen

from tts_tui.budget import Budget
from tts_tui.displays import phrases
from tts_tui.displays.status_lines import short_plan
from tts_tui.errors import TTSError
from tts_tui.formatting import one_line
from tts_tui.plan import Plan
from tts_tui.solver import check_problem
from tts_tui.tree.recording import Recording
from tts_tui.tree.search_tree import SearchTree
from tts_tui.ui import recordings
from tts_tui.ui.model_loader import ModelLoader
from tts_tui.ui.player import Player
from tts_tui.ui.run_model import RunModel
from tts_tui.ui.runner import Runner
from tts_tui.ui.screens.dialogs import ChoiceDialog, Palette
from tts_tui.ui.screens.home import HomeScreen, describe
from tts_tui.ui.screens.pulsing import Pulsing
from tts_tui.ui.screens.run import RunScreen
from tts_tui.ui.settings import Settings
from tts_tui.ui.shutdown import ShutdownApp

ONLY_SHOWS = "this session only shows recordings: open the terminal UI with `tts-tui` to solve problems"


class TTSApp(ShutdownApp):
    """The terminal UI app.

    Args:
        models: The loader of the models that searches use; None for a session that only shows recordings.
        plan: The plan of the next search; users may change it.
        settings: Theme, keys, and whether runs are recorded.
        opening: Called once the first screen is shown, to open something over it.

    Attributes:
        runners: Runs of this session, oldest first.
        asked: The run that the session was opened for, or None.
    """

    TITLE = "tts-tui"
    CSS_PATH = "style.tcss"
    ENABLE_COMMAND_PALETTE = True
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - Textual declares it
        (0, "-tiny"),
        (40, "-narrow"),
        (80, "-medium"),
        (120, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012 - as above
        (0, "-flat"),
        (12, "-low"),
        (30, "-tall"),
    ]

    def __init__(
        self,
        models: ModelLoader | None,
        plan: Plan | None,
        settings: Settings | None = None,
        opening: Callable[[TTSApp], Runner | None] | None = None,
    ) -> None:
        super().__init__()
        self.models = models
        self.plan = plan
        self.settings = settings or Settings()
        self.runners: list[Runner] = []
        self.asked: Runner | None = None
        self._opening = opening

    # -- begin and end -----------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Apply the settings, open the first screen and connect to remote models."""
        if self.settings.theme:
            self.theme = self.settings.theme
        if self.settings.keymap:
            self.set_keymap(self.settings.keymap)
        self.listen()
        self.push_screen(HomeScreen())
        if self._opening is not None:
            self.asked = self._opening(self)
        if self.models is not None and self.models.remote:
            self.run_worker(self._connect(), exit_on_error=False, group="models")

    async def _connect(self) -> None:
        assert self.models is not None
        try:
            await self.models.load()
        except TTSError:
            return  # shown on the first screen

    async def on_event(self, event: Event) -> None:
        """Handle an event, and wake the screen after input, which may change what is shown."""
        await super().on_event(event)
        if isinstance(event, InputEvent | Paste):
            self.wake()

    def wake(self) -> None:
        """Make the top screen check again whether anything it shows has changed."""
        screen = self.screen_stack[-1] if self.screen_stack else None
        if isinstance(screen, Pulsing):
            screen.wake()

    # -- runs --------------------------------------------------------------------------------------------------------

    def begin(self, problem: str, path: Path | None = None, plan: Plan | None = None) -> Runner | None:
        """Start solving a problem by `plan` (default: the current one) and show the run; None if it cannot start."""
        plan = plan or self.plan
        if self.models is None or plan is None:
            self._refuse(ONLY_SHOWS)
            return None
        try:
            problem = check_problem(problem)
            self.models.solver.check(plan)
            path = path or self._new_path(problem)
        except TTSError as error:
            self._refuse(str(error))
            return None
        return self._go(Runner(self.models, problem, plan, path))

    def begin_fork(self, tree: SearchTree, node: int, plan: Plan) -> None:
        """Start a new run from a step of another run, and show it."""
        if self.models is None:
            self._refuse(ONLY_SHOWS)
            return
        self._go(Runner.fork(self.models, tree, node, plan, self._new_path(tree.start.problem)))

    def _refuse(self, why: str) -> None:
        self.notify(one_line(why, 500), severity="error", markup=False)

    def read(self, path: Path, then: Callable[[Recording], object]) -> None:
        """Read a recording in the background, then call `then` with it; notify the user if it cannot be read."""
        self.run_worker(self._read(path, then), group="reading", exclusive=True)

    async def _read(self, path: Path, then: Callable[[Recording], object]) -> None:
        try:
            recording = await asyncio.to_thread(Recording.load, path)
        except TTSError as error:
            self._refuse(str(error))
        else:
            then(recording)

    def resume_recording(self, recording: Recording, budget: Budget | None = None) -> Runner | None:
        """Resume an interrupted recording; None if that is not possible."""
        if self.models is None:
            self._refuse(ONLY_SHOWS)
            return None
        if any(runner.path == recording.path and not runner.done for runner in self.runners):
            self._refuse("this search runs already: it stands at the top of the list of runs")
            return None
        try:
            return self._go(Runner.resume(self.models, recording, budget))
        except TTSError as error:
            self._refuse(str(error))
            return None

    def _new_path(self, problem: str) -> Path | None:
        """Return the path to record to; None, with a notification, if the folder is not writable."""
        if not self.settings.record:
            return None
        try:
            return recordings.new_path(problem, datetime.now(), [runner.path for runner in self.runners])
        except TTSError as error:
            self.notify(f"Not recorded: {one_line(str(error), 400)}", severity="warning", markup=False)
            return None

    def _go(self, runner: Runner) -> Runner:
        runner.on_change = self.wake
        self.runners.append(runner)
        self.run_worker(self._follow(runner), exit_on_error=False, group="search")
        self.show_runner(runner)
        return runner

    async def _follow(self, runner: Runner) -> None:
        """Run the search, and notify the user of its end unless its screen is open."""
        await runner.work()
        screen = self.screen
        if isinstance(screen, RunScreen) and screen.runner is runner:
            return
        finished = runner.model.tree.finished
        if runner.trouble:
            self.notify(one_line(runner.trouble, 500), title="A search failed", severity="error", markup=False)
        elif finished is not None:
            said = f"{one_line(runner.problem, 100)}\nAnswer: {phrases.answer(finished.answer)}"
            self.notify(said, title="A search has ended", markup=False)

    def show_runner(self, runner: Runner) -> None:
        """Open the screen of a run."""
        self.push_screen(RunScreen(runner=runner))

    def open_recording(self, recording: Recording, speed: float = 0.0) -> None:
        """Show a recording: at its end, or playing from its beginning at `speed` if that is not 0."""
        player = self._player(recording)
        if player is None:
            return
        player.speed = speed or 1.0
        player.playing = bool(speed)
        if speed:
            player.seek(0)
        path = recording.path
        self.push_screen(RunScreen(player=player, path=path, title=f"replay {one_line(path.name, 60)}"))

    def _player(self, recording: Recording) -> Player | None:
        try:
            player = Player(recording.events)
            player.seek(len(player))
            player.model.tree.start  # noqa: B018 - raises if there is none
        except TTSError as error:
            self._refuse(str(error))
            return None
        return player

    # -- compare -----------------------------------------------------------------------------------------------------

    def compare_recording(self, recording: Recording) -> None:
        """Ask which run to compare a recording with."""
        player = self._player(recording)
        if player is not None:
            self.choose_other(player.model, recording.path)

    def compare_recordings(self, first: Recording, second: Recording) -> None:
        """Open two recordings side by side."""
        left, right = self._player(first), self._player(second)
        if left is not None and right is not None:
            self.compare(left.model, right.model)

    def choose_other(self, first: RunModel, own: Path | None = None) -> None:
        """Ask which run to compare with `first`, whose recording is `own`."""
        if first.tree.started is None:
            return
        live = [runner for runner in self.runners if runner.model is not first and runner.model.tree.started]
        taken = {own, *(runner.path for runner in live)}
        stored = [run for run in recordings.recent(30) if not run.broken and run.path not in taken]
        if not live and not stored:
            self.notify("There is no other run to compare with.", severity="warning", markup=False)
            return
        lines = [Text(f"this session: {one_line(r.plan.strategy, 30)} · {one_line(r.problem, 60)}") for r in live]
        lines += [describe(run) for run in stored]

        def beside(recording: Recording) -> None:
            if (player := self._player(recording)) is not None:
                self.compare(first, player.model)

        def show(place: int | None) -> None:
            if place is None:
                return
            if place < len(live):
                self.compare(first, live[place].model)
            else:
                self.read(stored[place - len(live)].path, beside)

        self.push_screen(ChoiceDialog("Compare with which run?", lines), show)

    def compare(self, first: RunModel, second: RunModel) -> None:
        """Open two runs side by side."""
        from tts_tui.ui.screens.compare import CompareScreen

        names = (short_plan(first.tree.plan), short_plan(second.tree.plan))
        self.push_screen(CompareScreen(first, second, names))

    # -- commands ----------------------------------------------------------------------------------------------------

    def action_command_palette(self) -> None:
        """Open the command palette."""
        if self.use_command_palette and not Palette.is_open(self):  # type: ignore[arg-type]
            self.push_screen(Palette(id="--command-palette"))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield the command palette's entries: every key that works here, by its description, then Textual's own."""
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.tooltip and binding.id and active.enabled and not binding.system:
                run = self._caller(active.node, binding.action)
                yield SystemCommand(f"{binding.description} ({self.get_key_display(binding)})", binding.tooltip, run)
        for command in super().get_system_commands(screen):
            if command.title not in ("Screenshot", "Keys"):
                yield command

    def _caller(self, node: object, action: str) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            await self.run_action(action, default_namespace=node)  # type: ignore[arg-type]
            self.wake()

        return run
