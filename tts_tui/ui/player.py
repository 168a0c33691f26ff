"""A recording as a film: forward and back by event and by decision, to any place, at any speed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from tts_tui.events import AnyEvent
from tts_tui.ui.model import RunModel

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
SILENCE = 2.0
"""Longest wait between two events, in seconds of the recording: what took longer is shortened."""


class Player:
    """Plays the events of one run.

    Args:
        events: All of them.
        speed: How many times as fast as it was.

    Attributes:
        model: The run as it was at `position`.
        position: How many events have happened.
        playing: Whether time goes on by itself.
        speed: How many times as fast.
        turns: Counts how often `model` was made anew, as every way back does.
    """

    def __init__(self, events: Sequence[AnyEvent], speed: float = 1.0) -> None:
        self.events = events
        self.model = RunModel()
        self.position = 0
        self.playing = True
        self.speed = speed
        self.turns = 0
        self._clock = 0.0
        self._decisions: list[int] = []

    def __len__(self) -> int:
        return len(self.events)

    @property
    def at_end(self) -> bool:
        """Whether everything has happened."""
        return self.position == len(self.events)

    def advance(self, seconds: float) -> None:
        """Lets `seconds` pass on the wall, if it plays."""
        if not self.playing:
            return
        self._clock += seconds * self.speed
        while not self.at_end:
            wait = self.events[self.position].t - (self.events[self.position - 1].t if self.position else 0.0)
            wait = min(max(wait, 0.0), SILENCE)
            if wait > self._clock:
                return
            self._clock -= wait
            self._apply(self.position + 1)
        self.playing, self._clock = False, 0.0

    def seek(self, position: int) -> None:
        """Goes to where `position` events have happened; beyond either end, to that end."""
        position = min(max(position, 0), len(self.events))
        self._clock = 0.0
        if position < self.position:
            choices = self.model.folding
            self.model = RunModel()
            self.model.folding.take_choices(choices)
            self.position = 0
            self.turns += 1
        self._apply(position)

    def step(self, count: int) -> None:
        """Goes `count` events forward, or back if it is negative; stops playing."""
        self.playing = False
        self.seek(self.position + count)

    def decision(self, direction: int) -> None:
        """Goes to the next decision, or with -1 to the one before; stops playing."""
        self.playing = False
        if direction > 0:
            told = len(self.model.decisions)
            while not self.at_end and len(self.model.decisions) == told:
                self._apply(self.position + 1)
        else:
            before = bisect_left(self._decisions, self.position)
            self.seek(self._decisions[before - 1] if before else 0)

    def toggle(self) -> None:
        """Plays or stops; at the end it plays from the beginning."""
        if self.at_end and not self.playing:
            self.seek(0)
        self.playing = not self.playing

    def faster(self, direction: int) -> None:
        """The next higher speed, or with -1 the next lower."""
        if direction > 0:
            self.speed = next((speed for speed in SPEEDS if speed > self.speed), SPEEDS[-1])
        else:
            self.speed = next((speed for speed in reversed(SPEEDS) if speed < self.speed), SPEEDS[0])

    def _apply(self, position: int) -> None:
        for place, event in enumerate(self.events[self.position : position], self.position + 1):
            told = len(self.model.decisions)
            self.model.apply(event)
            if len(self.model.decisions) > told and place > (self._decisions[-1] if self._decisions else 0):
                self._decisions.append(place)
        self.position = position
