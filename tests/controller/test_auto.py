"""`auto` starts with a probe, follows the controller's choices, and counts all costs; on scripted models and priors."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Plan, Solver
from tts_tui.budget import Budget
from tts_tui.controller import priors, search_adapter
from tts_tui.controller.calibration import HiddenStateProjection
from tts_tui.controller.controller import STOP
from tts_tui.controller.difficulty import DifficultyModel
from tts_tui.controller.prompt_features import NAMES
from tts_tui.errors import BackendError, CalibrationError, PlanError
from tts_tui.protocols import PromptEncoding, Usage
from tts_tui.tree.events import PlanChosen, StepStarted
from tts_tui.tree.recording import load

SEP = "\n\n"


def alike(path: tuple[str, ...], draw: int) -> str:
    """Return steps of samples that all give the same answer in two steps."""
    return "so" + SEP if not path else "\\boxed{7}"


def scattered(path: tuple[str, ...], draw: int) -> str:
    """Return steps of samples that all give different answers."""
    return f"s{draw % 997}" + SEP if not path else f"\\boxed{{{draw % 991}}}"


async def solve(script, score, plan=None, record=None, calibration=None, prm=True):
    events = []
    reward = ScriptedPRM(lambda texts: score) if prm else None
    async with Solver(ScriptedPolicy(script), reward, calibration) as solver:
        plan = plan or solver.plan("auto", n=16)
        result = await solver.solve("p", plan, sinks=[events.append], record=record)
    return result, events


def choices(events) -> list[PlanChosen]:
    return [event for event in events if isinstance(event, PlanChosen)]


async def test_it_stops_after_the_probe_where_all_agree_and_score_high():
    result, events = await solve(alike, 0.999)
    assert [choice.chosen for choice in choices(events)][-1] == STOP
    assert len(result.tree.solutions) == priors.calibration(result.tree.start.policy, result.tree.start.prm).probe
    assert result.answer == "7"


async def test_the_first_choice_comes_before_the_first_step_and_says_what_it_rests_on():
    _, events = await solve(alike, 0.999)
    kinds = [type(event) for event in events]
    assert kinds.index(PlanChosen) < kinds.index(StepStarted)
    first = choices(events)[0]
    assert first.samples == 0 and first.answer is None
    assert "priors" in first.basis
    assert 0 < first.low <= first.pass1 <= first.high < 1
    assert sum(first.levels) == pytest.approx(1.0, abs=0.001)


async def test_it_goes_on_where_nobody_agrees_and_scores_are_low():
    result, events = await solve(scattered, 0.05)
    assert len(choices(events)) > 2
    assert len(result.tree.solutions) > 4


async def test_a_tree_search_begins_with_the_first_steps_of_the_probe():
    result, events = await solve(scattered, 0.05, Plan(strategy="auto", n=16, vote="prm-max"))
    searched = [choice.strategy for choice in choices(events) if choice.strategy in ("dvts", "beam")]
    assert searched
    firsts = [(node.slot, node.group) for node in result.tree.root.children]
    assert len(firsts) == len(set(firsts)), "no slot of the root is sampled twice"
    assert {group for _, group in firsts} == {0}, "samples and searches share them"


async def test_a_recording_resumes_by_its_own_choices(tmp_path):
    path = tmp_path / "run.jsonl"
    whole, _ = await solve(scattered, 0.05, record=path)
    lines = path.read_bytes().splitlines(keepends=True)
    for keep in (len(lines) // 4, len(lines) // 2, len(lines) * 3 // 4):
        cut = tmp_path / f"{keep}.jsonl"
        cut.write_bytes(b"".join(lines[:keep]))
        before = load(cut).choices
        async with Solver(ScriptedPolicy(scattered), ScriptedPRM(lambda texts: 0.05)) as solver:
            result = await solver.resume(cut)
        assert result.tree.choices[: len(before)] == before
        assert [c.chosen for c in result.tree.choices] == [c.chosen for c in whole.tree.choices]
        assert result.answer == whole.answer
        done = [sum(node.state == "done" for node in tree.nodes) for tree in (result.tree, whole.tree)]
        assert done[0] == done[1], "nothing is sampled twice"


async def test_a_replayed_recording_has_the_same_choices_and_counts(tmp_path):
    path = tmp_path / "run.jsonl"
    whole, _ = await solve(scattered, 0.05, record=path)
    tree = load(path)
    assert tree.choices == whole.tree.choices
    assert tree.counts.as_tuple() == whole.tree.counts.as_tuple()


async def test_without_a_reward_model_it_only_samples_and_the_majority_votes():
    result, events = await solve(scattered, 0.0, prm=False)
    assert {choice.strategy for choice in choices(events)} <= {"majority", ""}
    assert result.finished.plan.vote == "majority"


async def test_it_never_has_more_candidates_than_n():
    result, events = await solve(scattered, 0.05, Plan(strategy="auto", n=4, vote="prm-max"))
    assert max(choice.n for choice in choices(events)) <= 4
    assert len({node.path[0].id for node in result.tree.solutions}) <= 4


async def test_a_budget_too_small_for_any_plan_is_said_before_anything_is_sampled():
    known = replace(priors.calibration(ScriptedPolicy(alike).info, ScriptedPRM(len).info), sample_tokens=500.0)
    plan = Plan(strategy="auto", n=16, vote="prm-max", budget=Budget(tokens=100))
    with pytest.raises(PlanError, match=r"too small for any plan.*raise the budget"):
        await solve(alike, 0.9, plan, calibration=known)


@pytest.mark.parametrize("wish", [{"target_tokens": 500}, {"target_accuracy": 0.8}])
async def test_wishes_need_a_calibration(wish):
    with pytest.raises(PlanError, match="tts-tui calibrate"):
        await solve(alike, 0.9, Plan(strategy="auto", n=16, vote="prm-max", **wish))


async def test_a_calibration_of_other_models_is_refused():
    other = replace(priors.calibration(ScriptedPolicy(alike).info, ScriptedPRM(len).info), policy="another")
    with pytest.raises(CalibrationError, match="another under scripted-prm"):
        await solve(alike, 0.9, calibration=other)


class Shows(ScriptedPolicy):
    """A policy that exposes hidden states and counts the requests for them."""

    asked, errors, lost = 0, (), Usage()
    begun, go_on = None, None

    async def encode_prompt(self, prompt, late=None):
        self.asked += 1
        try:
            if self.begun is not None:
                self.begun.set()
                await self.go_on.wait()
            if self.errors:
                raise self.errors.pop()
        except BaseException:
            late(self.lost)
            raise
        return PromptEncoding((0.6, 0.8), Usage(prompt_computed=7, prompt_cached=2))


def knowing(**changes):
    info, judge = ScriptedPolicy(alike).info, ScriptedPRM(lambda texts: 0.5).info
    return replace(priors.calibration(info, judge), policy=info.name, prm=judge.name, **changes)


async def begun(calibration, plan=None):
    policy, events = Shows(scattered), []
    async with Solver(policy, ScriptedPRM(lambda texts: 0.2), calibration) as solver:
        result = await solver.solve("p", plan or solver.plan("auto", n=16), sinks=[events.append])
    return policy, result, choices(events)


async def test_a_prompt_is_read_once_for_all_choices_and_counted():
    width = len(NAMES) + 1
    outlook = DifficultyModel(
        (*NAMES, "state 1"), *[(0.0,) * width, (1.0,) * width], (*[0.0] * len(NAMES), 3.0), 0.0, 4.0
    )
    plain = knowing(difficulty=outlook, projection=HiddenStateProjection((0.0, 0.0), ((0.0, 0.0),)))
    policy, result, told = await begun(
        knowing(difficulty=outlook, projection=HiddenStateProjection((0.0, 0.0), ((0.0, 1.0),)))
    )
    assert policy.asked == 1 and len(told) > 2
    assert [choice.usage.prompt_computed for choice in told] == [7, *[0] * (len(told) - 1)]
    _, other, without = await begun(plain)
    assert told[0].pass1 > without[0].pass1 + 0.2, "the state says that it is easy"
    assert result.tree.counts.prompt_computed == other.tree.counts.prompt_computed


async def test_a_prompt_is_not_read_for_a_calibration_that_makes_nothing_of_it():
    policy, _, told = await begun(knowing())
    assert policy.asked == 0 and told[0].usage == Usage()


async def test_a_vote_that_was_not_calibrated_is_said():
    async with Solver(ScriptedPolicy(alike), ScriptedPRM(lambda texts: 0.5)) as solver:
        plan = solver.plan("auto", n=16, score="min", vote="prm-vote")
    known = knowing(problems=100, score="last", vote="prm-max")
    _, _, told = await begun(known, plan)
    assert all("with score last and vote prm-max, not those of this search" in choice.basis for choice in told)
    _, _, told = await begun(known, plan.replace(score="last", vote="prm-max"))
    assert not any("not those of this search" in choice.basis for choice in told)


async def test_what_cannot_be_read_goes_by_its_text_and_says_so(monkeypatch):
    monkeypatch.setattr(search_adapter, "BACKOFF", 0.0)
    width = len(NAMES) + 1
    outlook = DifficultyModel((*NAMES, "state 1"), (0.0,) * width, (1.0,) * width, (0.0,) * width, 0.0, 4.0)
    known = knowing(difficulty=outlook, projection=HiddenStateProjection((0.0, 0.0), ((0.0, 1.0),)))
    policy, events = Shows(scattered), []
    policy.errors = [BackendError("it was reset")] * 2
    async with Solver(policy, ScriptedPRM(lambda texts: 0.2), known) as solver:
        await solver.solve("p", solver.plan("auto", n=4), sinks=[events.append])
        assert policy.asked == 3 and "reset" not in choices(events)[0].basis
        policy.errors = [BackendError("it was reset")] * 3
        result = await solver.solve("q", solver.plan("auto", n=4), sinks=[events.append])
    assert result.answer is not None
    assert choices(events)[-1].basis.endswith("without the policy's reading of the prompt (it was reset)")


@pytest.mark.parametrize("times", [1, 3])
async def test_what_a_reading_that_failed_has_cost_is_counted(times, monkeypatch):
    monkeypatch.setattr(search_adapter, "BACKOFF", 0.0)
    width = len(NAMES) + 1
    outlook = DifficultyModel((*NAMES, "state 1"), (0.0,) * width, (1.0,) * width, (0.0,) * width, 0.0, 4.0)
    known = knowing(difficulty=outlook, projection=HiddenStateProjection((0.0, 0.0), ((0.0, 1.0),)))
    policy, events = Shows(scattered), []
    policy.errors, policy.lost = [BackendError("it was reset")] * times, Usage(prompt_computed=100)
    async with Solver(policy, ScriptedPRM(lambda texts: 0.2), known) as solver:
        await solver.solve("p", solver.plan("auto", n=4), sinks=[events.append])
    assert choices(events)[0].usage.prompt_computed == 100 * times + 7 * (times < 3)


async def test_what_a_reading_has_cost_is_counted_in_a_search_that_is_stopped_meanwhile(tmp_path):
    width = len(NAMES) + 1
    outlook = DifficultyModel((*NAMES, "state 1"), (0.0,) * width, (1.0,) * width, (0.0,) * width, 0.0, 4.0)
    known = knowing(difficulty=outlook, projection=HiddenStateProjection((0.0, 0.0), ((0.0, 1.0),)))
    policy, record = Shows(scattered), tmp_path / "run.jsonl"
    policy.begun, policy.go_on, policy.lost = asyncio.Event(), asyncio.Event(), Usage(prompt_computed=100)
    async with Solver(policy, ScriptedPRM(lambda texts: 0.2), known) as solver:
        search = asyncio.create_task(solver.solve("p", solver.plan("auto", n=4), record=record))
        await policy.begun.wait()
        solver.stop()
        result = await search
    assert result.reason == "interrupted"
    assert result.tree.counts.prompt_computed == load(record).counts.prompt_computed == 100


async def test_a_strategy_that_is_not_used_is_better_than_nothing():
    kinds = {"dvts": True, "best-of-n": False, "beam": False}
    usual = knowing().curves
    known = knowing(
        probe=1,
        sample_tokens=100.0,
        curves=tuple(replace(curve, used=kinds.get(curve.strategy, False)) for curve in usual),
    )
    _, events = await solve(alike, 0.9, calibration=known)
    assert not any(way.plan.startswith(("best", "beam")) for choice in choices(events) for way in choice.considered)
    plan = Plan(strategy="auto", n=16, score="last", vote="prm-max", budget=Budget(tokens=250))
    result, events = await solve(alike, 0.9, plan, calibration=known)
    assert choices(events)[0].strategy == "best-of-n" and result.answer == "7"


async def test_a_calibration_without_any_plan_for_the_search_is_refused():
    with pytest.raises(PlanError, match="knows no plan with a reward model"):
        await solve(alike, 0.9, calibration=knowing(curves=()))


async def test_a_stopped_search_gives_the_best_answer_so_far():
    policy = ScriptedPolicy(scattered)
    async with Solver(policy, ScriptedPRM(lambda texts: 0.05)) as solver:
        plan = solver.plan("auto", n=64, budget=Budget(tokens=400))
        result = await solver.solve("p", plan)
    assert result.answer is not None


@pytest.mark.parametrize("n", [1, 3, 6])
async def test_n_is_only_the_most_and_may_be_any(n):
    result, events = await solve(scattered, 0.05, Plan(strategy="auto", n=n, m=4, vote="prm-max"))
    assert result.tree.solutions and all(choice.n <= n for choice in choices(events))


async def test_what_a_problem_costs_once_is_no_cost_of_its_samples():
    usual = None
    for overhead in (0.0, 4.0):
        async with Solver(ScriptedPolicy(scattered), ScriptedPRM(lambda texts: 0.5)) as solver:
            found = priors.calibration(solver.policy.info, (await solver.reward_model(solver.plan("auto"))).info)  # type: ignore[union-attr]
        _, events = await solve(scattered, 0.5, calibration=replace(found, overhead=overhead))
        seen = [{one.plan: one.tokens for one in choice.considered if one.tokens} for choice in choices(events)[:2]]
        if usual is not None:
            assert seen[1]["dvts:4"] < usual[1]["dvts:4"], "its scoring is in part the question's"
        usual = seen
