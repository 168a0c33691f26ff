"""The plain display: a search narrated in lines, for pipes, logs, screen readers and simple terminals.

Lines are only ever added: no colour, no cursor, no spinner, and no meaning in a glyph alone.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from typing import TextIO

from tts_tui.displays import phrases
from tts_tui.displays.base import Display
from tts_tui.displays.narration import describe
from tts_tui.formatting import plural
from tts_tui.tree.events import (
    AnyEvent,
    NodesKept,
    NodesPruned,
    PlanChosen,
    ScoreFailed,
    SearchFinished,
    SearchResumed,
    SearchStarted,
    SolutionFound,
    StepFailed,
)

MOST_ALIKE = 40
"""Number of lines of one kind that are printed individually; in a larger search the rest is summarised."""
SUMMARY = 5.0
"""Seconds of silence after which a line summarises the state of the search."""
MANY = (SolutionFound, NodesKept, NodesPruned, StepFailed, ScoreFailed)
"""Kinds of events of which a large search has many."""


class PlainDisplay(Display):
    """A display that narrates a search in sentences."""

    talks = True

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._said: Counter[type[object]] = Counter()
        self._spoke_at = 0.0
        self._told = False

    def show(self, event: AnyEvent) -> None:
        """Print the sentence for an event, if it deserves one, or a summary after some silence."""
        if isinstance(event, SearchStarted):
            self._started(event)
        elif isinstance(event, SearchResumed):
            self._resumed(event)
        elif isinstance(event, SearchFinished):
            return
        elif (sentence := describe(event, self.tree)) is None or self._enough(event):
            if event.t - self._spoke_at >= SUMMARY:
                self._summary(event.t)
        else:
            self._say(sentence, event.t)
            if isinstance(event, PlanChosen) and len(event.considered) > 1:
                self._say(f"Considered: {phrases.considered(event)}.", event.t)

    def conclude(self, finished: SearchFinished | None) -> None:
        """Print how the search ended."""
        lines = [phrases.CUT_OFF] if finished is None else list(phrases.closing(finished))
        self.guard(lambda: self.out.write("\n".join(lines) + "\n"))

    def stopping(self) -> None:
        """Acknowledge an interruption on standard error, because standard output may be in the middle of a line."""
        with contextlib.suppress(OSError):
            os.write(2, b"tts-tui: stopping; once more to leave at once\n")

    # -- sentences ---------------------------------------------------------------------------------------------------

    def _say(self, sentence: str, t: float) -> None:
        self._spoke_at = t
        self.out.write(f"{t:.1f} s: {sentence}\n")

    def _enough(self, event: AnyEvent) -> bool:
        """Return whether events of this kind have been printed so often that they are only summarised from now on."""
        by_hand = isinstance(event, NodesKept | NodesPruned) and event.by == "person"
        if by_hand or not isinstance(event, MANY):
            return False
        self._said[type(event)] += 1
        return self._said[type(event)] > MOST_ALIKE

    def _summary(self, t: float) -> None:
        tree = self.tree
        self._say(
            f"{plural(len(tree), 'step')} so far, {len(self.writing)} of them being written; "
            f"{plural(tree.counts.completion, 'token')} written; {plural(len(tree.solutions), 'solution')}.",
            t,
        )

    def _started(self, event: SearchStarted) -> None:
        self._told = True
        self.out.write("\n".join(phrases.opening(event)) + "\n")

    def _resumed(self, event: SearchResumed) -> None:
        if not self._told:
            self._started(self.tree.start)
        self._say("Resumed.", event.t)
        self._summary(event.t)
