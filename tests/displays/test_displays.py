"""Displays as functions over recorded events: what they say, what they never say, and how much work they do."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console

from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Budget, Plan, SearchTree, Solver, Usage, formatting, load, read
from tts_tui.answers.voting import AnswerVotes, tally
from tts_tui.displays import factory, live, live_metrics, outline, session
from tts_tui.displays.base import Display
from tts_tui.displays.factory import AnswerDisplay
from tts_tui.displays.frame import Moment, frame
from tts_tui.displays.json_lines import JsonDisplay
from tts_tui.displays.live import LiveDisplay
from tts_tui.displays.live_metrics import Rate, Votes
from tts_tui.displays.plain import MOST_ALIKE, PlainDisplay
from tts_tui.displays.progress import Progress
from tts_tui.errors import BackendError, SinkError, UsageError
from tts_tui.protocols import ModelInfo
from tts_tui.tree.events import (
    NodesPruned,
    Notice,
    SearchContinued,
    SearchFinished,
    SearchPaused,
    SearchResumed,
    SearchStarted,
    SolutionFound,
    StepFinished,
    StepScored,
    StepStarted,
    StepStreamed,
    decode,
    encode,
)
from tts_tui.tree.totals import Flops, PlanSummary, PolicyTokens, PrmTokens, Tokens

SEP = "\n\n"
EVIL = "a\x1b[31mred\x1b]0;title\x07 [bold]mark[/bold] \x9b5m\u202eright\u200b to\u2066 left\r\x00 :smile: \ud800"


HIDING = "a\x1b[31m\x9b\u202e\u200b\u2028\ufe0f\U000e0041b"


def beam_script(path, draw):
    return f"so \\boxed{{{draw % 2 + 1}}}" if len(path) == 2 else f"thought {draw % 7} of {len(path)}{SEP}"


def rule(steps):
    return (sum(map(ord, "".join(steps))) % 97) / 97


async def run(script=beam_script, *, policy=None, prompt="What is it?", **plan):
    """Result and events of a scripted search."""
    events = []
    async with Solver(policy or ScriptedPolicy(script, piece=4), ScriptedPRM(rule)) as solver:
        result = await solver.solve(prompt, Plan(**{"strategy": "beam", "n": 8, "m": 4, **plan}), sinks=[events.append])
    return result, events


def shown(kind, events):
    out = io.StringIO()
    display = kind(out)
    for event in events:
        display(event)
    display.conclude(display.tree.finished)
    return out.getvalue()


def start(problem="p", **plan):
    return SearchStarted(
        problem=problem,
        plan=Plan(**plan),
        policy=ModelInfo("model", 1000, 4096),
        prm=None,
        prompt_ids=(1, 2),
        version="1",
        created="now",
    )


def finished_step(node, parent, said, score=None, t=0.0):
    usage = Usage(completion=1)
    yield StepStarted(t=t, node=node, parent=parent, slot=0)
    yield StepFinished(t=t, node=node, ids=(7,), text=said, finish="step", usage=usage)
    if score is not None:
        yield StepScored(t=t, node=node, score=score)


# -- plain -------------------------------------------------------------------------------------------------------------


async def test_plain_tells_the_search_in_sentences():
    result, events = await run()
    said = shown(PlainDisplay, events)
    assert said.startswith("Problem: What is it?\nPolicy: scripted (10 parameters). Reward model: scripted-prm (5 ")
    assert "Plan: beam, n 8, m 4, temperature 0.7, vote prm-vote of last scores, seed 0." in said
    assert "Kept 2 steps (scores " in said and "Pruned " in said
    assert f"\nAnswer: {result.answer}\nVotes: {result.answer}: " in said
    assert "Ended: the search is complete" in said
    tokens = result.finished.tokens
    assert f"{tokens.policy.completion:,} tokens written" in said
    assert f"Reward model: {tokens.prm.computed:,} tokens computed, {tokens.prm.cached:,} reused." in said


async def test_plain_needs_no_cursor_no_colour_and_no_glyph():
    _, events = await run()
    said = shown(PlainDisplay, events)
    assert all(char == "\n" or char.isprintable() for char in said)
    assert said.isascii()


async def test_plain_sums_up_what_would_be_too_many_lines():
    _, events = await run(lambda path, draw: f"\\boxed{{{draw % 9}}}", strategy="best-of-n", n=200)
    said = shown(PlainDisplay, events)
    assert said.count(": Solution ") == MOST_ALIKE


def test_plain_says_something_now_and_then():
    events = [start(), StepStarted(node=1, parent=0, slot=0)]
    events += [StepStreamed(t=float(t), node=1, text="x", usage=Usage(completion=1)) for t in range(30)]
    lines = [line for line in shown(PlainDisplay, events).splitlines() if "so far" in line]
    assert 4 <= len(lines) <= 6
    assert "1 step so far, 1 of them being written" in lines[0]


async def test_plain_names_failures_and_notices():
    policy = ScriptedPolicy(beam_script)
    policy.faults = [BackendError("the server said no")]
    _, events = await run(policy=policy)
    said = shown(PlainDisplay, [*events[:-1], Notice(message="the disk is full"), events[-1]])
    assert "failed, trying again: the server said no." in said
    assert "the disk is full" in said


async def test_a_resumed_search_is_introduced_again():
    _, events = await run()
    out = io.StringIO()
    display = PlainDisplay(out)
    display.past(events[:20])
    assert out.getvalue() == ""
    display(SearchResumed(t=3.0, created="now"))
    assert "Problem: What is it?" in out.getvalue() and "3.0 s: Resumed." in out.getvalue()
    assert not display.writing


def test_a_recording_that_is_cut_off_says_how_to_go_on():
    assert "tts-tui resume" in shown(PlainDisplay, [start()])


# -- json and none -----------------------------------------------------------------------------------------------------


async def test_json_is_one_event_a_line_and_ends_with_the_end():
    result, events = await run()
    lines = shown(JsonDisplay, events).splitlines()
    assert [decode(line) for line in lines] == events
    last = json.loads(lines[-1])
    assert last["event"] == "search_finished"
    assert last["answer"] == result.answer
    assert set(last["plan"]) == {"strategy", "n", "m", "score", "vote"}
    assert set(last["tokens"]["policy"]) == {"prompt_computed", "prompt_cached", "completion", "ahead"}
    assert set(last["tokens"]["prm"]) == {"computed", "cached"}
    assert set(last["flops"]) == {"policy", "prm"}
    assert last["seconds"] >= 0 and last["reason"] == "solved"


async def test_json_of_what_was_complete_already_is_its_end():
    _, events = await run()
    out = io.StringIO()
    display = JsonDisplay(out)
    display.past(events)
    display.conclude(display.tree.finished)
    assert json.loads(out.getvalue())["event"] == "search_finished"


async def test_none_prints_the_answer_alone():
    result, events = await run()
    assert shown(AnswerDisplay, events) == f"{result.answer}\n"
    assert shown(AnswerDisplay, [start()]) == ""


class Gone(io.StringIO):
    """Somebody who stops reading after some lines, as `head` does."""

    def __init__(self, lines):
        super().__init__()
        self.lines = lines

    def write(self, said):
        self.lines -= said.count("\n")
        if self.lines < 0:
            raise BrokenPipeError
        return super().write(said)


@pytest.mark.parametrize("kind", [PlainDisplay, JsonDisplay])
async def test_a_closed_pipe_silences_a_display_and_says_so_once(kind):
    _, events = await run()
    display, told = kind(Gone(3)), []
    display.on_closed = lambda: told.append(1)
    for event in events:
        display(event)
    display.conclude(display.tree.finished)
    assert told == [1]


LOST = Notice(message="the recording stops here", warning=True)


def on_a_terminal():
    return LiveDisplay(io.StringIO(), console=Console(file=io.StringIO(), force_terminal=True, width=80, height=24))


@pytest.mark.parametrize("kind", [PlainDisplay, JsonDisplay, AnswerDisplay])
async def test_what_is_lost_is_said_on_standard_error_at_once(kind, capsys):
    display = kind(io.StringIO())
    display(start())
    display(Notice(message="nothing to worry about"))
    display(LOST)
    assert capsys.readouterr().err == f"tts-tui: {LOST.message}\n"


async def test_the_live_display_says_what_is_lost_when_the_terminal_is_left(capsys):
    async with on_a_terminal() as display:
        display(start())
        display._repaint()
        display(LOST)
        assert capsys.readouterr().err == ""
    display.conclude(None)
    assert capsys.readouterr().err == f"tts-tui: {LOST.message}\n"


@pytest.mark.parametrize("kind", [PlainDisplay, JsonDisplay, AnswerDisplay])
async def test_what_is_lost_is_said_also_where_nobody_reads(kind, capsys):
    _, events = await run()
    display = kind(Gone(0))
    for event in [*events[:-1], LOST, events[-1]]:
        display(event)
    display.conclude(display.tree.finished)
    assert capsys.readouterr().err == f"tts-tui: {LOST.message}\n" and not display.failed


class Full(io.StringIO):
    """The disk behind a redirection."""

    def write(self, said):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("kind", [PlainDisplay, JsonDisplay, AnswerDisplay])
async def test_output_that_cannot_be_written_is_said_and_is_no_success(kind, capsys):
    solver = Solver(ScriptedPolicy(beam_script), ScriptedPRM(rule))
    code = await session.search(solver, kind(Full()), "p", Plan(n=4), None)
    err = capsys.readouterr().err
    assert code != 0 and "No space left on device" in err and err.count("\n") == 1


@pytest.mark.parametrize("kind", [PlainDisplay, JsonDisplay, AnswerDisplay])
async def test_a_display_that_fails_ends_the_search_and_what_happened_is_recorded(kind, tmp_path):
    class Broken(kind):
        def show(self, event):
            if isinstance(event, StepFinished):
                raise ZeroDivisionError("a mistake in the display")
            super().show(event)

    path = tmp_path / "run.jsonl"
    solver = Solver(ScriptedPolicy(beam_script), ScriptedPRM(rule))
    with pytest.raises(SinkError) as caught:
        await session.search(solver, Broken(io.StringIO()), "p", Plan(n=4), path)
    assert isinstance(caught.value.__cause__, ZeroDivisionError) and caught.value.exit_code != 0
    assert load(path).finished.reason == "failed"


async def test_a_live_display_that_cannot_paint_ends_the_search_and_leaves_the_terminal(monkeypatch):
    policy = ScriptedPolicy(beam_script)
    policy.hold = asyncio.Event()  # no event follows that could tell the display
    display, painted = on_a_terminal(), []

    def picture(height=None):
        painted.append(height)
        if len(painted) > 1:
            raise ZeroDivisionError("a mistake in the picture")
        return []

    monkeypatch.setattr(display, "picture", picture)
    monkeypatch.setattr(live, "FRAMES", 1e9)
    with pytest.raises(ZeroDivisionError):
        await session.search(Solver(policy, ScriptedPRM(rule)), display, "p", Plan(n=4), None)
    assert display.tree.finished.reason == "interrupted" and display._live is None


@pytest.mark.parametrize("faults", [[BackendError("the server said no")] * 100, []])
async def test_none_says_why_a_search_failed_on_standard_error(faults, capsys):
    policy = ScriptedPolicy(beam_script)
    policy.faults = [*faults]
    out = io.StringIO()
    code = await session.search(Solver(policy, ScriptedPRM(rule)), AnswerDisplay(out), "p", Plan(n=2), None)
    err = capsys.readouterr().err
    assert (code != 0, out.getvalue() == "", "the server said no" in err) == (bool(faults),) * 3
    assert err.count("\n") == len(err.splitlines()) == bool(faults)


# -- text --------------------------------------------------------------------------------------------------------------


def harmless(said):
    hiding = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return all(char == "\n" or (unicodedata.category(char) not in hiding and char != "\ufe0f") for char in said)


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=200))
def test_clean_text_steers_nothing(said):
    assert harmless(formatting.clean(said))
    assert "\n" not in formatting.one_line(said) and len(formatting.one_line(said, 20)) <= 20
    assert "\n" not in formatting.tail(said) and len(formatting.tail(said, 20)) <= 20


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Sm")), max_size=200))
def test_clean_text_keeps_what_can_be_seen(said):
    assert formatting.clean(said) == said


@pytest.mark.parametrize("kind", [PlainDisplay, AnswerDisplay])
def test_what_a_model_wrote_is_shown_and_not_obeyed(kind):
    events = [start(problem=EVIL.replace("\ud800", "")), *finished_step(1, 0, EVIL, 0.5)]
    events += [SolutionFound(node=1, answer=EVIL), ending(EVIL)]
    said = shown(kind, events)
    assert harmless(said)
    assert "[31mred" in said and "[bold]mark[/bold]" in said and ":smile:" in said


def ending(answer):
    return SearchFinished(
        answer=answer,
        node=1,
        reason="solved",
        detail="",
        plan=PlanSummary("beam", 8, 4, "last", "prm-vote"),
        tokens=Tokens(PolicyTokens(1, 2, 3), PrmTokens(4, 5)),
        flops=Flops(1e9, 2e9),
        seconds=1.0,
        votes=(AnswerVotes(answer, 1.0, (1,)),),
        nodes=1,
    )


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (950, "950"),
        (999.7, "1.00k"),
        (1000, "1.00k"),
        (19600, "19.6k"),
        (134_500_000, "134M"),
        (2e12, "2.00T"),
    ],
)
def test_short_numbers(number, said):
    assert formatting.short(number) == said


def test_shares_never_round_to_all_or_nothing():
    assert [formatting.percent(share) for share in (0, 0.001, 0.5, 0.999, 1)] == ["0 %", "1 %", "50 %", "99 %", "100 %"]


def test_scores_and_bars():
    assert [formatting.digits(score) for score in (None, 0.0, 0.814, 0.996)] == ["  …", ".00", ".81", "1.0"]
    assert [formatting.bar(share, 4) for share in (-1, 0, 0.5, 0.53, 1, 2)] == [
        "    ",
        "    ",
        "██  ",
        "██▏ ",
        "████",
        "████",
    ]
    assert formatting.bar(0.5, 4, blocks=False) == "##--"
    assert [formatting.clock(seconds) for seconds in (42, 3909)] == ["00:42", "1:05:09"]


# -- the live picture --------------------------------------------------------------------------------------------------


def picture(tree, width=80, height=24, writing=(), **moment):
    return [line.plain for line in frame(tree, writing, width, height, Moment(**moment))]


async def test_the_picture_shows_state_as_glyph_and_word():
    result, events = await run()
    at = max(number for number, event in enumerate(events) if isinstance(event, StepStreamed))
    display = Display(io.StringIO())
    for event in events[: at + 1]:
        display(event)
    lines = "\n".join(picture(display.tree, 100, 40, display.writing))
    assert "⠋ writing " in lines and "✗ pruned " in lines and "● running" in lines
    lines = "\n".join(picture(result.tree, 100, 40, votes=result.votes))
    assert f"★ answer {result.answer} " in lines and "★ the search is complete │ beam N 8 M 4" in lines
    assert lines.splitlines()[-1].startswith(f" answers  ★ {result.answer} ██████ ")


def test_the_picture_counts_no_time_that_the_search_was_paused():
    events = [
        start(budget=Budget(seconds=60.0)),
        SearchPaused(t=10.0),
        SearchContinued(t=40.0),
        Notice(t=50.0, message=""),
    ]
    said = "\n".join(picture(SearchTree.fold(events), 100))
    assert "40 s left" in said and "● running, 0 writing" in said
    assert "‖ paused" in "\n".join(picture(SearchTree.fold(events[:2])))
    assert "= paused" in "\n".join(picture(SearchTree.fold(events[:2]), unicode=False))


@pytest.mark.parametrize("width", [1, 10, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 3, 4, 8, 24, 60])
async def test_the_picture_fits_every_terminal(width, height):
    result, events = await run(n=32, m=2)
    wide = SearchTree.fold([start("宽" * 200), *finished_step(1, 0, "宽" * 300, 0.3)])
    for tree in (result.tree, wide, SearchTree.fold(events[: len(events) // 2])):
        lines = frame(tree, [], width, height, Moment(votes=result.votes))
        assert len(lines) <= height
        assert all(line.cell_len <= width for line in lines)


def test_a_terminal_without_unicode_gets_ascii():
    tree = SearchTree.fold([start("p"), *finished_step(1, 0, "…宽 ★", 0.3), *finished_step(2, 0, "b", 0.9)])
    lines = picture(tree, unicode=False)
    assert all(line.isascii() for line in lines)
    assert any("|-" in line and "##" in line for line in lines)


def test_what_a_model_wrote_is_no_markup_in_the_picture_either():
    tree = SearchTree.fold([start(EVIL), *finished_step(1, 0, EVIL, 0.5), SolutionFound(node=1, answer=EVIL)])
    lines = picture(tree, 200, votes=ending(EVIL).votes)
    assert harmless("\n".join(lines))
    assert any("[bold]mark[/bold]" in line for line in lines)


def test_children_of_pruned_steps_are_folded_away():
    events = [start(), *finished_step(1, 0, "one"), *finished_step(2, 1, "below"), *finished_step(3, 0, "two")]
    lines = "\n".join(picture(SearchTree.fold([*events, NodesPruned(nodes=(1,), why="worse")])))
    assert "✗ pruned one +1 folded" in lines and "below" not in lines and "two" in lines


def test_a_deep_path_shows_its_end():
    events = [start()]
    for node in range(1, 3001):
        events += finished_step(node, node - 1, f"step {node}.")
    lines = picture(SearchTree.fold(events), 80, 24)
    assert len(lines) <= 24 and any("step 3000." in line for line in lines)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=120), st.integers(1, 40), st.data())
def test_the_outline_is_a_part_of_the_tree_in_order(parents, height, data):
    events = [start()]
    for node, parent in enumerate(parents, 1):
        events += finished_step(node, parent % node, str(node))
    tree = SearchTree.fold(events)
    writing = data.draw(st.lists(st.integers(1, len(parents)), unique=True))
    rows = outline.rows(tree, writing, height)
    ids = [row.node.id for row in rows]
    assert ids[0] == 0 and len(ids) == len(set(ids)) <= height
    assert len(ids) > 1 or height == 1
    for row in rows[1:]:
        if not row.skipped:
            assert row.node.parent.id in ids[: ids.index(row.node.id)]
        children = [other for other in rows if other.node.parent is row.node and not other.skipped]
        assert row.folded == len(row.node.children) - len(children)
        assert [other.node.id for other in children] == sorted(other.node.id for other in children)


def test_work_for_a_picture_does_not_grow_with_the_tree(monkeypatch):
    looked = []
    missing = outline._missing
    monkeypatch.setattr(outline, "_missing", lambda *given: looked.append(1) or missing(*given))

    def looks(size):
        looked.clear()
        events = [start()]
        for node in range(1, size):
            events += finished_step(node, node // 3, "x", 0.5)
        outline.rows(SearchTree.fold(events), [], 30)
        return len(looked)

    assert looks(30_000) <= looks(3_000) + 5 <= 100


async def test_the_live_display_paints_by_the_clock_and_not_by_the_event():
    _, events = await run(n=32, m=2)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24, color_system="truecolor")
    display, painted = LiveDisplay(out, console=console), []
    draw = display._repaint
    display._repaint = lambda: painted.append(1) or draw()
    async with display:
        for event in events:
            display(event)
        await asyncio.sleep(0)
    assert len(painted) <= 2 < len(events)
    display.conclude(display.tree.finished)
    assert "\x1b[?1049h" in out.getvalue() and "\x1b[?1049l" in out.getvalue()
    assert "Answer: " in out.getvalue().rpartition("\x1b[?1049l")[2]


async def test_no_color_leaves_no_colour(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    result, _ = await run()
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24, color_system="truecolor")
    for line in frame(result.tree, [], 80, 24, Moment()):
        console.print(line)
    assert "38;2" not in out.getvalue() and "48;2" not in out.getvalue()
    assert ".8" in out.getvalue() or ".9" in out.getvalue() or ".5" in out.getvalue()


async def test_votes_are_counted_while_the_search_runs():
    result, events = await run(strategy="best-of-n", n=8)
    votes = Votes()
    assert votes.of(SearchTree.fold(events[:-1])) == result.votes
    assert votes.of(result.tree) == result.votes


async def test_votes_are_counted_again_only_when_something_decides_them(monkeypatch):
    _, events = await run(strategy="best-of-n", n=8)
    counted, now = [], [0.0]
    monkeypatch.setattr(live_metrics, "tally", lambda *given: counted.append(1) or tally(*given))
    votes, tree = Votes(lambda: now[0]), SearchTree.fold(events[:-1])
    first = votes.of(tree)
    tree.apply(Notice(message="nothing of that kind"))
    assert votes.of(tree) == first and len(counted) == 1
    tree.apply(NodesPruned(nodes=first[0].solutions, why="cut", by="person"))
    other = SolutionFound(node=next(node.id for node in tree.nodes[1:] if not node.solved), answer="another")
    tree.apply(other)
    assert first[0].answer != votes.of(tree)[0].answer and len(counted) == 2
    monkeypatch.setattr(live_metrics, "FEW", 0)
    before = votes.of(tree)
    tree.apply(NodesPruned(nodes=(other.node,), why="cut", by="person"))
    assert votes.of(tree) is before and len(counted) == 2
    now[0] += live_metrics.PAUSE
    assert votes.of(tree) != before and len(counted) == 3


def test_the_rate_keeps_nothing_while_nothing_happens():
    rate = Rate()
    for tokens in range(100):
        rate.at(1.0, tokens)
    assert rate.at(3.0, 299) == 100.0 and len(rate._points) == 2


def test_the_rate_is_that_of_the_last_seconds():
    rate = Rate()
    assert rate.at(0.0, 0) == 0.0
    assert rate.at(1.0, 100) == 100.0
    for second in range(2, 12):
        last = rate.at(float(second), 100 + 10 * (second - 1))
    assert last == 10.0


# -- choice, replay, progress ------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_display_fits_where_it_is_shown(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert type(factory.make(None, Terminal())) is LiveDisplay
    assert type(factory.make(None, io.StringIO())) is PlainDisplay
    assert type(factory.make("json", Terminal())) is JsonDisplay
    monkeypatch.setenv("TERM", "dumb")
    assert type(factory.make(None, Terminal())) is PlainDisplay
    with pytest.raises(UsageError, match="needs a terminal"):
        factory.make("live", Terminal())


async def test_a_replay_is_the_same_and_ends_as_the_search_did(tmp_path):
    result, events = await run()
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    out = io.StringIO()
    assert await session.replay(JsonDisplay(out), read(path), 0) == 0
    assert out.getvalue().encode() == path.read_bytes()
    path.write_bytes(b"".join(encode(event) + b"\n" for event in events[:-1]))
    assert await session.replay(PlainDisplay(io.StringIO()), read(path), 0) == 1
    assert result.answer is not None


async def test_a_replay_as_json_escapes_what_an_older_recording_holds_raw(tmp_path):
    events = [start(problem=HIDING), *finished_step(1, 0, HIDING, 0.5), ending(HIDING)]
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events))
    assert "\u202e".encode() in path.read_bytes()
    out = io.StringIO()
    assert await session.replay(JsonDisplay(out), read(path), 0) == 0
    assert harmless(out.getvalue())
    assert [decode(line) for line in out.getvalue().splitlines()] == events


async def test_a_replay_keeps_the_time_between_events(tmp_path, monkeypatch):
    waits = []

    async def wait(seconds, stopped):
        waits.append(seconds)

    monkeypatch.setattr(session, "_wait", wait)
    events = [start(), Notice(t=1.0, message="a"), Notice(t=1.0, message="b"), Notice(t=3.0, message="c")]
    events.append(Notice(t=100.0, message="d"))
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    await session.replay(PlainDisplay(io.StringIO()), read(path), 4.0)
    assert waits == [0.25, 0.5, session.SILENCE]


@pytest.mark.parametrize(
    ("reason", "answer", "code"),
    [
        ("solved", "1", 0),
        ("unsolved", None, 1),
        ("budget", "1", 0),
        ("budget", None, 1),
        ("timeout", "1", 0),
        ("interrupted", "1", 130),
        ("failed", None, 3),
    ],
)
def test_exit_codes(reason, answer, code):
    assert session.exit_code(replace(ending("1"), reason=reason, answer=answer)) == code


def test_progress_is_few_lines_off_a_terminal_and_one_line_on_it(monkeypatch):
    steps = [("downloading", part, 93_000_000) for part in range(0, 93_000_001, 31_000_000)] + [("converting", 3, 9)]
    out = io.StringIO()
    with Progress(out) as progress:
        for step in steps:
            progress(*step)
    assert out.getvalue() == "tts-tui: downloading\ntts-tui: converting\n"
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with Progress(out) as progress:
        for step in steps:
            progress(*step)
    assert out.getvalue().count("\n") == 2 and "93/93 MB" in out.getvalue() and "3/9" in out.getvalue()
