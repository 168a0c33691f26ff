"""Evaluations: nothing runs twice, one failure is no end, and a folder is of one run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Solver, load
from tts_tui.answers.grading import Grader
from tts_tui.cli.main import run as cli
from tts_tui.controller import calibration, priors
from tts_tui.controller.calibration import Point
from tts_tui.displays import eval_progress
from tts_tui.displays.eval_progress import EvalProgress, opening, said, time_left
from tts_tui.errors import (
    BackendUnavailable,
    CalibrationError,
    PlanError,
    RecordCorrupt,
    RecordVersion,
    TTSError,
    UsageError,
)
from tts_tui.evaluation import run_folder, runner
from tts_tui.evaluation.datasets.loading import Dataset, Item
from tts_tui.evaluation.eta import TimeEstimate
from tts_tui.evaluation.judging import is_right
from tts_tui.evaluation.outcomes import elected
from tts_tui.evaluation.plan_specs import make_all
from tts_tui.evaluation.reports.tables import report_text
from tts_tui.evaluation.run_folder import RunFolder, file_name, read_header, read_items, read_outcomes
from tts_tui.evaluation.runner import EvalStatus, Evaluation, PlanStanding
from tts_tui.protocols import Prompt
from tts_tui.tree.events import FORMAT
from tts_tui.tree.recording import read

PLANS = ("cot", "best-of-n:4")


def script(path: tuple[str, ...], draw: int) -> str:
    if len(path) < 2:
        return f"step {draw % 5}\n\n"
    return f"\\boxed{{{7 if draw % 3 else 8}}}"


class Policy(ScriptedPolicy):
    """Fails on problems that say so."""

    def __init__(self, name: str = "scripted", dead: bool = False) -> None:
        super().__init__(script, piece=4)
        self.info = type(self.info)(name, 10, 100_000)
        self.dead = dead
        self.asked: list[str] = []

    async def prompt(self, problem: str) -> Prompt:
        self.asked.append(problem)
        if self.dead:
            raise BackendUnavailable("the server has gone")
        if "crash" in problem:
            raise ZeroDivisionError("division by zero")
        return await super().prompt(problem)


def dataset(*problems: str, answer: str = "7") -> Dataset:
    return Dataset("own", "own.jsonl", "", tuple(Item(f"own/{n}", text, answer) for n, text in enumerate(problems)))


async def evaluate(path: Path, data: Dataset, policy: Policy | None = None, plans=PLANS, prm=True, **settings):
    solver = Solver(policy or Policy(), ScriptedPRM(lambda steps: 0.5) if prm else None)
    told: list[EvalStatus] = []
    with RunFolder(path) as folder:
        evaluation = Evaluation(solver, folder, data, make_all(plans, solver), tell=told.append, **settings)
        async with solver:
            standing = await evaluation.run()
    return standing, told


def recordings(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in (path / "recordings").rglob("*.jsonl")}


async def test_every_problem_has_a_recording_and_an_outcome_of_every_plan(tmp_path):
    standing, told = await evaluate(tmp_path / "run", dataset("a", "b", "c"))
    outcomes = read_outcomes(tmp_path / "run")
    assert {(one.problem, one.plan) for one in outcomes} == {(f"own/{n}", plan) for n in range(3) for plan in PLANS}
    for one in outcomes:
        tree = load(tmp_path / "run" / "recordings" / file_name(one.plan) / f"{file_name(one.problem)}.jsonl")
        assert tree.finished.answer == one.answer and tree.finished.tokens == one.tokens and one.reason == "solved"
        assert [(own.answer, own.right) for own in one.solutions] == [
            (node.answer, node.answer == "7") for node in tree.voters()
        ]
        assert one.right == (one.answer == "7")
    assert standing.done == standing.total == 6 and standing.left is not None and standing.rate is not None
    assert [one.done for one in told] == [0, 1, 2, 3, 4, 5, 6] and told[0].left is None
    assert standing.plans["cot"] == PlanStanding(3, sum(one.right for one in outcomes if one.plan == "cot"), 0)


async def test_the_folder_says_what_the_run_is(tmp_path):
    data = dataset("a", "b")
    await evaluate(tmp_path, data, specs=("embedded", "hf:x"))
    header = read_header(tmp_path)
    assert (header.policy.name, header.prm.name) == ("scripted", "scripted-prm")
    assert (header.policy_spec, header.prm_spec, list(header.plans)) == ("embedded", "hf:x", list(PLANS))
    assert (header.dataset.name, header.dataset.source, header.dataset.count) == ("own", "own.jsonl", 2)
    assert tuple(read_items(tmp_path)) == data.items


async def test_all_plans_of_a_problem_come_before_the_next_problem(tmp_path):
    policy = Policy()
    await evaluate(tmp_path, dataset("a", "b", "c"), policy, parallel=1)
    assert policy.asked == ["a", "a", "b", "b", "c", "c"]


@pytest.mark.parametrize("at_once", [1, 3])
async def test_so_many_problems_run_at_once(tmp_path, at_once):
    policy = Policy()
    policy.hold = asyncio.Event()
    going = asyncio.create_task(evaluate(tmp_path, dataset(*"abcdef"), policy, plans=("cot",), parallel=at_once))
    await asyncio.wait_for(policy.reached(at_once), 5)
    policy.hold.set()
    await going
    assert policy.most_running == at_once


async def test_what_is_done_is_not_run_again(tmp_path):
    await evaluate(tmp_path, dataset("a", "b"))
    before, policy = (tmp_path / "outcomes.jsonl").read_bytes(), Policy()
    standing, told = await evaluate(tmp_path, dataset("a", "b"), policy)
    assert policy.requests == [] and standing.done == 4 and told == []
    assert (tmp_path / "outcomes.jsonl").read_bytes() == before


async def test_more_plans_and_more_problems_are_added(tmp_path):
    await evaluate(tmp_path, dataset("a"), plans=("cot",), prm=False)
    policy = Policy()
    standing, _ = await evaluate(tmp_path, dataset("a", "b"), policy, plans=("best-of-n:4", "cot"))
    assert (standing.done, policy.asked) == (4, ["a", "b", "b"])
    header = read_header(tmp_path)
    assert list(header.plans) == ["cot", "best-of-n:4"] and header.prm.name == "scripted-prm"
    assert header.dataset.count == len(read_items(tmp_path)) == 2
    standing, _ = await evaluate(tmp_path, dataset("a"), plans=("cot",))
    assert standing.done == standing.total == 1 and len(read_items(tmp_path)) == 2


async def test_a_cancelled_run_goes_on_where_it_was_and_counts_tokens_once(tmp_path):
    whole, _ = await evaluate(tmp_path / "whole", dataset("a", "b"), plans=("best-of-n:4",), parallel=1)
    policy = Policy()
    policy.hold = asyncio.Event()
    going = asyncio.create_task(evaluate(tmp_path / "cut", dataset("a", "b"), policy, plans=("best-of-n:4",)))
    await asyncio.wait_for(policy.reached(8), 5)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert read_outcomes(tmp_path / "cut") == [] and len(recordings(tmp_path / "cut")) == 2
    standing, _ = await evaluate(tmp_path / "cut", dataset("a", "b"), plans=("best-of-n:4",))
    assert standing.done == 2 == whole.done
    for one in read_outcomes(tmp_path / "cut"):
        twin = next(own for own in read_outcomes(tmp_path / "whole") if own.problem == one.problem)
        assert (one.answer, one.right, one.tokens.policy.completion) == (
            twin.answer,
            twin.right,
            twin.tokens.policy.completion,
        )


@pytest.mark.parametrize("lines", [0, 1, 4, -3, -1])
async def test_a_killed_run_goes_on_from_whatever_was_written(tmp_path, lines):
    """kill -9 leaves a recording that ends anywhere, even within a line, and no outcome or a torn one."""
    await evaluate(tmp_path, dataset("a", "b"))
    was = read_outcomes(tmp_path)
    torn = tmp_path / "recordings" / "best-of-n-4" / f"{file_name('own/1')}.jsonl"
    kept = torn.read_bytes().splitlines(keepends=True)[:lines]
    torn.write_bytes(b"".join(kept) + b'{"event": "step_st')
    written = (tmp_path / "outcomes.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "outcomes.jsonl").write_bytes(b"".join(written[:-1]) + written[-1][:40])
    assert json.loads(written[-1])["problem"] == "own/1" and json.loads(written[-1])["plan"] == "best-of-n:4"
    policy = Policy()
    standing, _ = await evaluate(tmp_path, dataset("a", "b"), policy)
    assert standing.done == 4 and set(policy.asked) <= {"b"}
    again = read_outcomes(tmp_path)
    for one, before in zip(again, was, strict=True):
        assert (one.problem, one.plan, one.answer, one.right) == (
            before.problem,
            before.plan,
            before.answer,
            before.right,
        )
    completions = [event.usage.completion for event in read(torn) if type(event).__name__ == "StepFinished"]
    assert again[-1].tokens.policy.completion == sum(completions)


async def test_a_finished_recording_without_an_outcome_is_only_read(tmp_path):
    await evaluate(tmp_path, dataset("a", "b"))
    was, before = read_outcomes(tmp_path), recordings(tmp_path)
    (tmp_path / "outcomes.jsonl").unlink()
    policy = Policy()
    await evaluate(tmp_path, dataset("a", "b"), policy)
    assert policy.requests == [] and recordings(tmp_path) == before
    assert sorted(read_outcomes(tmp_path), key=str) == sorted(was, key=str)


async def test_a_search_whose_budget_is_spent_is_done(tmp_path):
    plans = ("best-of-n:4,budget=30",)
    await evaluate(tmp_path, dataset("a"), plans=plans)
    (one,) = read_outcomes(tmp_path)
    assert one.reason == "budget"
    (tmp_path / "outcomes.jsonl").unlink()
    await evaluate(tmp_path, dataset("a"), plans=plans)
    assert read_outcomes(tmp_path) == [one]


async def test_one_problem_that_crashes_is_no_end_and_is_tried_again(tmp_path):
    standing, _ = await evaluate(tmp_path, dataset("a", "crash", "c"), plans=("cot",))
    failed = next(one for one in read_outcomes(tmp_path) if one.problem == "own/1")
    assert (failed.reason, failed.detail, failed.right) == (
        "failed",
        "unexpected ZeroDivisionError: division by zero",
        False,
    )
    assert (standing.done, standing.failed) == (3, 1)

    class Healed(Policy):
        async def prompt(self, problem: str) -> Prompt:
            self.asked.append(problem)
            return await ScriptedPolicy.prompt(self, problem)

    healed = Healed()
    standing, _ = await evaluate(tmp_path, dataset("a", "crash", "c"), healed, plans=("cot",))
    assert healed.asked == ["crash"] and standing.failed == 0 and standing.done == 3
    outcomes = read_outcomes(tmp_path)
    assert len(outcomes) == 3 and outcomes[-1].problem == "own/1" and outcomes[-1].reason == "solved"


async def test_a_search_that_failed_midway_says_what_it_cost_and_goes_on(tmp_path):
    class Breaking(Policy):
        count = 0

        async def _chunks(self, request):
            async for chunk in super()._chunks(request):
                self.count += 1
                if self.count > 4:
                    raise ZeroDivisionError("midway")
                yield chunk

    await evaluate(tmp_path, dataset("a"), Breaking(), plans=("cot",))
    (one,) = read_outcomes(tmp_path)
    assert one.reason == "failed" and "midway" in one.detail and one.tokens.policy.completion > 0
    standing, _ = await evaluate(tmp_path, dataset("a"), plans=("cot",))
    (one,) = read_outcomes(tmp_path)
    assert one.reason == "solved" and standing.failed == 0


async def test_a_dead_server_ends_all_with_its_own_sentence(tmp_path):
    policy = Policy(dead=True)
    with pytest.raises(BackendUnavailable, match=r"^the server has gone$"):
        await evaluate(tmp_path, dataset(*"abcdefgh"), policy, parallel=2)
    assert len(policy.asked) < 8
    standing, _ = await evaluate(tmp_path, dataset(*"abcdefgh"))
    assert standing.done == 16 and standing.failed == 0


async def test_crashes_that_differ_or_lie_apart_end_nothing(tmp_path):
    problems = [text for number in range(4) for text in ("crash", str(number))]
    standing, _ = await evaluate(tmp_path / "apart", dataset(*problems), plans=("cot",), parallel=1)
    assert standing.failed == 4 and standing.done == 8
    with pytest.raises(TTSError, match="unexpected ZeroDivisionError"):
        await evaluate(tmp_path / "row", dataset(*["crash"] * 5), plans=("cot",), parallel=1)


async def test_a_recording_of_something_else_is_put_aside(tmp_path):
    await evaluate(tmp_path, dataset("a", "b"), plans=("cot",))
    (tmp_path / "outcomes.jsonl").unlink()
    one, two = (tmp_path / "recordings" / "cot" / f"{file_name(f'own/{n}')}.jsonl" for n in (0, 1))
    two.write_bytes(one.read_bytes())
    one.write_bytes(f'{{"event": "search_started", "format": {FORMAT}}}\n{{}}\n'.encode())
    policy = Policy()
    standing, _ = await evaluate(tmp_path, dataset("a", "b"), policy, plans=("cot",))
    assert sorted(policy.asked) == ["a", "b"] and standing.done == 2
    assert all(path.with_name(f"{path.name}.broken").exists() for path in (one, two))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"policy": Policy("other")}, r"is another run: its policy is scripted, not other; choose another folder"),
        ({"data": dataset("a", "x")}, r"is another run: problem 2 is own/1 there and own/1 now \(problem\)"),
        ({"data": dataset("a", "b", answer="8")}, r"problem 1 is own/0 there and own/0 now \(answer\)"),
        ({"prm": False}, r"the plan best-of-n:4 has other settings \(vote\)"),
    ],
)
async def test_a_folder_of_another_run_is_refused_and_left_alone(tmp_path, change, words):
    await evaluate(tmp_path, dataset("a", "b"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    change = {"data": dataset("a", "b", "c"), **change}
    with pytest.raises(UsageError, match=words):
        await evaluate(tmp_path, **change)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


async def test_another_reward_model_is_refused(tmp_path):
    await evaluate(tmp_path, dataset("a"))
    other = ScriptedPRM(lambda steps: 0.1)
    other.info = type(other.info)("other-prm", 5, 100_000)
    solver = Solver(Policy(), other)
    with RunFolder(tmp_path) as folder:
        evaluation = Evaluation(solver, folder, dataset("a", "b"), make_all(PLANS, solver))
        async with solver:
            with pytest.raises(UsageError, match=r"its reward model is scripted-prm \(default\), not other-prm"):
                await evaluation.run()


async def test_a_run_under_a_reward_model_does_not_go_on_without_one(tmp_path):
    await evaluate(tmp_path, dataset("a"))
    solver = Solver(Policy(), None)
    with RunFolder(tmp_path) as folder:
        evaluation = Evaluation(solver, folder, dataset("a"), make_all(["best-of-n:2"], solver))
        async with solver:
            with pytest.raises(UsageError, match="its reward model is scripted-prm, and now there is none"):
                await evaluation.run()
    with RunFolder(tmp_path) as folder:  # whatever needs none goes on without
        evaluation = Evaluation(solver, folder, dataset("a"), make_all(["majority:2"], solver))
        async with solver:
            assert (await evaluation.run()).done == 1


def calibrated(source: str, created: str = "2026-01-02T03:04:05+00:00", policy: str = "scripted"):
    prm = ScriptedPRM(lambda steps: 0.5).info
    return replace(priors.calibration(Policy(policy).info, prm), source=source, created=created)


async def chosen(path: Path, calibration, *problems: str, plans=("auto:4",)) -> dict[str, str]:
    """Runs plans under a calibration; what run.json says that they chose by."""
    solver = Solver(Policy(), ScriptedPRM(lambda steps: 0.5), calibration)
    with RunFolder(path) as folder:
        evaluation = Evaluation(solver, folder, dataset(*problems), make_all(plans, solver))
        async with solver:
            standing = await evaluation.run()
    assert standing.done == standing.total and not standing.failed
    return read_header(path).calibrations


async def test_the_folder_says_by_which_calibration_auto_chose(tmp_path, monkeypatch):
    own = {"auto:4": "2026-01-02T03:04:05+00:00, mine"}
    assert await chosen(tmp_path / "given", calibrated("mine"), "a") == own
    assert "auto:4 in given chose by 2026-01-02T03:04:05+00:00, mine." in report_text([tmp_path / "given"])
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path))
    (found,) = (await chosen(tmp_path / "priors", None, "a")).values()
    assert found.startswith("priors from arXiv 2502.06703")
    calibration.save(calibrated("mine"), calibration.folder() / calibration.file_name("scripted", "scripted-prm"))
    assert await chosen(tmp_path / "found", None, "a", plans=("cot", "auto:4")) == own
    assert await chosen(tmp_path / "cot", calibrated("mine"), "a", plans=("cot",)) == {}


async def test_another_calibration_is_refused_and_the_same_goes_on(tmp_path):
    await chosen(tmp_path, calibrated("mine"), "a")
    assert await chosen(tmp_path, calibrated("mine"), "a", "b") == {"auto:4": "2026-01-02T03:04:05+00:00, mine"}
    before = (tmp_path / "run.json").read_bytes()
    for other in (calibrated("other"), calibrated("mine", "2026-02-02"), None):
        with pytest.raises(UsageError, match=r"its plan auto:4 chose by 2026-01-02\S+ mine, not by .*; choose another"):
            await chosen(tmp_path, other, "a", "b", "c")
    with pytest.raises(UsageError, match=r"not by \S+ other"):  # though nothing is left to do
        await chosen(tmp_path, calibrated("other"), "a", "b")
    assert (tmp_path / "run.json").read_bytes() == before
    await chosen(tmp_path, calibrated("other"), "a", "b", plans=("cot",))
    more = await chosen(tmp_path, calibrated("mine"), "a", plans=("cot", "auto:8"))
    assert set(more) == {"auto:4", "auto:8"}


async def test_a_wish_that_no_problem_can_have_is_refused_before_any_search(tmp_path):
    reached = replace(calibrated("mine"), frontier=(Point(0.01, 100.0, 0.5),))
    with pytest.raises(
        PlanError, match=r"the plan auto:4,target_accuracy=0\.9 cannot be run: an accuracy of 90% is out of"
    ):
        await chosen(tmp_path, reached, "a", plans=("auto:4,target_accuracy=0.9", "cot"))
    assert not (tmp_path / "run.json").exists() and not (tmp_path / "recordings").exists()


async def test_a_calibration_of_other_models_is_refused_before_any_search(tmp_path):
    with pytest.raises(CalibrationError, match="is of other under scripted-prm, and not of scripted"):
        await chosen(tmp_path, calibrated("mine", policy="other"), "a")
    assert not (tmp_path / "run.json").exists() and not (tmp_path / "recordings").exists()


def test_what_cannot_be_evaluated_is_refused(tmp_path):
    solver = Solver(Policy(), None)
    with RunFolder(tmp_path) as folder:
        with pytest.raises(UsageError, match="there is no problem to run"):
            Evaluation(solver, folder, dataset(), {})
        with pytest.raises(UsageError, match="parallel must be at least 1"):
            Evaluation(solver, folder, dataset("a"), {}, parallel=0)


def test_two_processes_do_not_write_one_folder(tmp_path):
    with RunFolder(tmp_path), pytest.raises(UsageError, match="is being written by another process"):
        RunFolder(tmp_path)
    RunFolder(tmp_path).close()


def test_folders_that_are_none_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"holds something else \(thesis.tex\)"):
        RunFolder(tmp_path)
    with pytest.raises(UsageError, match="is a file: name a folder"):
        RunFolder(tmp_path / "thesis.tex")
    with pytest.raises(UsageError, match="cannot write the folder"):
        RunFolder(tmp_path / "thesis.tex" / "run")
    with pytest.raises(UsageError, match=r"is no run of `tts-tui eval`: there is no run\.json"):
        read_header(tmp_path)


async def test_damaged_and_newer_folders_are_refused(tmp_path):
    await evaluate(tmp_path, dataset("a"), plans=("cot",))
    stored = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(stored | {"format": run_folder.FORMAT + 1}))
    with pytest.raises(RecordVersion, match="this version reads up to"):
        RunFolder(tmp_path)
    (tmp_path / "run.json").write_text("{torn")
    with pytest.raises(RecordCorrupt, match=r"run\.json is damaged"):
        RunFolder(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(stored))
    line = (tmp_path / "outcomes.jsonl").read_bytes()
    (tmp_path / "outcomes.jsonl").write_bytes(b"{}\n" + line)
    with pytest.raises(RecordCorrupt, match=r"outcomes\.jsonl is damaged in line 1"):
        RunFolder(tmp_path)
    (tmp_path / "problems.jsonl").unlink()
    with pytest.raises(UsageError, match=r"cannot read .*problems\.jsonl"):
        read_items(tmp_path)


def test_file_names_are_plain_and_never_shared():
    assert [file_name(name) for name in ("cot", "dvts:16,m=2", "test-add0-0003")] == [
        "cot",
        "dvts-16-m-2",
        "test-add0-0003",
    ]
    names = ["a/b", "a-b", "a b", "ä", "ö", "../x", "", "x" * 500, "x" * 501]
    made = [file_name(name) for name in names]
    assert len(set(made)) == len(names) and all(1 <= len(name) < 140 and name[0] != "." for name in made)
    assert not any("/" in name for name in made)


async def test_a_vote_over_an_outcome_elects_whom_the_search_did(tmp_path):
    plans = (
        "best-of-n:8",
        "beam:8,m=2,vote=majority",
        "beam:8,m=2,variant=search-and-learn",
        "dvts:8,m=2",
        "majority:6",
    )
    solver = Solver(Policy(), ScriptedPRM(lambda steps: (sum(map(len, steps)) % 7) / 7))
    made = make_all(plans, solver)
    with RunFolder(tmp_path) as folder:
        async with solver:
            await Evaluation(solver, folder, dataset("a"), made).run()
    for one in read_outcomes(tmp_path):
        winner = elected(one.solutions, made[one.plan].score, made[one.plan].vote)
        assert winner is not None and winner.answer == one.answer and winner.right == one.right


@pytest.mark.parametrize(
    ("answer", "right"), [("5.13", True), ("5.14", True), ("5.12", True), ("5.15", False), ("x", False), (None, False)]
)
async def test_a_number_within_the_error_that_a_data_set_allows_is_right(answer, right):
    async with Grader() as grader:
        assert await is_right(answer, Item("a", "a", "5.13", tolerance=0.01), grader) == right
        assert not await is_right("5.14", Item("a", "a", "5.13"), grader)


async def test_an_answer_that_cannot_be_read_is_right_where_its_text_is(tmp_path):
    policy = Policy()
    policy.script = lambda path, draw: "it is \\boxed{\\emptyset\\cup\\{}"
    data = dataset("a", answer="\\emptyset\\cup\\{")
    await evaluate(tmp_path, data, policy, plans=("cot",))
    (one,) = read_outcomes(tmp_path)
    assert one.right == (one.answer is not None)


# -- how long it takes -------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_said_before_three_searches_are_done():
    clock = Clock()
    pace = TimeEstimate(clock=clock)
    for _ in range(3):
        assert pace.left({"a": 10}, 1) is None
        begun = pace.begin("a")
        clock.now += 10
        pace.end(begun)
    low, high = pace.left({"a": 10}, 1)
    assert 0 < low < 100 < high


def test_the_range_narrows_as_more_is_known():
    clock, widths = Clock(), []
    pace = TimeEstimate(clock=clock)
    for number in range(1, 101):
        begun = pace.begin("a")
        clock.now += 9 if number % 2 else 11
        pace.end(begun)
        if number in (4, 20, 100):
            low, high = pace.left({"a": 50}, 1)
            assert low < 500 < high
            widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


def test_slow_plans_that_wait_count_with_their_own_time_and_lanes_share_it():
    clock = Clock()
    pace = TimeEstimate({"slow": [100.0]}, clock=clock)
    for _ in range(50):
        begun = pace.begin("fast")
        clock.now += 1
        pace.end(begun)
    low, high = pace.left({"fast": 0, "slow": 4}, 1)
    assert low < 400 < high
    assert pace.left({"slow": 4}, 4)[1] == pytest.approx(high / 4)
    assert pace.left({"unknown": 4}, 1)[1] < 20


def test_searches_that_were_only_read_or_failed_say_nothing():
    pace = TimeEstimate(clock=Clock())
    for _ in range(5):
        pace.end(pace.begin("a"), counts=False)
    assert pace.left({"a": 1}, 1) is None and pace.rate is None


def test_what_runs_just_now_counts_less_the_longer_it_runs():
    clock = Clock()
    pace = TimeEstimate(clock=clock)
    for _ in range(10):
        begun = pace.begin("a")
        clock.now += 10
        pace.end(begun)
    pace.begin("a")
    before = pace.left({}, 1)
    clock.now += 8
    assert pace.left({}, 1)[1] < before[1] and pace.left({}, 1)[0] > 0


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (None, "time left unknown yet"),
        ((3.0, 7.0), "3–7 s left"),
        ((60.0, 61.0), "60–61 s left"),
        ((170.0, 300.0), "3–5 min left"),
        ((240.0, 241.0), "about 4 min left"),
        ((3600.0, 9000.0), "1.0–2.5 h left"),
        ((40000.0, 90000.0), "11–25 h left"),
    ],
)
def test_time_is_told_as_a_range(left, words):
    assert time_left(left) == words


class Screen:
    def __init__(self, drawn: bool) -> None:
        self.text, self.drawn = "", drawn

    def isatty(self) -> bool:
        return self.drawn

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...


def standing(done: int, total: int = 100, **more) -> EvalStatus:
    outcome = object()
    return EvalStatus(done, total, {"cot": PlanStanding(done, done // 2, 1)}, newest=outcome, **more)  # type: ignore[arg-type]


def test_a_standing_says_all_that_is_known():
    line = said(standing(10, rate=412.4, left=(180.0, 300.0)), drawn=False)
    assert line == "10/100 · 3–5 min left · 412 tokens/s · 1 failed · cot 5/10 right"
    assert "left" not in said(standing(100), drawn=False)


def test_off_a_terminal_there_are_few_lines(monkeypatch):
    monkeypatch.setattr(eval_progress, "_SILENCE", 1e9)
    screen = Screen(False)
    with EvalProgress(screen) as progress:
        for done in range(1, 101):
            progress(standing(done))
    lines = screen.text.splitlines()
    assert 20 <= len(lines) <= 22 and lines[-1].startswith("tts-tui: 100/100")


def test_on_a_terminal_there_is_one_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    screen = Screen(True)
    with EvalProgress(screen) as progress:
        progress(standing(1))
        progress(standing(2))
    assert screen.text.count("\n") == 1 and screen.text.count("\r\x1b[K") == 2
    assert all(len(line.strip()) < 40 for line in screen.text.replace("\x1b[K", "").split("\r"))


def test_what_it_will_cost_is_said_before_it_begins():
    assert opening(20, 2, 40, 300) == "20 problems × 2 plans = 40 searches; up to 300 samples to come"
    assert opening(20, 2, 10, 1) == "20 problems × 2 plans = 40 searches, 30 of them done; up to 1 sample to come"
    assert opening(1, 1, 0, 0) == "1 problem × 1 plan = 1 search, 1 of them done: nothing is left to do"
    solver = Solver(Policy(), None)
    plans = make_all(["cot", "majority:8"], solver)
    assert runner.samples(plans, [(Item("a", "a", "1"), "cot"), (Item("a", "a", "1"), "majority:8")]) == 9


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch):
    """The command with a scripted policy and reward model instead of the embedded ones."""
    from tts_tui.cli import commands

    policy = Policy()
    monkeypatch.setattr(
        commands, "make_solver", lambda policy_, prm, given: Solver(policy, ScriptedPRM(lambda steps: 0.5))
    )
    monkeypatch.setattr(commands, "load_models", lambda policy, prm, **more: None)
    return policy


def test_the_command_runs_the_default_plans_and_prints_a_report(scripted, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path))
    assert cli(["eval", "families:add0", "--limit", "2"]) == 0
    said = capsys.readouterr()
    assert "2 problems × 3 plans = 6 searches; up to 34 samples to come" in said.err
    assert all(name in said.out for name in ("cot", "majority:8", "best-of-n:8"))
    (out,) = (tmp_path / "runs" / "evaluations").iterdir()
    assert out.name.startswith("families-") and f"--out {out} goes on" in said.err
    assert cli(["eval", "families:add0", "--limit", "2", "--out", str(out)]) == 0
    again = capsys.readouterr()
    assert "6 of them done: nothing is left to do" in again.err and again.out == said.out


def test_the_command_tells_of_failures_and_fails_itself(scripted, tmp_path, capsys):
    rows = [{"problem": text, "answer": "7"} for text in ("a", "crash", "b")] + [{"problem": "c"}]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = ["eval", str(tmp_path / "own.jsonl"), "--plan", "cot", "--out", str(tmp_path / "run")]
    assert cli(call) == 3
    said = capsys.readouterr()
    assert "1 of 4 problems have no text or no answer and are left out: own-0003" in said.err
    assert "1 failed, and the same command tries them again: own-0001 (cot)" in said.err and "cot" in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["families:nothing"], "unknown problem family 'nothing'"),
        (["families: "], "names no family"),
        (["families", "--plan", "nothing"], "unknown strategy 'nothing'"),
        (["families:add0", "--concurrency", "3"], "--concurrency can be given for a policy on a server only"),
        (["families:add0", "--limit", "0"], "invalid value for '--limit'"),
        (["families:add0", "--calibration", "x.json"], "--calibration is for plans of auto (--plan auto): add that"),
        (["families:add0", "--plan", "auto", "--calibration", "no.json"], "cannot read the calibration no.json"),
    ],
)
def test_mistakes_of_a_call_are_one_sentence(arguments, words, capsys):
    assert cli(["eval", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_a_calibration_in_the_environment_is_nothing_to_other_plans(monkeypatch, tmp_path, capsys):
    from tts_tui.cli import commands

    asked = []

    def make_solver(policy, prm, given):
        asked.append(given["calibration"])
        return Solver(Policy(), None)

    monkeypatch.setenv("TTS_TUI_EVAL_CALIBRATION", "no.json")
    monkeypatch.setattr(commands, "make_solver", make_solver)
    monkeypatch.setattr(commands, "load_models", lambda policy, prm, **more: None)
    for plan, told in (("cot", False), ("auto", True)):
        assert cli(["eval", "families:add0", "--limit", "1", "--plan", plan, "--out", str(tmp_path / plan)]) == 0
        assert ("without a reward model the majority votes, in auto too" in capsys.readouterr().err) == told
    assert asked == [None, Path("no.json")]


PROGRAM = """
import asyncio, sys
from tests.evaluation.test_runner import Policy
from tests.scripted import ScriptedPRM
from tts_tui import Solver
from tts_tui.cli import commands
from tts_tui.cli.main import main

