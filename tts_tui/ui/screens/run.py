"""The screen of one run: the growing tree, the step at the cursor, answers, decisions, and the user's actions."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Footer

from tts_tui.displays import decisions, phrases
from tts_tui.displays.decisions import is_auto
from tts_tui.formatting import one_line
from tts_tui.ui import panels
from tts_tui.ui.bindings import keys
from tts_tui.ui.player import Player
from tts_tui.ui.row_looks import best
from tts_tui.ui.run_model import RunModel
from tts_tui.ui.runner import Runner
from tts_tui.ui.screens.base import LAST
from tts_tui.ui.screens.help import BAR
from tts_tui.ui.screens.steering import SteeringScreen
from tts_tui.ui.widgets.decisions_view import StoryView
from tts_tui.ui.widgets.field import Field
from tts_tui.ui.widgets.lazy_static import LazyStatic
from tts_tui.ui.widgets.step_view import StepView
from tts_tui.ui.widgets.timeline import Timeline
from tts_tui.ui.widgets.tree_view import TreeView

FRAMES = 10.0
"""Number of checks of the model per second; the parts that changed are repainted."""
SPARING = 2
"""While a model computes in this process, one of this many frames is drawn: text is generated no faster, and the cores
are shared.
"""
BESIDE = 0.5
"""Maximum share of the side column for the plan panel, next to step and story, when it shows the choices of `auto`."""
LATEST = 20
"""Number of screen rows from which one shows the last choice of `auto` while the plan panel is hidden."""
SLOW = 3
"""Number of frames between updates of gauges and other lines of numbers."""

PANELS = {"tree": "Tree", "step": "Step", "answers": "Answers", "story": "Decisions", "plan": "Plan"}
"""Ids and titles of the panels, in the order of the keys 1 to 5."""
TURNS = ("tree", "step", "story", "plan")
"""Panels that hide each other where there is no room for all; answers always have a line."""


class RunScreen(SteeringScreen):
    """The screen of a run of this session, or of a recording.

    Args:
        runner: The run, if it belongs to this session.
        player: The player of the recording, if it is one.
        path: The path of the recording.
        title: The text at the start of the status line.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "escape", "back", "back", id="run.back", show=False, tooltip="Back to the first screen; the run goes on"
        ),
        Binding("q", "app.leave", "quit", id="run.quit", show=False, tooltip="Quit; asks if something runs"),
        *keys(
            *(
                (
                    f"view.panel-{name}",
                    str(number),
                    f"panel('{name}')",
                    title,
                    f"Go to the panel {title}; again enlarges it",
                )
                for number, (name, title) in enumerate(PANELS.items(), 1)
            ),
            ("view.panel-next", "tab", "turn(1)", "next panel", "Go to the next panel, also to one that others hide"),
            ("view.panel-before", "shift+tab", "turn(-1)", "panel before", "Go to the panel before"),
            show=False,
        ),
        *LAST,
    ]

    def __init__(
        self, *, runner: Runner | None = None, player: Player | None = None, path: Path | None = None, title: str = ""
    ) -> None:
        super().__init__()
        self.runner = runner
        self.player = player
        self.path = path
        self._title = title
        self._shown: RunModel | None = None
        self._tick = self._looks = 0
        self._ended = False
        self._panel = ""

    @property
    def model(self) -> RunModel:
        """The run that is shown."""
        if self.runner is not None:
            return self.runner.model
        assert self.player is not None
        return self.player.model

    def compose(self) -> ComposeResult:
        """Lay out two status lines, the tree with its side column, and the answers."""
        yield LazyStatic(id="status")
        yield LazyStatic(id="gauges")
        if self.player is not None:
            yield Timeline(id="timeline")
        with Horizontal(id="middle"):
            with Vertical(id="left"):
                yield TreeView(id="tree")
                yield Field(id="find", placeholder="find in the tree; enter next, esc close", compact=True)
                yield LazyStatic(id="answers")
                yield LazyStatic(id="latest")
            with Vertical(id="side"):
                yield StepView(id="step")
                yield StoryView(id="story")
                yield LazyStatic(id="plan")
        yield Footer(compact=True, show_command_palette=self.app.size.width >= 100)

    def on_mount(self) -> None:
        """Start the timer."""
        for name, title in PANELS.items():
            self.query_one(f"#{name}").border_title = title
        self.query_one("#find").display = False
        self.tree_view.focus()
        self.complete = True
        self.begin_pulse(FRAMES)
        self.tick()

    @property
    def own_path(self) -> Path | None:
        """The path of the recording of the run that is shown, or None."""
        return self.runner.path if self.runner is not None else self.path

    @property
    def tree_view(self) -> TreeView:
        """The tree view."""
        return self.query_one("#tree", TreeView)

    def on_tree_view_opened(self, event: TreeView.Opened) -> None:
        """Show a step without children in full on Enter, where tree and step do not fit next to each other."""
        self._look_at("step")
        self.tick()

    def on_timeline_sought(self, event: Timeline.Sought) -> None:
        """Seek to the clicked position of the timeline."""
        if self.player is not None:
            self.player.seek(round(event.share * len(self.player)))

    def action_back(self) -> None:
        """Close the search field, or the panel that is enlarged or hides the tree, or else the screen."""
        if self.close_find():
            return
        if self.maximized is not None:
            self.minimize()
        elif not self.query_one("#left").display:
            self.show_tree()
        else:
            self.app.pop_screen()

    # -- panels ------------------------------------------------------------------------------------------------------

    def _look_at(self, name: str) -> None:
        """Bring a panel to the front, and focus it."""
        if self.maximized is not None:
            self.minimize()
        for other in PANELS:
            self.set_class(other == name, "-looked-" + other)
        self.set_class(name in ("step", "story", "plan"), "-side")
        panel = self.query_one(f"#{name}")
        if panel.can_focus:
            panel.focus()
        elif name == "plan" and not self.has_class("-wide"):
            self.tree_view.focus()  # the plan cannot take the focus, and the widget that had it may be hidden now
        self._panel = name
        self._tick = 0  # the next frame draws the panels

    def show_tree(self) -> None:
        """Bring the tree to the front."""
        if self._panel != "tree" or self.maximized is not None:
            self._look_at("tree")

    def action_panel(self, name: str) -> None:
        """Go to a panel, or enlarge it if it is already in front."""
        panel = self.query_one(f"#{name}")
        if self.maximized is panel:
            self._look_at(name)
        elif self._panel == name and (panel.has_focus_within or not panel.can_focus):
            self.maximize(panel)
        else:
            self._look_at(name)

    def action_turn(self, by: int) -> None:
        """Go to the next or previous panel where some are hidden; otherwise move the focus as usual."""
        if not self._hidden():
            self.focus_next() if by > 0 else self.focus_previous()
            return
        focused = self.focused.id if self.focused is not None else ""
        now = "plan" if self._panel == "plan" and self.query_one("#plan").display else focused
        place = TURNS.index(now) + by if now in TURNS else 0
        self._look_at(TURNS[place % len(TURNS)])

    def _hidden(self) -> list[str]:
        """Return the panels for which there is no room next to the one in front."""
        panels_of = {name: self.query_one(f"#{name}") for name in TURNS}
        boxes = {name: self.query_one("#left" if name == "tree" else "#side") for name in TURNS}
        return [name for name in TURNS if not (panels_of[name].display and boxes[name].display)]

    # -- drawing -----------------------------------------------------------------------------------------------------

    @property
    def lively(self) -> bool:
        """True if the replay is playing, or the search is running."""
        return self.player.playing if self.player is not None else self.runner is not None and self.runner.changing

    def look(self) -> None:
        """Advance the replay and refresh the screen."""
        self._looks += 1
        if self._looks % SPARING == 0 or not self._computes_here:
            self.tick()

    @property
    def _computes_here(self) -> bool:
        runner = self.runner
        return runner is not None and runner.running and not runner.models.remote and bool(runner.model.writing)

    def tick(self) -> None:
        """Check the model, and repaint the parts that changed."""
        if not self.is_current and self.app.screen is not self:
            return
        self._tick += 1
        if self.player is not None:
            self.player.advance(1 / FRAMES)
        model = self.model
        if not self.tree_view.frozen:
            model.pull()
        if model is not self._shown:
            self._show(model)
        self.look_for_own_step()
        self.tree_view.calm = self.player is None or self.player.playing
        self.tree_view.pull(self._tick)
        self._draw_lines(model)
        if self.tree_view.frozen:
            return
        if said := self._instead():
            self.query_one(StepView).say(said)
        else:
            self.query_one(StepView).put(model.tree, self.tree_view.cursor_node)
        if self._tick % SLOW == 1:
            self._draw_panels(model)
        if self.runner is not None and self.runner.done and not self._ended:
            self._ended = True
            self.refresh_bindings()

    def _show(self, model: RunModel) -> None:
        """Show another model: the run's own, or the one a replay has gone back to."""
        first, self._shown = self._shown is None, model
        self.tree_view.show(model)
        if first:
            self.tree_view.follow = "best" if self.player is None else "off"
            if model.over and (node := best(model.tree)) is not None:
                self.tree_view.select(node.id)

    def _draw_lines(self, model: RunModel) -> None:
        if self._tick % SLOW != 1 and self.player is None:
            return
        width = self.size.width
        frozen = " · view frozen, z goes on" if self.tree_view.frozen else ""
        self.query_one("#status", LazyStatic).put(
            [panels.status(model, width, title=self._title + frozen, trouble=self.trouble)]
        )
        self.query_one("#gauges", LazyStatic).put([self._second_line(model, width)])
        if self.player is not None:
            self.query_one(Timeline).show(self.player)

    def _title_panels(self, model: RunModel) -> None:
        """Set the panel titles; the panel in front also names the hidden ones, with their keys."""
        basis = f" · {phrases.basis_in_short(model.tree.choices[-1])}" if model.tree.choices else ""
        titles = {**PANELS, "tree": self._tree_title(), "plan": PANELS["plan"] + basis}
        hidden = self._hidden()
        front = next((name for name in reversed(TURNS) if name not in hidden), "")
        if hidden and front:
            keys_of = {active.binding.id: active.binding for active in self.active_bindings.values()}
            for name in hidden:
                binding = keys_of.get(f"view.panel-{name}")
                key = f"{self.app.get_key_display(binding)} " if binding is not None else ""
                titles[front] += f"{BAR}{key}{PANELS[name]}"
        for name in TURNS:
            panel = self.query_one(f"#{name}")
            title = Content(titles[name])  # a plain str would be parsed as markup
            if panel.border_title != title.markup:
                panel.border_title = title

    def _tree_title(self) -> str:
        """Return the tree's title: the value shown, the order, and the follow mode."""
        view, order = self.tree_view, self.model.folding.order
        said = [PANELS["tree"]]
        said += [{"min": "lowest score of the path", "prod": "product of the path's scores"}.get(view.value, "")]
        said += ["best first" if order == "score" else ""]
        said += [f"follows the {view.follow}" if view.follow != "off" else "", "frozen" if view.frozen else ""]
        return " · ".join(filter(None, said))

    def _instead(self) -> list[Text]:
        """Return the text shown in place of a step: why the run failed, or what it is waiting for."""
        runner = self.runner
        if runner is None:
            return []
        if self.trouble and self.tree_view.cursor_node in (None, 0):
            return [
                Text(one_line(self.trouble, 2000), style="bold"),
                Text("\nr tries again, esc goes back to the first screen; what was recorded is kept."),
            ]
        if runner.model.tree.started is None:
            said = f"{one_line(runner.models.policy, 100)}: {one_line(runner.models.said, 200)}"
            return [
                Text(one_line(runner.problem, 400)),
                Text(f"\n{said}\nThe search begins when the models are there."),
            ]
        return []

    def _second_line(self, model: RunModel, width: int) -> Text:
        if self.trouble:
            return Text(f" {one_line(self.trouble, 500)}", style="bold")
        if model.tree.started is None and self.runner is not None:
            return Text(
                f" {one_line(self.runner.models.policy, 100)}: {one_line(self.runner.models.said, 200)}", style="dim"
            )
        return panels.gauges(model, width)

    def _draw_panels(self, model: RunModel) -> None:
        box = self.query_one("#answers", LazyStatic)
        if not self.has_class("-tall"):
            box.put([panels.answers_line(model, box.size.width)])
        else:
            box.put(panels.answers(model, max(10, box.size.width), 5))
        self.query_one(StoryView).put(model.decisions)
        self._title_panels(model)
        if model.tree.started is not None:
            self._draw_plan(model)
            self._draw_latest(model)

    def _draw_plan(self, model: RunModel) -> None:
        box = self.query_one("#plan", LazyStatic)
        chooses = is_auto(model.tree)
        box.set_class(chooses, "-auto")
        if chooses:
            box.put(panels.choice(model, box.content_size.width or self.size.width - 4, self._room(box)))
            return
        box.put(
            [
                Text(f"{label:<10}", style="dim").append(value, style="" if label == "why" else "bold")
                for label, value in panels.plan_lines(model.tree.plan)
            ]
        )

    def _draw_latest(self, model: RunModel) -> None:
        """Draw the last choice of `auto` in one line, where the plan panel is hidden."""
        box = self.query_one("#latest", LazyStatic)
        box.display = bool(model.tree.choices) and self.size.height >= LATEST and "plan" in self._hidden()
        if box.display:
            box.put([decisions.latest(model.tree, box.size.width or self.size.width)])

    def _room(self, box: LazyStatic) -> int:
        """Return the plan panel's maximum height: the screen's, the side's, or half the side next to step and story."""
        if self.maximized is box:
            return max(1, self.size.height - self.query_one(Footer).size.height - box.gutter.height)
        side = self.query_one("#side").size.height
        share = 1.0 if not self.query_one("#step").display else BESIDE
        return max(1, int(side * share) - box.gutter.height)
