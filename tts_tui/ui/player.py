"""Playback of a recording: forward and back by event and by decision, to any position, at any speed.

Going back means folding all earlier events again. That is cheap, because the first pass is remembered: at which
positions the story grew, and when each step was finished, so that its text need not be streamed again.
"""

from __future__ import annotations

import gc
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tts_tui.tree.events import AnyEvent, StepFinished, StepStreamed
from tts_tui.ui.run_model import RunModel, StoryLine

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
SILENCE = 2.0
"""Longest wait between two events, in seconds of the recording; longer waits are shortened to it."""


class Player:
    """A player of the events of one run.

    Seeking within the part that was played before is lazy: no work is done until `model` is read, so that of many key
    presses between two frames only the last one counts.

    Args:
        events: All events of the run.
        speed: Playback speed as a multiple of real time.

    Attributes:
        position: The number of events that have been played.
        playing: Whether playback is running.
        speed: Playback speed as a multiple of real time.
    """

    def __init__(self, events: Sequence[AnyEvent], speed: float = 1.0) -> None:
        self.events = events
        self.position = 0
        self.playing = True
        self.speed = speed
        self._model = RunModel()
        self._stands = 0  # number of events that the model has
        self._clock = 0.0
        self._known = 0  # number of events that were played at least once
        self._story: list[StoryLine] = []
        self._told_at: list[int] = []  # position at which each sentence of the story was added
        self._needed: array[int] | None = None

    def __len__(self) -> int:
        return len(self.events)

    @property
    def model(self) -> RunModel:
        """The run as it was at `position`; a new object whenever playback has gone back."""
        if self._stands > self.position:
            self._rewind()
        elif self._stands < self.position:
            self._replay()
        return self._model

    @property
    def at_end(self) -> bool:
        """True if all events have been played."""
        return self.position == len(self.events)

    def advance(self, seconds: float) -> None:
        """Advance playback, if it is running, by `seconds` of wall time."""
        if not self.playing:
            return
        self._clock += seconds * self.speed
        position = self.position
        while position < len(self.events):
            wait = self.events[position].t - (self.events[position - 1].t if position else 0.0)
            wait = min(max(wait, 0.0), SILENCE)
            if wait > self._clock:
                break
            self._clock -= wait
            position += 1
        self._go(position)
        if self.at_end:
            self.playing, self._clock = False, 0.0

    def seek(self, position: int) -> None:
        """Go to the position after `position` events, clamped to the recording.

        Raises:
            RecordCorrupt: The events up to there do not form a valid search; the player stays before the invalid event.
        """
        self._clock = 0.0
        self._go(min(max(position, 0), len(self.events)))

    def step(self, count: int) -> None:
        """Go `count` events forward, or back if it is negative, and stop playback."""
        self.playing = False
        self.seek(self.position + count)

    def decision(self, direction: int) -> None:
        """Go to the next decision, or with -1 to the previous one, and stop playback."""
        self.playing = False
        if direction < 0:
            before = bisect_left(self._told_at, self.position)
            self.seek(self._told_at[before - 1] if before else 0)
            return
        following = bisect_right(self._told_at, self.position)
        if following < len(self._told_at):
            self.seek(self._told_at[following])
            return
        self.seek(self._known)
        while not self.at_end and len(self._told_at) == following:
            self._go(self.position + 1)

    def toggle(self) -> None:
        """Start or stop playback; at the end, restart from the beginning."""
        if self.at_end and not self.playing:
            self.seek(0)
        self.playing = not self.playing

    def faster(self, direction: int) -> None:
        """Switch to the next higher speed, or with -1 to the next lower one."""
        if direction > 0:
            self.speed = next((speed for speed in SPEEDS if speed > self.speed), SPEEDS[-1])
        else:
            self.speed = next((speed for speed in reversed(SPEEDS) if speed < self.speed), SPEEDS[0])

    # -- playing -----------------------------------------------------------------------------------------------------

    def _go(self, position: int) -> None:
        """Go to a position: eagerly if it is new, because that may fail, and lazily otherwise."""
        if position <= self._known:
            self.position = position
            return
        self.position = self._known
        model = self.model
        with _uncollected():
            for event in self.events[self._known : position]:
                told = len(model.decisions)
                model.apply(event)
                self._known = self._stands = self.position = self._known + 1
                if len(model.decisions) > told:
                    self._story.append(model.decisions[-1])
                    self._told_at.append(self.position)

    def _replay(self) -> None:
        """Play from the model's position to `position`, all of which was played before."""
        begin, end, model = self._stands, self.position, self._model
        for event in self._events(begin, end):
            model.tree.apply(event)
            model.note(event)
        self._settle(begin)

    def _rewind(self) -> None:
        """Build the model of an earlier position, keeping the user's folds and the votes already counted."""
        model = RunModel(votes=self._model.counting)
        model.folding.take_choices(self._model.folding)
        with _uncollected():
            for event in self._events(0, self.position):
                model.tree.apply(event)
        model.writing = {node.id: None for node in model.tree.nodes if node.state == "writing"}
        self._model = model
        self._settle(0)

    def _settle(self, begin: int) -> None:
        """Add the story since `begin`, and advance the clock by every event, the skipped ones included."""
        model, self._stands = self._model, self.position
        first, last = bisect_right(self._told_at, begin), bisect_right(self._told_at, self.position)
        model.decisions += self._story[first:last]
        if self.position and model.tree.started is not None:
            model.tree.seconds = max(model.tree.seconds, max(event.t for event in self.events[begin : self.position]))

    def _events(self, begin: int, end: int) -> list[AnyEvent]:
        """Return the events from `begin` to `end` that still matter at `end`."""
        if self._needed is None:
            self._needed = _needed(self.events)
        pairs = zip(self.events[begin:end], self._needed[begin:end], strict=True)
        return [event for event, needed in pairs if needed >= end]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Disable garbage collection while a tree is built: nothing in it is garbage, and scanning takes half the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _needed(events: Sequence[AnyEvent]) -> array[int]:
    """Return for each event up to which position it matters: a piece of a step matters until the step is finished."""
    until = array("q", [len(events)]) * len(events)
    finished: dict[int, int] = {}
    for place in range(len(events) - 1, -1, -1):
        event = events[place]
        if isinstance(event, StepFinished):
            finished[event.node] = place
        elif isinstance(event, StepStreamed):
            until[place] = finished.get(event.node, len(events))
    return until
