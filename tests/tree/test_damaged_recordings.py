"""Reading any file as a recording gives events or a recording error, and events that can be read can be used."""

from __future__ import annotations

import asyncio
import io
import json
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.search.steering import KINDS, plan, steered
from tts_tui import SearchTree, Usage, load, read
from tts_tui.displays.plain import PlainDisplay
from tts_tui.errors import RecordCorrupt, RecordError, UsageError
from tts_tui.preflight import check_left, check_path
from tts_tui.search.result import finish
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import (
    AnswersMatched,
    AnyEvent,
    BranchBegun,
    Considered,
    NodesKept,
    Notice,
    PlanChosen,
    ScoreFailed,
    SearchFinished,
    SearchResumed,
    SpeculativeTokens,
    StepMerged,
    decode,
    encode,
)
from tts_tui.ui.player import Player

NUMBERS = [0, -1, 1, 2, 10**6, 2**31, 2**48, 2**48 + 1, 2**63, 2**64, 10**30, -(10**30), 10**400, -(10**400)]
HOSTILE = {
    bool: [True, False],
    int: NUMBERS,
    float: [0.0, -0.5, 1.5, 1e-320, 1e308, -1e308],
    str: ["", "x", "beam", "\x00\x1b[2J", "x" * 1000, "\\frac{1" * 300, "(" * 3000, "9" * 5000, "\u202e\u2028"],
    list: [[], [[]], [1], [-1], [10**30], ["x"], [None]],
    dict: [{}, {"x": 1}, {"event": "notice"}],
    type(None): [None],
}
EXTRA = [
    PlanChosen(
        samples=1,
        pass1=0.5,
        low=0.1,
        high=0.9,
        levels=(0.2, 0.3, 0.5),
        answer="1",
        confidence=0.5,
        changes=0.1,
        considered=(Considered("stop", 0.5, 0.0),),
        chosen="stop",
        strategy="",
        n=1,
        basis="priors",
        why="it is right",
    ),
    AnswersMatched(left="1/2", right="0.5"),
    Notice(message="the disk is full", warning=True),
    ScoreFailed(nodes=(1,), error="no"),
    SearchResumed(created="now"),
    BranchBegun(node=0),
    SpeculativeTokens(node=1, usage=Usage(1, 2, 3)),
    NodesKept(nodes=(1,), why="the best"),
    StepMerged(node=2, into=1),
]
"""Events that the recorded searches may lack."""


@cache
def recorded(strategy: str) -> tuple[bytes, ...]:
    """Return the recorded lines of a search in which the user performs all kinds of actions."""
    acts = [(5 + 4 * place, kind, place, place % 2) for place, kind in enumerate(KINDS)]
    result, person, _ = asyncio.run(steered(acts, plan(strategy)))
    assert not person.broken and result.tree.finished is not None
    events = [*person.events[:-1], *EXTRA, person.events[-1]]
    assert SearchTree.fold(events).finished
    return tuple(encode(event) + b"\n" for event in events)


def test_the_recordings_that_are_damaged_here_have_events_of_all_kinds():
    kinds = {type(decode(line)) for strategy in ("beam", "dvts", "best-of-n") for line in recorded(strategy)}
    assert kinds == set(AnyEvent.__args__)


def places(value, at=()):
    """Yield the key paths to all values inside a value."""
    if at:
        yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*at, key))


def change(line: bytes, data: st.DataObject) -> bytes:
    """Replace or remove a value of an event."""
    try:
        event = json.loads(line)
    except ValueError:
        return line  # already damaged
    *way, key = data.draw(st.sampled_from(list(places(event)) or [()])) or (None,)
    if key is None:
        return line
    part = event
    for step in way:
        part = part[step]
    alike = HOSTILE[type(part[key])]
    if isinstance(part, dict) and data.draw(st.integers(0, 5), label="remove") == 0:
        del part[key]
    else:
        anything = [value for values in HOSTILE.values() for value in values]
        part[key] = data.draw(st.one_of(st.sampled_from(alike), st.sampled_from(alike), st.sampled_from(anything)))
    return json.dumps(event).encode() + b"\n"


def damaged(lines: tuple[bytes, ...], data: st.DataObject) -> bytes:
    """Return a recording with one to three kinds of damage."""
    found = [*lines]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(found) - 1), label="line")
        line = found[place]
        match data.draw(st.sampled_from(["change"] * 6 + ["flip", "cut", "remove", "repeat", "swap"])):
            case "change":
                found[place] = change(line, data)
            case "flip":
                at = data.draw(st.integers(0, len(line) - 1))
                found[place] = line[:at] + bytes([line[at] ^ 1 << data.draw(st.integers(0, 7))]) + line[at + 1 :]
            case "cut":
                found[place] = line[: data.draw(st.integers(0, len(line) - 1))] + b"\n"
            case "remove" if len(found) > 1:
                del found[place]
            case "repeat":
                found.insert(place, found[data.draw(st.integers(0, len(found) - 1))])
            case "swap":
                other = data.draw(st.integers(0, len(found) - 1))
                found[place], found[other] = found[other], line
    return b"".join(found)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "run.jsonl"


@given(data=st.data(), strategy=st.sampled_from(["beam", "dvts", "best-of-n"]))
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_damaged_recording_is_a_recording_error_or_can_be_used(data, strategy, file):
    file.write_bytes(damaged(recorded(strategy), data))
    try:
        tree, events = load(file), list(read(file))
    except RecordError as error:
        assert str(file) in str(error)
        return
    display = PlainDisplay(io.StringIO())
    display.warn = lambda message: None
    for event in events:
        display(event)
    display.conclude(display.tree.finished)
    player = Player(events)
    player.seek(len(player))
    player.model.pull()
    assert len(player.model.votes) <= len(tree.solutions)
    try:  # as when resuming
        check_left(tree, tree.plan)
        check_path(tree)
    except UsageError:
        return
    finished = finish(EventLog(tree), tree.voters(), None)
    assert isinstance(decode(encode(finished)), SearchFinished)


@given(content=st.binary(max_size=300), first=st.booleans())
@settings(deadline=None, max_examples=200)
def test_bytes_of_any_kind_are_no_recording(content, first, file):
    file.write_bytes((b"" if first else recorded("beam")[0]) + content + b"\n")
    with pytest.raises(RecordError):
        load(file)


DEEP = b'{"event":"notice","message":"m","more":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"event":"plan_changed","plan":{"n":0}}', "n must be at least 1"),
        (b'{"event":"plan_changed","plan":{"vote":"loudest"}}', "unknown vote|Invalid enum value 'loudest'"),
        (b'{"event":"plan_changed","plan":{"budget":{"tokens":-1}}}', "budget of tokens must be positive"),
        (DEEP, "recursion"),
        (b'{"event":"step_scored","node":0,"score":7}', "score"),
        (b'{"event":"step_streamed","node":0,"text":"","usage":{"completion":1%s}}' % (b"0" * 400), "completion"),
        (b'{"event":"notice","message":"\\ud800"}', "not an event"),
    ],
)
def test_values_that_no_event_can_have_are_said_with_their_line(line, says, file):
    file.write_bytes(recorded("beam")[0] + line + b"\n")
    with pytest.raises(RecordCorrupt, match=f"line 2: .*({says})"):
        load(file)


def test_a_first_line_that_cannot_be_read_is_no_recording(file):
    file.write_bytes(DEEP + b"\n")
    with pytest.raises(RecordCorrupt):
        load(file)
