"""The user's actions in a run: pause, steer, extend and fork it, or navigate a recording."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual.binding import BindingType
from textual.events import Key

from tts_tui.errors import TTSError
from tts_tui.plan import Plan
from tts_tui.search.search import Search
from tts_tui.tree.events import WRITTEN, SearchFinished
from tts_tui.tree.search_tree import Node
from tts_tui.ui.bindings import keys
from tts_tui.ui.player import Player
from tts_tui.ui.runner import Runner
from tts_tui.ui.screens.base import TreeScreen
from tts_tui.ui.screens.dialogs import Write
from tts_tui.ui.screens.plan import PlanForm

LIVE = frozenset({"one_step", "one_round", "expand", "prune", "write", "finish"})
"""Actions that need a running search."""
FILM = frozenset({"event", "decision", "speed", "jump"})
"""Actions that need a recording."""


class SteeringScreen(TreeScreen):
    """A tree screen with the keys for acting on a run."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys(
            ("run.pause", "space", "pause", "pause", "Pause or go on (in a replay: play or stop)"),
            ("run.step", "s", "one_step", "step", "Let one step be written, then pause"),
            ("run.expand", "e", "expand", "more", "Have M more next steps of this step written"),
            ("run.prune", "x", "prune", "cut", "Give this step up, or take that back and go on from it"),
            ("run.write", "i", "write", "write", "Write the next step yourself; the search goes on from it"),
            ("run.fork", "b", "fork", "fork", "Begin a new run from this step; this one stays as it is"),
            ("run.plan", "p", "plan", "plan", "Look at the plan, and change it"),
            ("run.finish", "t", "finish", "take", "Stop, and take the best answer so far"),
            (
                "run.again",
                "r",
                "again",
                "again",
                "Solve the problem once more, with another seed; go on with a recording that stopped early",
            ),
            ("replay.next", "right_square_bracket", "event(1)", "next", "One event forward"),
            ("replay.back", "left_square_bracket", "event(-1)", "back", "One event back"),
        ),
        *keys(
            ("run.round", "S", "one_round", "round", "Let one round be written, then pause"),
            ("replay.next-decision", "right_curly_bracket", "decision(1)", "decision", "To the next decision"),
            ("replay.decision-before", "left_curly_bracket", "decision(-1)", "decision", "To the decision before"),
            ("replay.faster", "plus", "speed(1)", "faster", "Play faster"),
            ("replay.slower", "minus", "speed(-1)", "slower", "Play slower"),
            ("replay.jump", "greater_than_sign", "jump(0.1)", "jump", "A tenth of the recording forward"),
            ("replay.jump-back", "less_than_sign", "jump(-0.1)", "jump back", "A tenth of the recording back"),
            show=False,
        ),
    ]

    runner: Runner | None
    player: Player | None
    path: Path | None
    _awaited: int | None = None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable a key only where it has an effect."""
        if not self.stands:
            return False
        if action in FILM:
            return self.player is not None
        if action in LIVE:
            return self.runner is not None and not self.runner.done
        if action == "again":
            return self._resumable if self.player is not None else self.runner is not None and self.runner.done
        if action == "pause":
            return self.player is not None or (self.runner is not None and not self.runner.done)
        return True

    def on_key(self, event: Key) -> None:
        """Explain why a key has no effect here that has one elsewhere."""
        action = next((binding.action for binding in self._bindings.key_to_bindings.get(event.key, ())), "")
        name = action.partition("(")[0]
        if not self.stands or name not in LIVE | FILM | {"pause", "again"} or self.check_action(name, ()):
            return
        if name in FILM:
            self.say("That key is for replays: this is a search of this session.", wrong=True)
        elif name == "again":
            self.say("The search still runs: t stops it.", wrong=True)
        elif self.player is not None:
            self.say("This is a recording: b begins a new run from this step.", wrong=True)
        else:
            self.say("The search is over: b begins a new run from this step, r solves the problem again.", wrong=True)

    def _do(self, action: Callable[[Search], object]) -> bool:
        """Perform an action on the search, or show why it is not possible; return whether it succeeded."""
        if self.runner is None:
            self.say("This is a recording: b begins a new run from this step.", wrong=True)
            return False
        if self.runner.search is None and not self.runner.done:
            self.say("The search has not begun yet.", wrong=True)
            return False
        try:
            self.runner.act(action)
        except TTSError as error:
            self.say(f"{error}.".replace("..", "."), wrong=True)
            return False
        return True

    @property
    def trouble(self) -> str:
        """Why the run failed or could not start; empty if neither happened."""
        if self.runner is None:
            return ""
        early = self.runner.done and self.runner.model.tree.started is None
        return self.runner.trouble or ("stopped before the search began" if early else "")

    # -- the search --------------------------------------------------------------------------------------------------

    def action_pause(self) -> None:
        """Pause the search, or resume it."""
        if self.player is not None:
            self.player.toggle()
            return
        runner = self.runner
        if runner is not None and runner.search is None and not runner.done:
            runner.held = not runner.held
            self.say("It will begin paused." if runner.held else "It will begin at once.")
            return
        self._do(lambda search: search.go_on() if search.tree.paused else search.pause())

    def action_one_step(self) -> None:
        """Let the paused search generate one more step."""
        self._do(lambda search: search.step())

    def action_one_round(self) -> None:
        """Let the paused search run one more round."""
        self._do(lambda search: search.round())

    def action_finish(self) -> None:
        """Stop the search, which then returns the best answer so far."""
        if self._do(lambda search: search.stop()) and not self.model.votes:
            self.say("Stopped before anything was answered.")

    # -- one step ----------------------------------------------------------------------------------------------------

    def _act_on(self) -> Node | None:
        """Return the step at the cursor, and stop following: acting on it must not move the cursor away."""
        self.tree_view.follow = "off"
        if self.node is None:
            self.say("The search has not begun yet.", wrong=True)
        return self.node

    def action_expand(self) -> None:
        """Generate more children of the step at the cursor."""
        if (node := self._act_on()) is not None:
            self._do(lambda search: search.steering.expand(node))

    def action_prune(self) -> None:
        """Prune the step at the cursor, or restore it."""
        if (node := self._act_on()) is not None:
            self._do(lambda search: search.steering.restore(node) if node.pruned else search.steering.cut([node]))

    def action_write(self) -> None:
        """Ask the user for a step that follows the one at the cursor."""
        if (node := self._act_on()) is not None:
            self._ask_for_step(node, "")

    def _ask_for_step(self, node: Node, before: str) -> None:
        def add(text: str | None) -> None:
            if text is None:
                return
            if self._do(lambda search: search.steering.write(node, text)):
                self._awaited = node.id
            elif self.runner is not None and self.runner.running:
                self._ask_for_step(node, text)  # the text that was typed is not lost

        self.app.push_screen(Write(node.label, before), add)

    def look_for_own_step(self) -> None:
        """Move the cursor to the step that the user wrote, once it is in the tree."""
        if self._awaited is None or self._awaited >= len(self.model.tree.nodes) or self.model.over:
            self._awaited = None
            return
        children = self.model.tree.nodes[self._awaited].children
        if children and children[-1].group == WRITTEN:
            self._awaited = None
            self.tree_view.select(children[-1].id)

    # -- plans and runs ----------------------------------------------------------------------------------------------

    def action_plan(self) -> None:
        """Show the plan; changes apply to a running search."""
        if self.model.tree.started is None:
            self.say("The search has not begun yet.", wrong=True)
            return

        def change(plan: Plan | None) -> None:
            if plan is None or plan == self.model.tree.plan:
                return
            if self.runner is not None and self.runner.running:
                self._do(lambda search: search.steering.change(plan))
            else:
                self._begin_fork(0, plan)

        running = self.runner is not None and self.runner.running
        self._ask_plan(change, "The plan of this search" if running else "A new run of this problem, by this plan")

    @property
    def _resumable(self) -> bool:
        """True if this is the recording of a search that stopped early."""
        last = self.player.events[-1] if self.player is not None and self.player.events else None
        whole = isinstance(last, SearchFinished) and last.reason in ("solved", "unsolved")
        return self.path is not None and not whole

    def action_again(self) -> None:
        """Start a new run of the same problem, or resume the recording of a search that stopped early."""
        if self.path is not None and self._resumable:
            self.app.read(self.path, self.app.resume_recording)
            return
        runner = self.runner
        if runner is not None and runner.done:
            began = runner.model.tree.started is not None
            plan = runner.model.tree.plan if began else runner.plan
            self.app.pop_screen()
            self.app.begin(runner.problem, plan=plan if self.trouble else plan.replace(seed=plan.seed + 1))

    def action_fork(self) -> None:
        """Start a new run from the step at the cursor, after showing its plan."""
        node = self._act_on()
        if node is None:
            return
        while node.parent is not None and (node.state != "done" or node.ended):
            node = node.parent  # nothing can follow this step
        what = "this problem" if node.parent is None else f"step {node.label}"
        self._ask_plan(
            lambda plan: None if plan is None else self._begin_fork(node.id, plan), f"A new run that begins with {what}"
        )

    def _ask_plan(self, then: Callable[[Plan | None], None], title: str) -> None:
        models = self.app.models
        if models is None:
            self.say("No models: this session only shows recordings.", wrong=True)
            return
        solver = models.solver
        form = PlanForm(self.model.tree.plan, solver.plan, solver.check, title)
        self.app.push_screen(form, then)

    def _begin_fork(self, node: int, plan: Plan) -> None:
        self.app.begin_fork(self.model.tree, node, plan)

    # -- the recording -----------------------------------------------------------------------------------------------

    def action_event(self, count: int) -> None:
        """Go forward or back by events."""
        if self.player is not None:
            self.player.step(count)

    def action_decision(self, direction: int) -> None:
        """Go forward or back by decisions."""
        if self.player is not None:
            self.player.decision(direction)

    def action_speed(self, direction: int) -> None:
        """Increase or decrease the playback speed."""
        if self.player is not None:
            self.player.faster(direction)

    def action_jump(self, share: float) -> None:
        """Go forward or back by a share of the recording."""
        if self.player is not None:
            self.player.seek(self.player.position + round(share * len(self.player)))
