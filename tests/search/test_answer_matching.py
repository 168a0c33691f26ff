"""Equivalent answers vote together; matches are recorded as events, so a replay does not compare answers again."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

import tts_tui.answers.grading
import tts_tui.search.answer_matching
from tests.scripted import ScriptedPolicy
from tts_tui import Plan, SearchTree, Solver, load, read
from tts_tui.answers.grading import Grader
from tts_tui.displays.live_metrics import Votes
from tts_tui.displays.narration import describe
from tts_tui.errors import RecordVersion
from tts_tui.search.result import Result
from tts_tui.tree.events import FORMAT, AnswersMatched, SearchFinished, SearchStarted, decode, encode

ROOTS = ["\\sqrt{8}", "3", "2\\sqrt{2}", "3", "\\frac{4}{\\sqrt{2}}"]
MAJORITY = Plan(strategy="majority", n=5, vote="majority")


def solver(answers, **settings):
    return Solver(ScriptedPolicy(lambda path, draw: f"\\boxed{{{answers[draw]}}}", counted=True, **settings), None)


class Told:
    """A grader with a given table of equivalent answers, without worker processes."""

    def __init__(self, monkeypatch, *same):
        self.asked = []
        self.same = {frozenset(pair) for pair in same}
        monkeypatch.setattr(Grader, "_ask", lambda grader, left, right: self._answer(left, right))

    async def _answer(self, left, right):
        self.asked.append({left, right})
        return frozenset((left, right)) in self.same


@pytest.fixture
def told(monkeypatch):
    return Told(monkeypatch, ROOTS[0:3:2], ROOTS[0::4], ROOTS[2::2])


@pytest.mark.slow
async def test_answers_that_mean_the_same_win_together():
    async with solver(ROOTS) as one:
        result = await one.solve("2 + 2?", MAJORITY)
    assert result.answer == "\\sqrt{8}"
    assert [(vote.answer, vote.weight) for vote in result.votes] == [("\\sqrt{8}", 3.0), ("3", 2.0)]


async def test_what_was_found_out_is_recorded_and_not_asked_again(told, tmp_path):
    record = tmp_path / "run.jsonl"
    async with solver(ROOTS) as one:
        result = await one.solve("2 + 2?", MAJORITY, record=record)
    events = list(read(record))
    matched = [event for event in events if isinstance(event, AnswersMatched)]
    assert [(event.left, event.right) for event in matched] == [(ROOTS[0], ROOTS[2]), (ROOTS[0], ROOTS[4])]
    assert isinstance(events[-1], SearchFinished)
    told.asked.clear()
    again = load(record)
    assert again.finished.votes == result.votes
    live = SearchTree()
    for event in events[:-1]:
        live.apply(event)
    assert Votes().of(live) == result.votes

    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(lines[:-1]))  # killed before the last event
    async with solver(ROOTS) as one:
        resumed = await one.resume(record)
    assert (resumed.answer, resumed.votes) == (result.answer, result.votes)
    assert told.asked == [{"\\sqrt{8}", "3"}]  # differences are not recorded


async def test_numbers_and_words_are_nobodys_question(told):
    async with solver(["5", "7", "\\frac12", "Friday", "1,2"]) as one:
        result = await one.solve("2 + 2?", MAJORITY)
    assert len(result.votes) == 5
    assert told.asked == []


async def test_one_answer_written_in_one_way_needs_no_comparison(told):
    async with solver(["\\sqrt{8}"] * 5) as one:
        result = await one.solve("2 + 2?", MAJORITY)
    assert len(result.votes) == 1
    assert told.asked == []


def notices(result: Result):
    return [notice for notice in result.tree.notices if "compared" in notice]


async def test_where_time_runs_out_the_vote_is_held_with_what_is_known(monkeypatch):
    class Slow(Told):
        async def _answer(self, left, right):
            if "\\frac{4}{\\sqrt{2}}" in (left, right):
                await asyncio.Event().wait()
            return await super()._answer(left, right)

    Slow(monkeypatch, ROOTS[0:3:2])
    monkeypatch.setattr(tts_tui.search.answer_matching, "SECONDS", 0.05)
    async with solver(ROOTS) as one:
        result = await one.solve("2 + 2?", MAJORITY)
    assert [vote.weight for vote in result.votes] == [2.0, 2.0, 1.0]
    assert result.undecided == 2  # \frac{4}{\sqrt{2}} with each of the others
    assert len(notices(result)) == 1
    assert "0.05 s" in notices(result)[0]


async def test_without_math_verify_the_vote_goes_by_what_is_written_and_the_result_says_so(monkeypatch):
    async def refuse(*args, **settings):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    async with solver(ROOTS) as one:
        first = await one.solve("2 + 2?", MAJORITY)
    assert (first.answer, first.undecided) == ("3", 6)
    assert len(notices(first)) == 1
    assert "Cannot allocate memory" in notices(first)[0]


async def test_a_search_on_a_machine_that_has_recovered_votes_as_ever(monkeypatch, tmp_path):
    known = Told(monkeypatch, ROOTS[0:3:2], ROOTS[0::4], ROOTS[2::2])
    answer = known._answer

    async def refuse(left, right):
        raise tts_tui.answers.grading._Unavailable("Cannot allocate memory")

    record = tmp_path / "run.jsonl"
    async with solver(ROOTS * 2) as one:
        known._answer = refuse
        first = await one.solve("2 + 2?", MAJORITY, record=record)
        known._answer = answer
        second = await one.solve("2 + 2?", MAJORITY)
    assert (first.answer, first.undecided, len(first.votes)) == ("3", 6, 4)
    assert (second.answer, second.undecided, len(second.votes)) == ("\\sqrt{8}", 0, 2)
    assert notices(second) == []
    assert load(record).finished == first.finished


async def test_two_answers_without_a_verdict_vote_together_if_a_third_is_the_same_as_both(monkeypatch):
    known = Told(monkeypatch, ROOTS[0::4], ROOTS[2::2])
    answer = known._answer

    async def partly(left, right):
        if {left, right} == set(ROOTS[0:3:2]):
            raise tts_tui.answers.grading._Lost("it took too much time", again=False)
        return await answer(left, right)

    known._answer = partly
    for order in (ROOTS, ROOTS[::-1], ROOTS[2:] + ROOTS[:2]):
        async with solver(order) as one:
            result = await one.solve("2 + 2?", MAJORITY)
        assert [vote.weight for vote in result.votes] == [3.0, 2.0]
        assert result.undecided == 0


async def test_a_search_that_is_cancelled_says_what_it_could_not_compare(monkeypatch):
    comparing = asyncio.Event()

    class Endless(Told):
        async def _answer(self, left, right):
            comparing.set()
            await asyncio.Event().wait()

    Endless(monkeypatch)
    tree = SearchTree()
    async with solver(ROOTS) as one:
        search = asyncio.create_task(one.solve("2 + 2?", MAJORITY, tree=tree))
        await comparing.wait()
        search.cancel()
        await asyncio.gather(search, return_exceptions=True)
    assert tree.finished.undecided == 6


async def test_a_search_that_is_cancelled_while_answers_are_compared_ends_with_its_best_answer(monkeypatch):
    comparing = asyncio.Event()

    class Endless(Told):
        async def _answer(self, left, right):
            comparing.set()
            await asyncio.Event().wait()

    Endless(monkeypatch)
    tree = SearchTree()
    async with solver(ROOTS) as one:
        search = asyncio.create_task(one.solve("2 + 2?", MAJORITY, tree=tree))
        await comparing.wait()
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
    assert (tree.finished.reason, tree.finished.answer) == ("interrupted", "3")


@pytest.mark.slow
async def test_leaving_a_solver_ends_its_workers(monkeypatch):
    processes = []
    start = asyncio.create_subprocess_exec

    async def remembered(*args, **settings):
        processes.append(await start(*args, **settings))
        return processes[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remembered)
    async with solver(ROOTS) as one:
        await one.solve("2 + 2?", MAJORITY)
    assert processes
    assert all(process.returncode is not None for process in processes)


async def test_the_event_is_told_in_a_sentence_and_survives_its_json_form(told):
    event = AnswersMatched(t=1.0, left="\\sqrt8", right="2\\sqrt2")
    assert decode(encode(event)) == event
    assert describe(event, SearchTree()) == "The answers \\sqrt8 and 2\\sqrt2 mean the same and vote together."


@pytest.mark.parametrize("format", [FORMAT - 1, FORMAT + 1])
async def test_a_recording_names_its_format_and_another_one_is_refused(told, tmp_path, format):
    record = tmp_path / "run.jsonl"
    async with solver(["1", "2", "2"]) as one:
        await one.solve("2 + 2?", MAJORITY, record=record)
    first, *rest = list(read(record))
    assert isinstance(first, SearchStarted)
    assert first.format == FORMAT
    assert f'"format":{FORMAT}' in record.read_text()
    other = tmp_path / "other.jsonl"
    other.write_bytes(
        b"".join(encode(event) + b"\n" for event in [msgspec.structs.replace(first, format=format), *rest])
    )
    with pytest.raises(RecordVersion, match=str(format)):
        load(other)
