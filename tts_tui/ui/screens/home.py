"""The first screen: a field for the problem, examples, recent runs, and the state of the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Footer, OptionList, Static
from textual.widgets.option_list import Option

from tts_tui.displays import phrases
from tts_tui.errors import TTSError
from tts_tui.formatting import one_line
from tts_tui.plan import Plan
from tts_tui.ui import panels
from tts_tui.ui.bindings import keys
from tts_tui.ui.recordings import RecordedRun, recent, remove
from tts_tui.ui.runner import Runner
from tts_tui.ui.screens.dialogs import Question
from tts_tui.ui.screens.help import Help
from tts_tui.ui.screens.plan import PlanForm
from tts_tui.ui.screens.pulsing import Pulsing
from tts_tui.ui.widgets.lazy_static import LazyStatic
from tts_tui.ui.widgets.prompt import ProblemInput

if TYPE_CHECKING:
    from tts_tui.ui.app import TTSApp

EXAMPLES = (
    "What is 7 + 8 - 6?",
    "What is 7 * 6 + 5?",
    "Tom has 12 apples. He gives 5 to Ann and buys 9 more. How many apples does he have?",
    "Solve for x: 3x + 5 = 20.",
    r"What is $\frac{3}{4}$ of 48?",
)
WELCOME = (
    "Type a problem and press Enter: a small model tries many ways to solve it, step by step. "
    "A reward model scores every step, and the best ones are grown on. You watch the tree grow, and may steer it: "
    "pause, cut a branch, write a step yourself. Everything is kept, and can be replayed."
)
FRAMES = 2.0
"""Number of refreshes per second."""
SHOWN = 30
"""Maximum number of recent runs in the list."""


class HomeScreen(Pulsing):
    """The first screen, where runs are started."""

    app: TTSApp

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys(
            ("home.example", "ctrl+t", "example", "example", "Put the next example into the field"),
            ("home.plan", "ctrl+o", "plan", "plan", "Choose strategy, N, M, vote and budget"),
            ("home.recent", "ctrl+r", "recent", "recent", "Go to the recent runs"),
            ("home.help", "f1,question_mark", "help", "help", "Explain the keys"),
        ),
        *keys(
            ("home.field", "escape", "field", "field", "Go back to the field"),
            ("home.remove", "delete", "remove", "remove", "Remove the recording that is marked"),
            ("home.compare", "c", "compare", "compare", "Put the marked run beside another one"),
            ("home.resume", "r", "resume", "go on", "Go on with a run that stopped early"),
            show=False,
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._example = -1
        self._rows: list[Runner | RecordedRun] = []
        self._stored: list[RecordedRun] = []
        self._live: list[Runner] = []

    def compose(self) -> ComposeResult:
        """Lay out the problem field, the plan and the lists."""
        yield LazyStatic(id="home-head")
        yield ProblemInput(id="problem", placeholder="A problem, in words or LaTeX. Enter solves it.")
        yield LazyStatic(id="home-plan")
        with Horizontal(id="home-lists"):
            with Vertical(id="home-left"):
                yield Static("Examples", classes="title")
                yield OptionList(*[Option(Text(f"{n} {text}")) for n, text in enumerate(EXAMPLES, 1)], id="examples")
            with Vertical(id="home-right"):
                yield Static("Runs", classes="title", id="runs-title")
                yield OptionList(id="runs")
                yield Static(WELCOME, id="welcome", markup=False)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Fill the lists, and start watching the models."""
        field = self.query_one("#problem", ProblemInput)
        field.border_title = "Problem"
        field.border_subtitle = "enter solves · ctrl+j new line"
        field.focus()
        self.query_one("#runs").display = False
        self.begin_pulse(FRAMES)
        self.look()
        self.call_after_refresh(self.refresh_runs)

    def on_screen_resume(self) -> None:
        """Refresh the list of runs when the screen is shown again."""
        self.refresh_runs()

    # -- drawing -----------------------------------------------------------------------------------------------------

    @property
    def lively(self) -> bool:
        """True if models are being loaded, or a search is running."""
        models = self.app.models
        return (models is not None and models.loading) or any(runner.changing for runner in self.app.runners)

    def look(self) -> None:
        """Refresh the state of the models and of the runs."""
        if self.app.screen is not self:
            return
        models, plan = self.app.models, self.app.plan
        head = [
            Text()
            .append(" tts-tui ", style="bold reverse")
            .append(" test-time scaling: search for an answer, watch it")
        ]
        if models is not None:
            line = Text(f" policy {one_line(models.policy, 60)}, reward model {one_line(models.prm, 40)}: ")
            head.append(line.append(models.said, style="bold"))
            if models.trouble:
                head.append(Text(f" ! {one_line(models.trouble, 300)}"))
        self.query_one("#home-head", LazyStatic).put(head)
        if plan is not None:
            limits = dict(panels.plan_lines(plan))
            names = [name for name in limits if name != "why"]
            said = f" plan  {', '.join(limits[name] for name in names)}"
            self.query_one("#home-plan", LazyStatic).put([Text(said), Text(f"       {limits['why']}", style="dim")])
        running = [runner for runner in self.app.runners if not runner.done]
        if running != self._live:
            self.refresh_runs()
        elif running:
            self._draw_runs()

    def refresh_runs(self) -> None:
        """Rebuild the list: first the unfinished runs of this session, then recordings."""
        self._live = [runner for runner in self.app.runners if not runner.done]
        busy = {runner.path for runner in self._live}
        self._stored = [run for run in recent(SHOWN) if run.path not in busy]
        self._draw_runs()

    def _draw_runs(self) -> None:
        listed = self.query_one("#runs", OptionList)
        marked = self._marked()
        key = marked.path if marked is not None else None
        self._rows = [*self._live, *self._stored]
        listed.set_options([Option(_running(row) if isinstance(row, Runner) else describe(row)) for row in self._rows])
        if self._rows and marked is not None:
            places = [place for place, row in enumerate(self._rows) if row is marked or (key and row.path == key)]
            listed.highlighted = places[0] if places else 0
        listed.display = bool(self._rows)
        self.query_one("#welcome").display = not self._rows
        self.query_one("#runs-title", Static).update("Runs" if self._rows else "What this is")

    # -- acting ------------------------------------------------------------------------------------------------------

    def on_problem_input_submitted(self, event: ProblemInput.Submitted) -> None:
        """Start solving the submitted problem."""
        if self.app.screen is not self:  # Enter was pressed twice
            return
        if event.text.strip():
            self.app.begin(event.text)
        else:
            self.notify("Type a problem first, or press ctrl+t for an example.", severity="warning", markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Put the chosen example into the field, or open the chosen run."""
        if event.option_list.id == "examples":
            self._put(event.option_index)
        else:
            self._open(self._rows[event.option_index])

    def _open(self, row: Runner | RecordedRun) -> None:
        self.query_one("#problem").focus()  # ready for typing when the user returns
        if isinstance(row, Runner):
            self.app.show_runner(row)
        else:
            self.app.read(row.path, self.app.open_recording)

    def on_key(self, event: object) -> None:
        """Choose an example by its digit, unless the digit is typed into the field."""
        key = getattr(event, "key", "")
        if key in "12345" and len(key) == 1 and not isinstance(self.focused, ProblemInput):
            self._put(int(key) - 1)

    def _put(self, place: int) -> None:
        self._example = place
        field = self.query_one("#problem", ProblemInput)
        field.replace(EXAMPLES[place], (0, 0), field.document.end)  # can be undone, unlike setting the text
        field.move_cursor(field.document.end)
        field.focus()

    def _marked(self) -> Runner | RecordedRun | None:
        place = self.query_one("#runs", OptionList).highlighted
        return self._rows[place] if place is not None and place < len(self._rows) else None

    def _marked_recording(self) -> RecordedRun | None:
        """Return the highlighted recording, if the list has the focus."""
        marked = self._marked()
        if isinstance(marked, RecordedRun) and self.query_one("#runs").has_focus:
            return marked
        return None

    def action_example(self) -> None:
        """Put the next example into the field."""
        self._put((self._example + 1) % len(EXAMPLES))

    def action_field(self) -> None:
        """Move the focus to the problem field."""
        self.query_one("#problem").focus()

    def action_recent(self) -> None:
        """Move the focus to the list of runs."""
        listed = self.query_one("#runs", OptionList)
        if listed.display:
            listed.focus()
            if listed.highlighted is None:
                listed.highlighted = 0
        else:
            self.notify("There are no runs yet.", markup=False)

    def action_plan(self) -> None:
        """Edit the plan of the next run."""
        models, plan = self.app.models, self.app.plan
        if models is None or plan is None:
            return

        def take(chosen: Plan | None) -> None:
            if chosen is not None:
                self.app.plan = chosen
                self.look()

        self.app.push_screen(PlanForm(plan, models.solver.plan, models.solver.check), take)

    def action_remove(self) -> None:
        """Delete the highlighted recording, after confirmation."""
        run = self._marked_recording()
        if run is None:
            return

        def go(yes: bool | None) -> None:
            if yes:
                try:
                    remove(run.path)
                except TTSError as error:
                    self.notify(one_line(str(error), 500), severity="error", markup=False)
                self.refresh_runs()

        what = f"{one_line(run.problem, 60)!r} ({run.path.name})"
        self.app.push_screen(Question(f"Remove the recording of {what} for good?", "remove"), go)

    def action_compare(self) -> None:
        """Compare the highlighted run with another one."""
        if (run := self._marked_recording()) is not None:
            self.app.read(run.path, self.app.compare_recording)

    def action_resume(self) -> None:
        """Resume the highlighted run, if it was interrupted."""
        if (run := self._marked_recording()) is not None:
            self.app.read(run.path, self.app.resume_recording)

    def action_help(self) -> None:
        """Show the help screen."""
        self.app.push_screen(Help(self))


def describe(run: RecordedRun) -> Text:
    """Return a recording as one line."""
    when = run.when.astimezone().strftime("%d %b %H:%M") if run.when else ""
    line = Text(f"{when} ", style="dim", no_wrap=True, overflow="ellipsis")
    if run.broken:
        return line.append(f"! {one_line(run.path.name, 60)}: {one_line(run.broken, 200)}")
    if run.answer is not None:
        line.append(f"★ {phrases.answer(run.answer)} ", style="bold")
    elif run.finished:
        line.append("■ no answer ", style="bold")
    else:
        line.append("‖ stopped early ", style="bold")
    return line.append(f"{one_line(run.problem, 100)} ").append(f"· {one_line(run.strategy, 30)}", style="dim")


def _running(runner: Runner) -> Text:
    doing = panels.state(runner.model, runner.trouble).append(" ")
    doing.no_wrap, doing.overflow = True, "ellipsis"
    return doing.append(one_line(runner.problem, 100), style="not bold")
