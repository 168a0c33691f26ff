"""Guarantees of a search: cancellation, retries, budgets, stops, counts."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgspec
import pytest

import tts_tui.search.search
from tests.scripted import PROMPT, ScriptedPolicy, ScriptedPRM
from tts_tui import Budget, Plan, Solver, solve
from tts_tui.budget import flops
from tts_tui.errors import (
    BackendBadResponse,
    BackendError,
    BackendUnavailable,
    ContextExceeded,
    PlanError,
    RequestRefused,
    SinkError,
    StrategyError,
    TTSError,
    UsageError,
    WrongServer,
)
from tts_tui.protocols import Prompt, StepScore
from tts_tui.search.generation import step_seed
from tts_tui.tree.events import (
    NodesPruned,
    ScoreFailed,
    SearchFinished,
    SearchStarted,
    SolutionFound,
    StepFailed,
    StepFinished,
    StepMerged,
    StepScored,
    StepStreamed,
)

SEP = "\n\n"


def three_steps(path, draw):
    return f"step {draw % 1000}{SEP}" if len(path) < 2 else f"\\boxed{{{draw % 3}}}"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(tts_tui.search.search, "BACKOFF", 0.0)


@pytest.fixture
def policy():
    return ScriptedPolicy(three_steps, piece=2)


@pytest.fixture
def prm():
    return ScriptedPRM(lambda steps: 0.25 + len(steps[-1]) / 1000)


async def run(policy, prm, **settings):
    events = []
    async with Solver(policy, prm) as solver:
        result = await solver.solve("p", Plan(**settings), sinks=[events.append])
    return result, events


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


# -- 1: token ids are authoritative ------------------------------------------------------------------------------------


async def test_a_child_s_prompt_is_the_ids_of_its_path(policy, prm):
    result, _ = await run(policy, prm, strategy="beam", n=4, m=2)
    prompt = result.tree.start.prompt_ids
    known = {prompt} | {(*prompt, *node.path_ids) for node in result.tree.nodes[1:]}
    assert all(request.ids in known for request in policy.requests)


# -- 2: everything is an event -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["cot", "majority", "best-of-n", "beam", "dvts"])
async def test_events_begin_and_end_a_search_and_add_up_to_its_tree(policy, prm, strategy):
    result, events = await run(policy, prm, strategy=strategy, n=4, m=2)
    assert isinstance(events[0], SearchStarted)
    assert isinstance(events[-1], SearchFinished)
    assert [event.t for event in events] == sorted(event.t for event in events)
    streamed = {}
    for event in of(StepStreamed, events):
        streamed[event.node] = streamed.get(event.node, "") + event.text
    finished = {event.node: event.text for event in of(StepFinished, events)}
    assert {node: text for node, text in streamed.items() if node in finished} == {
        node: text for node, text in finished.items() if node in streamed
    }
    assert len(result.tree) == result.finished.nodes


# -- 4: every token is counted once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["majority", "best-of-n", "beam", "dvts"])
async def test_counts_are_the_sums_of_what_the_backends_said(policy, prm, strategy):
    result, events = await run(policy, prm, strategy=strategy, n=4, m=2, vote="prm-vote")
    tokens = result.finished.tokens
    assert tokens.policy.completion == sum(len(event.ids) for event in of(StepFinished, events))
    assert tokens.policy.completion == sum(node.usage.completion for node in result.tree.nodes[1:])
    assert tokens.policy.prompt_cached == sum(len(request.ids) for request in policy.requests)
    assert tokens.prm.computed == len(of(StepScored, events))
    assert result.finished.flops.policy == 2 * policy.info.parameters * tokens.policy.completion
    assert result.finished.flops.prm == 2 * prm.info.parameters * tokens.prm.computed


def test_flops_without_a_reward_model(policy):
    from tts_tui.tree.search_tree import TokenCounts

    counts = TokenCounts()
    counts.prompt_computed, counts.completion, counts.prm_computed = 3, 4, 5
    assert flops(counts, policy.info, None) == (2.0 * 10 * 7, 0.0)


async def test_every_step_is_scored_once(policy, prm):
    await run(policy, prm, strategy="best-of-n", n=4)
    scored = [steps for batch in prm.batches for steps in batch]
    assert len(scored) == 12
    await run(policy, prm, strategy="dvts", n=4, m=2)


async def test_equal_siblings_are_merged_scored_once_and_still_counted(prm):
    policy = ScriptedPolicy(lambda path, draw: f"same{SEP}" if not path else "\\boxed{1}")
    result, events = await run(policy, prm, strategy="beam", n=4, m=2)
    assert len(of(StepMerged, events)) == 4
    assert len(of(StepScored, events)) == 2
    assert result.finished.tokens.policy.completion == 4 * 6 + 2 * 10


# -- 5: leaving a search cancels all of its tasks ----------------------------------------------------------------------


async def test_an_abandoned_stream_cancels_every_request(policy, prm):
    policy.hold = asyncio.Event()
    async with Solver(policy, prm) as solver:
        async with aclosing(solver.stream("p", Plan(n=8))) as events:
            async for event in events:
                if policy.running == 8:
                    break
                assert not isinstance(event, SearchFinished)
                await asyncio.sleep(0)
        assert policy.running == 0


async def test_cancelling_solve_cancels_every_request_and_still_says_how_it_ended(policy, prm):
    policy.hold, events = asyncio.Event(), []
    async with Solver(policy, prm) as solver:
        task = asyncio.create_task(solver.solve("p", Plan(n=8), sinks=[events.append]))
        await policy.reached(8)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert policy.running == 0
    assert events[-1].reason == "interrupted"
    assert len(of(StepFailed, events)) == 8


async def test_a_strategy_that_returns_early_leaves_nothing_running(policy, prm, monkeypatch):
    class First:
        name, summary, needs_scores, uses_width = "first", "", False, False

        async def run(self, search):
            async for node in search.rollout(search.root, 8):
                return [node]

    monkeypatch.setattr(tts_tui.solver.registry, "strategy", lambda name: First())
    result, events = await run(policy, prm, vote="majority")
    assert policy.running == 0
    assert result.reason == "solved"
    assert isinstance(events[-1], SearchFinished)


async def test_a_broken_strategy_is_one_sentence_and_leaves_nothing_running(policy, prm, monkeypatch):
    class Broken:
        name, summary, needs_scores, uses_width = "broken", "", False, False

        async def run(self, search):
            search.rollout(search.root, 4)
            await asyncio.sleep(0)
            raise KeyError("oops")

    monkeypatch.setattr(tts_tui.solver.registry, "strategy", lambda name: Broken())
    events = []
    async with Solver(policy, prm) as solver:
        with pytest.raises(StrategyError, match="'broken' failed: KeyError"):
            await solver.solve("p", Plan(), sinks=[events.append])
    assert policy.running == 0
    assert events[-1].reason == "failed"


async def test_nothing_can_be_expanded_after_the_end(policy, prm, monkeypatch):
    kept = []

    class Keeps:
        name, summary, needs_scores, uses_width = "keeps", "", False, False

        async def run(self, search):
            kept.append(search)
            return []

    monkeypatch.setattr(tts_tui.solver.registry, "strategy", lambda name: Keeps())
    await run(policy, prm)
    with pytest.raises(StrategyError, match="search is over"):
        kept[0].expand([kept[0].root], 1)
    kept[0].stop()


# -- 6: one failed expansion does not fail the search ------------------------------------------------------------------


async def test_a_failed_step_is_tried_again(policy, prm):
    policy.faults = [BackendError("reset"), None, BackendError("reset"), None]
    result, events = await run(policy, prm, n=4)
    failed = of(StepFailed, events)
    assert [event.retry for event in failed] == [True, True]
    assert len(result.finished.votes) and sum(len(vote.solutions) for vote in result.votes) == 4


class Damaging(ScriptedPolicy):
    """A policy whose first `streams` streams have `number`, which is not a token id, in place of the last id."""

    def __init__(self, number: int, streams: int) -> None:
        super().__init__(three_steps, piece=2)
        self.number, self.streams = number, streams

    async def stream(self, request):
        damaged, self.streams = self.streams > 0, self.streams - 1
        async with aclosing(super().stream(request)) as chunks:
            async for chunk in chunks:
                bad = (*chunk.ids[:-1], self.number) if damaged and chunk.step_end else chunk.ids
                yield msgspec.structs.replace(chunk, ids=bad)


@pytest.mark.parametrize("number", [-1, 2**31, 2**70])
@pytest.mark.parametrize("speculation", ["on", "off"])
@pytest.mark.parametrize("strategy", ["best-of-n", "beam", "dvts"])
async def test_a_policy_that_gives_what_is_no_token_id_is_asked_again(prm, strategy, speculation, number):
    policy = Damaging(number, 2)
    result, events = await run(policy, prm, strategy=strategy, n=4, m=2, speculation=speculation)
    failed = of(StepFailed, events)
    assert result.reason == "solved" and failed and all(event.retry for event in failed)
    assert not [node for node in result.tree.nodes if node.state == "writing"]
    assert result.finished.tokens.policy.completion == policy.sampled


async def test_a_prompt_that_holds_what_is_no_token_id_begins_no_search(policy, prm):
    async def prompt(problem):
        return Prompt(problem, (1, -5))

    policy.prompt = prompt
    with pytest.raises(BackendBadResponse):
        await run(policy, prm)
    assert not policy.requests


async def test_a_step_that_keeps_failing_is_given_up_and_the_rest_goes_on(policy, prm):
    bad = {step_seed(0, [(0, 0)], attempt) for attempt in (1, 2, 3)}

    class Unlucky(ScriptedPolicy):
        async def stream(self, request):
            if request.seed in bad:
                raise BackendError("reset")
            async for chunk in super().stream(request):
                yield chunk

    result, events = await run(Unlucky(three_steps), prm, n=4)
    assert [event.retry for event in of(StepFailed, events)] == [True, True, False]
    assert sum(len(vote.solutions) for vote in result.votes) == 3


async def test_a_context_that_is_full_is_not_tried_again(policy, prm):
    policy.faults = [ContextExceeded("the path fills the context")] * 4
    result, events = await run(policy, prm, n=4)
    assert [event.retry for event in of(StepFailed, events)] == [False] * 4
    assert result.reason == "unsolved"
    assert result.finished.detail == "no answer can be read out of 0 solutions; the path fills the context"


async def test_a_dead_policy_ends_the_search_with_its_reason(policy, prm):
    policy.faults = [BackendUnavailable("the server is gone")] * 100
    result, _ = await run(policy, prm, n=4)
    assert (result.answer, result.reason, result.finished.detail) == (None, "failed", "the server is gone")


async def test_a_failed_rollout_goes_on_from_its_last_whole_step(prm):
    class Resets(ScriptedPolicy):
        async def stream(self, request):
            async for chunk in super().stream(request):
                yield chunk
                if len(self.requests) == 1 and chunk.step_end:
                    raise BackendError("reset")

    policy = Resets(three_steps)
    result, _ = await run(policy, prm, n=1)
    assert result.answer is not None
    assert len(policy.requests) == 2
    assert len(policy.requests[1].ids) > len(PROMPT)
    assert [node.state for node in result.tree.nodes[1:]].count("done") == 3


async def test_a_stream_that_ends_without_a_reason_is_a_failure(policy, prm):
    async def nothing(request):
        return
        yield

    policy.stream = nothing
    result, _ = await run(policy, prm, n=1)
    assert "ended without saying why" in result.finished.detail


async def test_failed_scores_are_tried_again_then_left_out_and_never_made_up(policy, prm):
    prm.faults = [BackendError("reset"), None]
    result, events = await run(policy, prm, n=2)
    assert [event.retry for event in of(ScoreFailed, events)] == [True]
    assert all(node.score is not None for node in result.tree.nodes[1:])
    prm.faults = [BackendError("gone")] * 100
    result, events = await run(policy, prm, n=2)
    assert all(node.score is None for node in result.tree.nodes[1:])
    assert result.answer is not None


async def test_a_search_that_lives_on_scores_stops_when_there_are_none(policy, prm):
    score = prm.score

    async def once(requests):
        if any(len(request.steps) > 1 for request in requests):
            raise BackendError("gone")
        return await score(requests)

    prm.score = once
    result, events = await run(policy, prm, strategy="beam", n=4, m=2)
    assert (result.reason, result.finished.detail) == ("failed", "the steps can no longer be scored: gone")
    assert [event.retry for event in of(ScoreFailed, events)] == [True, True, False]
    assert policy.running == 0


async def test_a_solution_whose_last_step_has_no_score_does_not_vote_by_the_one_before(policy, prm):
    score = prm.score

    async def first_steps_only(requests):
        if any(len(request.steps) > 1 for request in requests):
            raise RequestRefused("too deep")
        return await score(requests)

    prm.score = first_steps_only
    result, _ = await run(policy, prm, n=3)
    assert all(node.scores == [] for node in result.tree.solutions)
    assert result.finished.detail.endswith(
        "scores are missing in all of them, so the majority voted instead of prm-vote"
    )

    async def not_of_the_first_answer(requests):
        if any("boxed{0}" in request.steps[-1] for request in requests):
            raise RequestRefused("no zero")
        return await score(requests)

    prm.score = not_of_the_first_answer
    result, _ = await run(ScriptedPolicy(lambda path, draw: f"\\boxed{{{draw}}}", counted=True), prm, n=3)
    assert [tally.answer for tally in result.votes] == ["1", "2"]
    assert result.finished.detail.endswith("1 of 3 answered solutions lacks a score and does not vote")


@pytest.mark.parametrize("error", [WrongServer("who are you"), RequestRefused("no"), ContextExceeded("the question")])
async def test_nor_does_it_go_on_where_trying_again_cannot_help(policy, prm, error):
    prm.faults = [error] * 100
    result, events = await run(policy, prm, strategy="beam", n=4, m=2)
    assert (result.reason, result.finished.detail) == ("failed", f"the steps can no longer be scored: {error}")
    assert not any(event.retry for event in of(ScoreFailed, events))
    prm.faults = [error] * 100
    result, events = await run(policy, prm, n=2)
    assert result.answer is not None and result.reason == "solved", "best-of-n votes with what there is"


async def test_one_number_that_is_none_costs_one_step_its_score(policy):
    class Odd(ScriptedPRM):
        async def score(self, requests):
            scores = await super().score(requests)
            odd = [one.steps[0].startswith("step 7") for one in requests]
            return [StepScore(float("nan")) if bad else score for bad, score in zip(odd, scores, strict=True)]

    policy = ScriptedPolicy(lambda path, draw: f"step {draw + 5}{SEP}" if not path else "\\boxed{1}", counted=True)
    result, events = await run(policy, Odd(lambda steps: 0.5), strategy="beam", n=4, m=4)
    first = {node.text: node.score for node in result.tree.root.children}
    assert first == {f"step 5{SEP}": 0.5, f"step 6{SEP}": 0.5, f"step 7{SEP}": None, f"step 8{SEP}": 0.5}
    assert "'step 7" in of(ScoreFailed, events)[-1].error and result.reason == "solved"


async def test_scores_of_another_layout_are_not_mixed_with_these(policy, prm, tmp_path):
    record = tmp_path / "run.jsonl"
    async with Solver(policy, prm) as solver:
        await solver.solve("p", Plan(n=2, budget=Budget(tokens=30)), record=record)
    other = ScriptedPRM(prm.rule)
    name = prm.info.name
    other.info = msgspec.structs.replace(prm.info, family="skywork-7b:sal")
    async with Solver(policy, other) as solver:
        with pytest.raises(UsageError, match=f"{name} as default, not {name} as skywork-7b:sal"):
            await solver.resume(record, budget=Budget())


async def test_a_path_that_the_reward_model_cannot_hold_is_said_once(policy, prm):
    async def score(requests):
        return [StepScore(0.5, unseen=len(request.steps) - 1) for request in requests]

    prm.score = score
    result, events = await run(policy, prm, n=4)
    assert {len(list(result.tree.nodes[event.node].path)) - 1 for event in of(StepScored, events) if event.unseen} == {
        1,
        2,
    }
    (notice,) = result.tree.notices
    assert "of the reward model's context" in notice


@pytest.mark.parametrize("bad", [[], [StepScore(0.5)] * 9, [StepScore(1.5)], [StepScore(float("nan"))]])
async def test_a_reward_model_that_breaks_its_contract_scores_nothing(policy, prm, bad):
    async def score(requests):
        return bad

    prm.score = score
    result, events = await run(policy, prm, n=1)
    assert all(node.score is None for node in result.tree.nodes[1:])
    assert "reward model gave" in of(ScoreFailed, events)[0].error
    assert "step" in of(ScoreFailed, events)[0].error


# -- how a search ends -------------------------------------------------------------------------------------------------


async def test_a_token_budget_ends_the_search_with_the_best_so_far(policy, prm):
    whole, _ = await run(policy, prm, n=16)
    used = whole.tree.counts.computed
    result, _events = await run(policy, prm, n=16, budget=Budget(tokens=used - 20))
    assert result.reason == "budget"
    assert result.answer is not None
    assert used - 20 <= result.tree.counts.computed <= used
    assert policy.running == 0


async def test_a_flops_budget(policy, prm):
    result, _ = await run(policy, prm, n=4, budget=Budget(flops=500.0))
    assert (result.reason, result.finished.detail) == ("budget", "the budget of 500 FLOPs is spent")


async def test_a_deadline(policy, prm):
    policy.hold = asyncio.Event()
    result, _ = await run(policy, prm, n=4, budget=Budget(seconds=0.01))
    assert (result.reason, result.finished.detail) == ("timeout", "the time limit of 0.01 s is reached")
    assert policy.running == 0


async def test_a_stop_keeps_the_best_so_far(prm):
    policy = ScriptedPolicy(three_steps)
    async with Solver(policy, prm) as solver:

        def on_event(event):
            if isinstance(event, SolutionFound):
                policy.hold = asyncio.Event()
                solver.stop()

        result = await solver.solve("p", Plan(n=4), sinks=[on_event])
    assert result.reason == "interrupted"
    assert result.answer is not None
    assert policy.running == 0


async def test_a_pause_starts_no_step_until_it_ends(policy, prm):
    seen = []
    async with Solver(policy, prm) as solver:

        def on_event(event):
            if isinstance(event, StepFinished) and len(policy.requests) == 4 and not seen:
                seen.append("paused")
                (search,) = solver._searches
                search.pause()
                search.pause()
                look(search)

        def look(search):
            if policy.running or prm.waiting:
                asyncio.get_running_loop().call_later(0, look, search)
                return
            seen.append(len(policy.requests))
            search.go_on()
            search.go_on()

        result = await solver.solve("p", Plan(strategy="beam", n=4, m=2), sinks=[on_event])
    assert seen == ["paused", 4]
    assert len(policy.requests) > 4
    assert result.answer is not None


async def test_a_box_ends_a_beam_in_official_semantics_only(prm):
    policy = ScriptedPolicy(lambda path, draw: f"so \\boxed{{1}}{SEP}" if not path else "and that was it")
    _, events = await run(policy, prm, strategy="beam", n=2, m=2)
    assert {event.finish for event in of(StepFinished, events)} == {"boxed"}
    _result, events = await run(policy, prm, strategy="beam", n=2, m=2, variant="search-and-learn")
    assert "eos" in {event.finish for event in of(StepFinished, events)}


async def test_a_model_that_only_writes_separators_ends_unsolved(prm):
    policy = ScriptedPolicy(lambda path, draw: SEP)
    result, events = await run(policy, prm, strategy="beam", n=4, m=2)
    assert result.reason == "unsolved"
    assert len(policy.requests) < 4 * (1 + 3 * 40) * 2
    assert of(NodesPruned, events)[0].why == "an empty step"


async def test_a_model_that_never_ends_a_step_ends_at_its_limit(prm):
    policy = ScriptedPolicy(lambda path, draw: "and so on ~")
    result, events = await run(policy, prm, strategy="beam", n=4, m=2)
    assert result.reason == "unsolved"
    assert of(NodesPruned, events)[0].why == "cut off at the step limit"


async def test_a_path_at_its_token_limit_is_not_continued(policy, prm):
    _result, events = await run(policy, prm, strategy="beam", n=2, m=2, total_tokens=5)
    assert "the path has its 5 tokens" in of(StepFailed, events)[0].error
    assert [request.max_tokens for request in policy.requests] == [5, 5]


async def test_blank_pieces_of_a_rollout_are_no_steps(prm):
    steps = [SEP, f"one{SEP}", SEP, "\\boxed{1}"]
    policy = ScriptedPolicy(lambda path, draw: steps[len(path)])
    result, _ = await run(policy, prm, n=1)
    assert [node.text for node in result.tree.nodes[1:]] == [f"{SEP}one{SEP}", f"{SEP}\\boxed{{1}}"]
    assert [batch for batches in prm.batches for batch in batches][-1] == (f"{SEP}one{SEP}", f"{SEP}\\boxed{{1}}")


async def test_an_answer_that_ends_right_after_a_separator_is_never_scored_as_an_empty_step(prm):
    steps = [f"\\boxed{{1}}{SEP}", ""]
    policy = ScriptedPolicy(lambda path, draw: steps[len(path)])
    result, events = await run(policy, prm, n=1)
    last = result.tree.nodes[-1]
    assert (last.text, last.terminal, last.score) == ("", True, None)
    assert last.scores == [result.tree.nodes[1].score]
    assert (result.answer, len(of(StepScored, events))) == ("1", 1)


# -- the solver --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("problem", "says"), [("", "empty"), (" \n", "empty"), ("a\0b", "NUL")])
async def test_a_problem_that_is_none(policy, problem, says):
    async with Solver(policy, None) as solver:
        with pytest.raises(UsageError, match=says):
            await solver.solve(problem, Plan(vote="majority"))


async def test_a_prompt_that_does_not_fit(prm):
    async with Solver(ScriptedPolicy(three_steps, context=1), prm) as solver:
        with pytest.raises(UsageError, match="the prompt has 1 tokens and the context of scripted is 1"):
            await solver.solve("p")


async def test_a_budget_that_does_not_cover_the_prompt(policy, prm):
    async with Solver(policy, prm) as solver:
        with pytest.raises(PlanError, match="too small for one step"):
            await solver.solve("p", Plan(budget=Budget(tokens=1)))


@pytest.mark.parametrize("field", ["tokens", "flops", "seconds"])
@pytest.mark.parametrize("value", [0, -1])
def test_budgets_are_positive(field, value):
    with pytest.raises(PlanError, match=f"the budget of {field} must be positive"):
        Budget(**{field: value})


async def test_a_plan_that_votes_by_scores_needs_a_reward_model(policy):
    async with Solver(policy, None) as solver:
        with pytest.raises(PlanError, match="needs a reward model"):
            await solver.solve("p", Plan())
        with pytest.raises(PlanError, match="needs a reward model"):
            await solver.solve("p", Plan(strategy="beam", vote="majority"))
        assert (await solver.solve("p", Plan(vote="majority", n=2))).answer is not None


async def test_many_problems_at_once_and_one_bad_one_stops_nobody(policy, prm):
    policy.piece = 1_000_000
    async with Solver(policy, prm) as solver:
        results = [r async for r in solver.solve_many(["a", "", "b", "c"], Plan(n=2), parallel=2)]
        assert sorted((r.index, r.reason) for r in results) == [
            (0, "solved"),
            (1, "failed"),
            (2, "solved"),
            (3, "solved"),
        ]
        assert policy.most_running <= 4
        with pytest.raises(UsageError, match="at least 1"):
            await anext(solver.solve_many(["a"], Plan(n=2), parallel=0))


async def test_leaving_many_early_cancels_the_rest(policy, prm):
    async with Solver(policy, prm) as solver:
        async with aclosing(solver.solve_many(["a"] * 20, Plan(n=2), parallel=4)) as results:
            await anext(results)
        assert policy.running == 0


async def test_a_policy_that_cannot_start_is_closed(policy):
    async def start():
        raise BackendUnavailable("no such model: install it")

    policy.start = start
    with pytest.raises(BackendUnavailable):
        async with Solver(policy, None):
            pass
    assert policy.closed


async def test_the_reward_model_is_started_when_it_is_needed_and_closed(policy, prm):
    calls = []

    async def note(what):
        calls.append(what)

    prm.start, prm.close = (lambda: note("start")), (lambda: note("close"))
    async with Solver(policy, prm) as solver:
        await solver.solve("p", Plan(strategy="majority", vote="majority", n=2))
        assert calls == []
        await asyncio.gather(solver.solve("p", Plan(n=2)), solver.solve("p", Plan(n=2)))
    assert calls == ["start", "close"]


def test_the_sync_door(policy, prm):
    events = []
    result = solve("p", Plan(n=2), policy=policy, prm=prm, on_event=events.append)
    assert result.answer is not None
    assert result.solution.endswith(f"\\boxed{{{result.answer}}}")
    assert isinstance(events[-1], SearchFinished)
    with pytest.raises(TTSError):
        solve("", policy=policy, prm=prm)


async def test_the_sync_door_works_inside_a_running_loop(policy, prm):
    assert solve("p", Plan(n=2), policy=policy, prm=prm).answer is not None


# -- failures that must not end a search, lose an answer, or leave a task running --------------------------------------


async def test_a_policy_that_raises_anything_is_a_failed_step(prm):
    class Breaks(ScriptedPolicy):
        async def stream(self, request):
            if request.seed == step_seed(0, [(0, 1)]):
                raise RuntimeError("bug")
            async for chunk in super().stream(request):
                yield chunk

    result, events = await run(Breaks(three_steps), prm, n=4)
    assert [event.error for event in of(StepFailed, events)] == ["the policy failed: RuntimeError: bug"]
    assert sum(len(vote.solutions) for vote in result.votes) == 4


async def test_a_reward_model_that_raises_anything_leaves_steps_unscored(policy, prm):
    async def score(requests):
        raise RuntimeError("bug")

    prm.score = score
    result, events = await run(policy, prm, n=2)
    assert of(ScoreFailed, events)[0].error == "the reward model failed: RuntimeError: bug"
    assert result.answer is not None


@pytest.mark.parametrize("when", [SearchStarted, StepStreamed, StepScored, SearchFinished])
@pytest.mark.parametrize("error", [KeyError("x"), OSError(28, "full"), RecursionError(), asyncio.CancelledError()])
async def test_a_sink_that_fails_ends_the_search_with_its_cause_after_the_others_heard(policy, prm, error, when):
    heard = []

    def broken(event):
        if isinstance(event, when):
            raise error

    async with Solver(policy, prm) as solver:
        with pytest.raises(SinkError) as caught:
            await solver.solve("p", Plan(n=2), sinks=[broken, heard.append])
        assert caught.value.__cause__ is error and type(error).__name__ in str(caught.value)
        assert policy.running == 0
        assert len(of(when, heard)) >= 1 and len(of(SearchFinished, heard)) == 1
        assert heard[-1].reason == ("solved" if when is SearchFinished else "failed")
        assert (await solver.solve("p", Plan(n=2))).answer is not None


async def test_the_first_sink_that_fails_is_the_reason(policy, prm):
    def breaks(name):
        def sink(event):
            raise LookupError(name)

        return sink

    async with Solver(policy, prm) as solver:
        with pytest.raises(SinkError) as caught:
            await solver.solve("p", Plan(n=2), sinks=[breaks("one"), breaks("two")])
    assert caught.value.__cause__.args == ("one",)


async def test_a_listener_that_paused_the_search_and_fails_leaves_nobody_waiting(policy, prm):
    searches = []

    def listen(event):
        if isinstance(event, StepFinished):
            searches[0].pause()
            raise KeyError("the listener who would have gone on")

    async with Solver(policy, prm) as solver, asyncio.timeout(60):
        with pytest.raises(SinkError):
            await solver.solve("p", Plan(strategy="beam", n=4, m=2), sinks=[listen], steer=searches.append)
    assert policy.running == 0


async def test_a_budget_that_is_spent_does_not_hide_a_sink_that_failed(policy, prm):
    def broken(event):
        if isinstance(event, StepFailed):
            raise KeyError("x")

    async with Solver(policy, prm) as solver:
        with pytest.raises(SinkError):
            await solver.solve("p", Plan(n=4, budget=Budget(tokens=20)), sinks=[broken])


async def test_one_step_that_cannot_be_scored_does_not_cost_the_others_theirs(policy):
    class Small(ScriptedPRM):
        async def score(self, requests):
            if any("step 7" in request.steps[0] for request in requests):
                raise ContextExceeded("too long")
            return await super().score(requests)

    policy = ScriptedPolicy(lambda path, draw: f"step {draw + 5}{SEP}" if not path else "\\boxed{1}", counted=True)
    result, events = await run(policy, Small(lambda steps: 0.5), strategy="beam", n=4, m=4)
    first = {node.text: node.score for node in result.tree.root.children}
    assert first == {f"step 5{SEP}": 0.5, f"step 6{SEP}": 0.5, f"step 7{SEP}": None, f"step 8{SEP}": 0.5}
    assert len(of(ScoreFailed, events)) == 1


class Picky(ScriptedPRM):
    """A reward model that refuses batches with a bad step."""

    def __init__(self, bad, error=RequestRefused):
        super().__init__(lambda steps: 0.5)
        self.bad, self.error = bad, error
        self.scoring = self.most_scoring = 0

    async def score(self, requests):
        self.scoring += 1
        self.most_scoring = max(self.most_scoring, self.scoring)
        try:
            scores = await super().score(requests)
        finally:
            self.scoring -= 1
        if any(request.steps[-1] in self.bad for request in requests):
            raise self.error("not this one")
        return scores


@pytest.mark.parametrize("error", [RequestRefused, ContextExceeded, BackendBadResponse])
@pytest.mark.parametrize("bad", [{40}, {1, 63}])
async def test_a_bad_step_in_a_large_batch_is_found_by_halves_side_by_side(bad, error):
    policy = ScriptedPolicy(lambda path, draw: f"\\boxed{{{draw}}}", counted=True)
    prm = Picky({f"\\boxed{{{number}}}" for number in bad}, error)
    result, events = await run(policy, prm, n=64)
    assert {int(node.answer) for node in result.tree.solutions if node.score is None} == bad
    assert len(prm.batches[0]) == 64
    given_up = [event for event in of(ScoreFailed, events) if not event.retry]
    assert sorted(len(event.nodes) for event in given_up) == [1] * len(bad)
    assert len(prm.batches) <= 1 + 3 + 2 * 6 * len(bad)
    assert prm.most_scoring > 1 and result.reason == "solved"


async def test_what_fails_for_another_reason_while_a_bad_step_is_sought_is_tried_again():
    policy = ScriptedPolicy(lambda path, draw: f"\\boxed{{{draw}}}", counted=True)
    prm = Picky({"\\boxed{7}"})
    prm.faults = [None, None, BackendUnavailable("reset"), BackendUnavailable("reset")]
    result, events = await run(policy, prm, n=16)
    assert [node.answer for node in result.tree.solutions if node.score is None] == ["7"]
    assert [event.retry for event in of(ScoreFailed, events)].count(True) == 2


async def test_scores_that_come_with_a_failure_count_and_only_the_others_are_asked_for_again():
    class Partly(Picky):
        async def score(self, requests):
            try:
                return await super().score(requests)
            except BackendUnavailable as error:
                error.scores = [None if r.steps[-1] in self.bad else StepScore(0.5, computed=3) for r in requests]
                raise

    policy = ScriptedPolicy(lambda path, draw: f"\\boxed{{{draw}}}", counted=True)
    prm = Partly({"\\boxed{3}", "\\boxed{5}"}, BackendUnavailable)
    result, events = await run(policy, prm, n=8)
    assert {node.answer for node in result.tree.solutions if node.score is None} == {"3", "5"}
    assert [len(batch) for batch in prm.batches] == [8, 2, 2]
    assert result.tree.counts.prm_computed == 6 * 3
    assert [len(event.nodes) for event in of(ScoreFailed, events)] == [2, 2, 2]


async def test_a_step_that_is_scored_does_not_wait_until_the_bad_one_is_found(monkeypatch):
    policy = ScriptedPolicy(lambda path, draw: f"\\boxed{{{draw}}}", counted=True)
    prm, searching = Picky({"\\boxed{2}"}), asyncio.Event()
    score = prm.score

    async def slow(requests):
        if [request.steps[-1] for request in requests] == ["\\boxed{2}"]:
            await searching.wait()
        return await score(requests)

    class Iterates:
        name, summary, needs_scores, uses_width = "iterates", "", False, False

        async def run(self, search):
            found = []
            async for node in search.rollout(search.root, 8):
                found.append(node)
                if len(found) == 7:
                    searching.set()
            return found

    prm.score = slow
    monkeypatch.setattr(tts_tui.solver.registry, "strategy", lambda name: Iterates())
    async with asyncio.timeout(60):
        result, _ = await run(policy, prm)
    assert sum(node.score is not None for node in result.tree.solutions) == 7


async def test_the_answer_that_reaches_the_budget_with_its_last_token_counts(prm):
    policy = ScriptedPolicy(lambda path, draw: "\\boxed{2}")
    result, _ = await run(policy, None, strategy="cot", n=1, vote="majority", budget=Budget(tokens=10))
    assert (result.answer, result.tree.counts.completion) == ("2", 10)


async def test_nothing_is_left_when_the_budget_ends_a_search_while_it_scores(policy, prm):
    before = asyncio.all_tasks()
    for tokens in (40, 60, 80, 100):
        await run(policy, prm, n=16, budget=Budget(tokens=tokens))
        assert asyncio.all_tasks() == before


async def test_whoever_asks_for_a_slot_twice_gets_the_same_step(policy, prm, monkeypatch):
    class Twice:
        name, summary, needs_scores, uses_width = "twice", "", False, False

        async def run(self, search):
            first, second = search.expand([search.root], 2), search.expand([search.root], 2)
            assert await first == await second
            return await search.rollout((await second)[0], 1)

    monkeypatch.setattr(tts_tui.solver.registry, "strategy", lambda name: Twice())
    result, _ = await run(policy, prm)
    assert len(result.tree.root.children) == 2
    assert result.answer is not None


async def test_a_model_that_dies_half_way_is_said(prm):
    class Dies(ScriptedPolicy):
        async def stream(self, request):
            if len(request.ids) > len(PROMPT):
                raise BackendUnavailable("the server is gone")
            async for chunk in super().stream(request):
                yield chunk

    result, _ = await run(Dies(three_steps), prm, strategy="beam", n=4, m=2)
    assert (result.reason, result.finished.detail) == ("failed", "the server is gone")


async def test_a_step_without_a_score_never_goes_by_its_parent_s(policy, prm):
    result, _ = await run(policy, prm, n=1)
    first, second = result.tree.nodes[1:3]
    second.score = None
    assert (first.value, second.value) == (first.score, -1.0)


async def test_a_pause_holds_rollouts_too(policy, prm):
    async with Solver(policy, prm) as solver:
        seen = []

        def on_event(event):
            if isinstance(event, StepFinished) and not seen:
                (search,) = solver._searches
                search.pause()
                asyncio.get_running_loop().call_later(0.02, look, search)
                seen.append(len(search.tree.nodes))

        def look(search):
            seen.append(len(search.tree.nodes))
            search.go_on()

        result = await solver.solve("p", Plan(n=4), sinks=[on_event])
    assert seen[0] == seen[1]
    assert result.answer is not None


async def test_a_solver_can_be_used_again(policy, prm):
    calls = []

    async def note(what):
        calls.append(what)

    prm.start, prm.close = (lambda: note("start")), (lambda: note("close"))
    solver = Solver(policy, prm)
    for _ in range(2):
        async with solver:
            await solver.solve("p", Plan(n=2))
    assert calls == ["start", "close"] * 2


async def test_without_a_reward_model_the_majority_votes_by_default(policy):
    async with Solver(policy, None) as solver:
        assert (await solver.solve("p")).answer is not None
