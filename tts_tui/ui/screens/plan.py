"""The plan as a form, to edit before a search starts or while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from msgspec.structs import replace
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Input, Label, Select, Static

from tts_tui import registry
from tts_tui.budget import Budget
from tts_tui.displays.phrases import AUTO
from tts_tui.errors import TTSError
from tts_tui.formatting import one_line
from tts_tui.plan import SCORES, VOTES, Plan
from tts_tui.ui.screens.dialogs import Dialog
from tts_tui.ui.widgets.field import Field


def _share(text: str) -> float:
    """Parse a share such as `0.8` or `80 %`."""
    return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)


NUMBERS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("n", "N, candidates", int),
    ("m", "M, beam width", int),
    ("temperature", "temperature", float),
    ("seed", "seed", int),
    ("tokens", "at most tokens", int),
    ("seconds", "at most seconds", float),
    ("target_tokens", "mean tokens wished", int),
    ("target_accuracy", "or share right", _share),
)
"""Field, label and type; an empty limit or target means none."""
LIMITS = ("tokens", "seconds")
WISHES = ("target_tokens", "target_accuracy")
"""Fields that only `auto` can honour."""
HINTS = {
    **dict.fromkeys(LIMITS, "no limit"),
    "target_tokens": "as calibrated, or such as 500 a problem",
    "target_accuracy": "or such as 80 %, as cheaply as it can",
}


MOST = "N, most candidates"
"""Label of N where it is the upper bound for `auto`."""


class PlanForm(Dialog["Plan | None"]):
    """A form that edits a plan, and accepts only plans that can run.

    Args:
        plan: The initial plan.
        renew: Returns the default plan of another strategy.
        check: Raises `TTSError` for a plan that cannot run.
        title: The purpose of the form.
    """

    AUTO_FOCUS = "#n"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "back", id="plan.leave", tooltip="Leave the plan as it is"),
        Binding("ctrl+s", "take", "take it", id="plan.take", tooltip="Take this plan"),
    ]

    def __init__(
        self, plan: Plan, renew: Callable[[str], Plan], check: Callable[[Plan], None], title: str = "The plan"
    ) -> None:
        super().__init__()
        self._title = title
        self._plan, self._renew, self._check = plan, renew, check

    def compose(self) -> ComposeResult:
        """Lay out one row per field."""
        strategies = sorted(registry.strategies().items())
        with VerticalScroll(classes="dialog wide"):
            yield Label(self._title, classes="title", markup=False)
            with Horizontal(classes="row"):
                yield Label("strategy")
                options = [(f"{name}: {strategy.summary}", name) for name, strategy in strategies]
                if self._plan.strategy not in registry.strategies():
                    options.append((f"{one_line(self._plan.strategy, 40)}: not installed here", self._plan.strategy))
                yield self._select("strategy", options, self._plan.strategy)
            for name, label, _ in NUMBERS:
                row = Horizontal(classes="row wish" if name in WISHES else "row")
                row.display = name not in WISHES or self._plan.strategy == AUTO
                with row:
                    yield Label(self._label(name, label), id=f"label-{name}")
                    yield Field(self._text(name), id=name, compact=True, placeholder=HINTS.get(name, ""))
            for name, label, choices in (("score", "score of a path", SCORES), ("vote", "vote", VOTES)):
                with Horizontal(classes="row"):
                    yield Label(label)
                    yield self._select(name, [(choice, choice) for choice in choices], getattr(self._plan, name))
            yield Static(f"why: {one_line(self._plan.why, 200)}", markup=False, classes="hint", id="plan-why")
            yield Static("", markup=False, id="plan-trouble")
            yield Static("ctrl+s  take it     tab  next field     esc  back", markup=False, classes="hint")
            with Horizontal(classes="row"):
                yield Button("Take it", variant="primary", id="take", compact=True)
                yield Button("Back", id="leave", compact=True)

    @staticmethod
    def _select(name: str, options: list[tuple[str, str]], value: str) -> Select[str]:
        prompts = [(Content(label), choice) for label, choice in options]  # a plain str would be parsed as markup
        return Select(prompts, value=value, allow_blank=False, id=name, compact=True)

    def _label(self, name: str, label: str) -> str:
        return MOST if name == "n" and self._plan.strategy == AUTO else label

    def _text(self, name: str, plan: Plan | None = None) -> str:
        plan = plan or self._plan
        owner = plan.sampling if name == "temperature" else plan.budget if name in LIMITS else plan
        value = getattr(owner, name)
        return "" if value is None else repr(value).removesuffix(".0")

    def on_select_changed(self, event: Select.Changed) -> None:
        """Apply the defaults of the newly selected strategy, such as no temperature for a greedy sample."""
        if event.select.id != "strategy" or event.value == self._plan.strategy:
            return
        fresh = self._renew(str(event.value)).replace(budget=self._plan.budget, seed=self._plan.seed)
        self._plan = fresh
        for name in ("n", "m", "temperature", *WISHES):
            self.query_one(f"#{name}", Input).value = self._text(name)
        for row in self.query(".wish"):
            row.display = fresh.strategy == AUTO
        self.query_one("#label-n", Label).update(self._label("n", NUMBERS[0][1]))
        for name in ("score", "vote"):
            self.query_one(f"#{name}", Select).value = getattr(fresh, name)

    def on_input_submitted(self) -> None:
        """Accept the plan on Enter in a field."""
        self.action_take()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Accept the plan or close the form, depending on the button."""
        if event.button.id == "take":
            self.action_take()
        else:
            self.action_leave()

    def action_take(self) -> None:
        """Close the form with the plan if it can run; otherwise show why not."""
        try:
            plan = self._read()
            self._check(plan)
        except TTSError as error:
            self.query_one("#plan-trouble", Static).update(f"! {one_line(str(error), 300)}")
            return
        self.dismiss(plan)

    def action_leave(self) -> None:
        """Close the form without a plan."""
        self.dismiss(None)

    def _read(self) -> Plan:
        values = {name: self._number(name, label, kind) for name, label, kind in NUMBERS}
        budget = Budget(tokens=values.pop("tokens"), flops=self._plan.budget.flops, seconds=values.pop("seconds"))
        sampling = replace(self._plan.sampling, temperature=values.pop("temperature"))
        for name in ("strategy", "score", "vote"):
            values[name] = self.query_one(f"#{name}", Select).value
        if values["strategy"] != AUTO:
            values.update(dict.fromkeys(WISHES))
        changed = self._plan.replace(**values, budget=budget, sampling=sampling)
        return changed if changed == self._plan else changed.replace(why="chosen by the user")

    def _number(self, name: str, label: str, kind: Callable[[str], Any]) -> Any:
        text = self.query_one(f"#{name}", Input).value.strip()
        if not text and name in HINTS:
            return None
        try:
            return kind(text)
        except ValueError:
            raise NotANumber(f"{label}: {text!r} is no {'whole ' if kind is int else ''}number") from None


class NotANumber(TTSError):
    """The text of a field is not a number."""