class Stuck(Policy):
    async def _chunks(self, request):
        if len(self.asked) > 3:
            print("stuck", file=sys.stderr, flush=True)
            await asyncio.Event().wait()
        async for chunk in super()._chunks(request):
            yield chunk

policy = Stuck()
commands.make_solver = lambda *_: Solver(policy, ScriptedPRM(lambda steps: 0.5))
commands.load_models = lambda *_, **more: None
main()
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_keeps_all_and_says_how_to_go_on(tmp_path, kind):
    out = tmp_path / "run"
    call = ["eval", "families:add0", "--limit", "6", "--plan", "cot", "--parallel", "1", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *call],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    try:
        for line in process.stderr:
            if line == "stuck\n":
                break
        process.send_signal(kind)
        printed, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + kind and printed == ""
    assert said.splitlines()[-1] == (
        f"tts-tui: interrupted: 3 of 6 searches are done, and all is kept; the same command with --out {out} goes on"
    )
    assert len(read_outcomes(out)) == 3


@pytest.mark.embedded
@pytest.mark.slow
def test_a_real_run_that_is_killed_goes_on_and_runs_nothing_twice(tmp_path):
    out = tmp_path / "run"
    call = [sys.executable, "-m", "tts_tui", "eval", "families:add0,mixed", "--limit", "3", "--plan", "cot"]
    call += ["--plan", "best-of-n:4", "--parallel", "2", "--out", str(out)]
    process = subprocess.Popen(call, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in process.stderr:
            if line.startswith("tts-tui: 2/6"):
                break
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    done = {(one.problem, one.plan): one for one in read_outcomes(out)}
    before = recordings(out)
    assert 2 <= len(done) < 6
    again = subprocess.run(call, capture_output=True, text=True, check=True)
    assert f"{len(done)} of them done" in again.stderr and "best-of-n:4" in again.stdout
    outcomes = {(one.problem, one.plan): one for one in read_outcomes(out)}
    assert len(outcomes) == 6 and all(outcomes[key] == one for key, one in done.items())
    assert len((out / "outcomes.jsonl").read_bytes().splitlines()) == 6
    after = recordings(out)
    for (problem, plan), one in outcomes.items():
        name = f"recordings/{file_name(plan)}/{file_name(problem)}.jsonl"
        if (problem, plan) in done:
            assert after[name] == before[name]
        tree = load(out / name)
        assert tree.finished.tokens == one.tokens and tree.counts.completion == one.tokens.policy.completion
        whole = before.get(name, b"")[: before.get(name, b"").rfind(b"\n") + 1]
        assert after[name].startswith(whole)


class Judge:
    """Has no verdict on some answers."""

    def __init__(self, *unknown: str) -> None:
        self.unknown = unknown
        self.asked: list[str] = []

    async def same(self, left: str, right: str) -> bool | None:
        self.asked.append(left)
        return None if left in self.unknown else left == right

    async def group(self, answers):
        seen: dict[str, int] = {}
        return [-1 if answer is None else seen.setdefault(answer, len(seen)) for answer in answers]


async def test_an_answer_without_a_verdict_is_not_right_counted_and_judged_again_without_a_search(tmp_path):
    data, policy = dataset("a", "b", answer="09"), Policy()
    await evaluate(tmp_path, data, policy, judge=Judge("7"))
    outcomes = read_outcomes(tmp_path)
    assert {one.undecided for one in outcomes if any(own.answer == "7" for own in one.solutions)} == {1}
    assert not any(own.right for one in outcomes for own in one.solutions)
    before, asked = recordings(tmp_path), len(policy.asked)

    standing, _ = await evaluate(tmp_path, data, policy, judge=Judge("8"))
    assert (recordings(tmp_path), len(policy.asked)) == (before, asked)
    assert standing.done == standing.total == 4
    newest = {(one.plan, one.problem): one for one in read_outcomes(tmp_path)}
    assert all(one.undecided == any(own.answer == "8" for own in one.solutions) for one in newest.values())

    await evaluate(tmp_path, data, policy, judge=Judge())
    final = Judge()
    await evaluate(tmp_path, data, policy, judge=final)
    assert final.asked == []
    assert not any(one.undecided for one in {(one.plan, one.problem): one for one in read_outcomes(tmp_path)}.values())


def test_outcomes_of_older_versions_have_nothing_undecided(tmp_path):
    line = {"problem": "p", "plan": "cot", "answer": None, "right": False, "solutions": [], "reason": "unsolved"}
    tokens = {
        "policy": {"prompt_computed": 0, "prompt_cached": 0, "completion": 0},
        "prm": {"computed": 0, "cached": 0},
    }
    more = {"detail": "", "tokens": tokens, "flops": {"policy": 0.0, "prm": 0.0}, "seconds": 1.0}
    (tmp_path / "outcomes.jsonl").write_text(json.dumps(line | more) + "\n")
    assert [one.undecided for one in read_outcomes(tmp_path)] == [0]
