"""A recording as a film: every place of it is the same, from whichever side one comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.displays.test_displays import run
from tests.tree.test_recording import picture
from tts_tui import SearchTree
from tts_tui.displays.narration import describe
from tts_tui.errors import RecordCorrupt
from tts_tui.tree.events import NodesPruned, StepFinished, StepStreamed
from tts_tui.ui import run_model
from tts_tui.ui.player import SPEEDS, Player
from tts_tui.ui.run_model import RunModel


async def test_it_ends_where_the_search_did():
    result, events = await run()
    player = Player(events)
    player.advance(1e9)
    assert player.at_end and not player.playing
    assert picture(player.model.tree) == picture(result.tree)


@given(
    st.lists(st.tuples(st.sampled_from(["step", "decision", "seek"]), st.integers(-30, 300)), max_size=12), st.data()
)
async def test_every_place_is_the_fold_of_what_came_before(moves, data):
    _, events = await run()
    player = Player(events)
    for kind, amount in moves:
        if kind == "step":
            player.step(amount)
        elif kind == "decision":
            player.decision(1 if amount > 0 else -1)
        else:
            player.seek(amount)
        assert 0 <= player.position <= len(events)
        if player.position:
            expected = RunModel()
            for event in events[: player.position]:
                expected.apply(event)
            assert picture(player.model.tree) == picture(expected.tree)
            assert player.model.tree.seconds == expected.tree.seconds
            assert player.model.decisions == expected.decisions
            assert list(player.model.writing) == list(expected.writing)
            player.model.pull()
            expected.pull()
            assert player.model.folding.window(0, 500) == expected.folding.window(0, 500)


async def test_decisions_are_gone_through_one_by_one_and_back():
    _, events = await run()
    player = Player(events)
    tree = SearchTree()
    places = [place for place, event in enumerate(events, 1) if tree.apply(event) or describe(event, tree)]
    for place in places:
        player.decision(1)
        assert player.position == place
    for place in reversed(places[:-1]):
        player.decision(-1)
        assert player.position == place
    player.decision(-1)
    assert player.position == 0


async def test_going_back_folds_what_is_needed_once_for_many_presses_and_tells_nothing_again(monkeypatch):
    _, events = await run()
    player = Player(events)
    player.seek(len(events))
    folded = []
    apply = SearchTree.apply
    monkeypatch.setattr(SearchTree, "apply", lambda tree, event: folded.append(event) or apply(tree, event))
    monkeypatch.setattr(run_model, "describe", lambda event, tree: pytest.fail("told again"))
    for _ in range(5):
        player.step(-1)
    assert folded == []
    assert picture(player.model.tree) and player.position == len(events) - 5
    finished = {event.node for event in events[:-5] if isinstance(event, StepFinished)}
    assert (
        len(folded)
        == sum(not (isinstance(event, StepStreamed) and event.node in finished) for event in events[:-5])
        < len(events)
    )
    folded.clear()
    player.decision(1)
    assert player.model.decisions and len(folded) <= 5


async def test_a_recording_that_adds_up_to_no_search_is_refused_where_it_first_does_not():
    _, events = await run()
    player = Player([*events[:9], NodesPruned(nodes=(0,), why="")])
    with pytest.raises(RecordCorrupt):
        player.seek(100)
    assert player.position == 9 and picture(player.model.tree) == picture(SearchTree.fold(events[:9]))
    player.seek(3)
    assert picture(player.model.tree) == picture(SearchTree.fold(events[:3]))
    with pytest.raises(RecordCorrupt):
        player.advance(1e9)


async def test_time_passes_as_fast_as_it_is_told():
    _, events = await run()
    slow, fast = Player(events, speed=0.25), Player(events, speed=4.0)
    for player in (slow, fast):
        player.advance(0.001)
    assert slow.position <= fast.position
    slow.toggle()
    before = slow.position
    slow.advance(100.0)
    assert slow.position == before


async def test_at_its_end_it_plays_again_from_the_beginning():
    _, events = await run()
    player = Player(events)
    player.advance(1e9)
    player.toggle()
    assert player.playing and player.position == 0 and not player.model.tree.nodes


async def test_speeds_stay_within_their_limits():
    _, events = await run()
    player = Player(events)
    for _ in range(20):
        player.faster(1)
    assert player.speed == SPEEDS[-1]
    for _ in range(20):
        player.faster(-1)
    assert player.speed == SPEEDS[0]
