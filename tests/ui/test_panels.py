"""Panels as functions of a model: what they say, and that they fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App

from tests.displays.test_displays import EVIL, finished_step, run, start
from tts_tui import Budget
from tts_tui.plan import Plan
from tts_tui.protocols import Sampling
from tts_tui.tree.events import Notice, SearchPaused, SolutionFound, StepFailed, StepStarted
from tts_tui.ui import panels
from tts_tui.ui.run_model import RunModel, StoryLine
from tts_tui.ui.widgets import decisions_view
from tts_tui.ui.widgets.decisions_view import StoryView


def model_of(events):
    model = RunModel()
    for event in events:
        model.apply(event)
    model.pull()
    return model


async def test_the_status_line_says_what_runs_and_how_it_stands():
    _, events = await run()
    halfway = model_of(events[: len(events) // 2])
    assert "● running" in panels.status(halfway, 100).plain
    assert "beam N 8 M 4" in panels.status(halfway, 100).plain
    assert "★ the search is complete" in panels.status(model_of(events), 100).plain
    halfway.apply(SearchPaused(t=halfway.tree.seconds))
    assert "‖ paused" in panels.status(halfway, 100).plain


@given(st.integers(1, 200))
def test_every_line_fits_its_width(width):
    model = model_of([start(budget=Budget(tokens=100, flops=1e9, seconds=9.0)), *finished_step(1, 0, EVIL * 9, 0.5)])
    node = model.tree.nodes[1]
    lines = [panels.status(model, width), panels.gauges(model, width), panels.answers_line(model, width)]
    lines += panels.answers(model, width, 3)
    assert all(line.cell_len <= width for line in lines)
    assert all(character.isprintable() for line in [*lines, *panels.step_head(node, width)] for character in line.plain)


def test_gauges_show_the_limits_that_there_are():
    unlimited = panels.gauges(model_of([start()]), 200).plain
    assert "budget" not in unlimited and "left" not in unlimited
    limited = panels.gauges(model_of([start(budget=Budget(tokens=1000, seconds=60.0))]), 200).plain
    assert "budget" in limited and "/1.00k tokens" in limited and "60 s left" in limited


async def test_answers_are_listed_with_their_votes_best_first():
    result, events = await run()
    said = "\n".join(line.plain for line in panels.answers(model_of(events), 80, 5))
    assert said.splitlines()[0].startswith(f" ★ {result.answer}")
    assert "no answer yet" in panels.answers(model_of(events[:3]), 80, 5)[0].plain


async def test_of_many_answers_the_rest_is_counted():
    events = [start(vote="majority")]
    for number in range(1, 10):
        events += finished_step(number, 0, f"{number}")
        events.append(SolutionFound(node=number, answer=str(number)))
    lines = panels.answers(model_of(events), 80, 4)
    assert len(lines) == 4
    assert lines[-1].plain.strip() == "and 6 other answers"


async def test_a_step_is_told_in_full():
    result, _ = await run()
    tree = result.tree
    kept = next(node for node in tree.nodes if node.why.startswith("among") and node.children)
    said = "\n".join(line.plain for line in panels.step_head(kept, 100))
    assert f"step {kept.label} · open" in said
    assert "min " in said and "prod " in said
    assert "written; prompt" in said and "cached" in said
    assert "why    among the best" in said
    pruned = next(node for node in tree.nodes if node.pruned)
    assert "pruned" in panels.condition(pruned)
    assert panels.condition(tree.nodes[result.finished.node]).startswith("answer ")


def test_the_plan_is_told_with_its_reason():
    plan = Plan(strategy="beam", n=8, m=2, budget=Budget(tokens=5, seconds=2), sampling=Sampling(0.5, 0.9), why="so")
    said = dict(panels.plan_lines(plan))
    assert said["strategy"] == "beam N 8 M 2"
    assert said["budget"] == "5 tokens, 2 s"
    assert said["why"] == "so"
    assert "M" not in dict(panels.plan_lines(Plan(strategy="cot", n=1)))["strategy"].replace("beam", "")


async def test_the_story_is_told_in_sentences():
    _, events = await run()
    said = [told.sentence for told in model_of(events).decisions]
    assert all(sentence and sentence.isprintable() for sentence in said)
    assert any(sentence.startswith("Kept ") for sentence in said)
    assert any(sentence.startswith("Pruned ") for sentence in said)
    assert said[-1].startswith("Ended: the search is complete. Answer: ")


@pytest.mark.parametrize("text", [EVIL, "[/]", "[red]x[/red]"])
def test_what_models_and_servers_say_is_never_markup(text):
    events = [start(text or "p"), StepStarted(node=1, parent=0, slot=0), StepFailed(node=1, error=text)]
    events.append(Notice(message=text))
    model = model_of(events)
    said = [told.sentence for told in model.decisions]
    assert all(character.isprintable() for sentence in said for character in sentence)
    if text.isprintable():
        assert any(text in sentence for sentence in said)


# -- the story ---------------------------------------------------------------------------------------------------------


class Telling(App):
    CSS = "StoryView { overflow-y: scroll; }"

    def compose(self):
        yield StoryView()


async def test_the_story_shows_the_last_decisions_and_wraps_each_once(monkeypatch):
    monkeypatch.setattr(decisions_view, "MOST", 20)
    wrapped = []
    rows = decisions_view._rows
    monkeypatch.setattr(decisions_view, "_rows", lambda event, width: wrapped.append(event) or rows(event, width))
    story = [StoryLine(float(number), f"decision {number} " + "word " * (number % 4)) for number in range(70)]
    app = Telling()
    async with app.run_test(size=(24, 6)) as pilot:
        view = app.query_one(StoryView)
        for upto in (*range(71), 69, 65, 66):
            view.put(story[:upto])
            await pilot.pause()
            said = " ".join(line for _, line in view._rows).replace("decision ", "").replace("word", "").split()
            assert said == [str(number) for number in range(max(0, upto - 20), upto)][-len(said) :]
            assert len(view._shown) <= 20 and view.virtual_size.height == len(view._rows)
            assert view.scroll_offset.y == view.max_scroll_y
        assert len(wrapped) == 71
        view.put(story[:30])
        assert len(view._shown) == 20 and len(wrapped) == 91


async def test_whoever_has_scrolled_away_in_the_story_stays_with_what_is_read(monkeypatch):
    monkeypatch.setattr(decisions_view, "MOST", 20)
    story = [StoryLine(0.0, f"decision {number}") for number in range(40)]
    app = Telling()
    async with app.run_test(size=(40, 6)) as pilot:
        view = app.query_one(StoryView)
        view.put(story[:20])
        await pilot.pause()
        view.scroll_to(y=8, animate=False)
        await pilot.pause()
        read = view.render_line(0).text
        view.put(story[:25])
        await pilot.pause()
        assert "decision 8" in read and view.render_line(0).text == read
