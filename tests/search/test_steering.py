"""A user's actions in a running search, and the invariants that hold for any such actions."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tts_tui.search.search
from tests.scripted import ScriptedPolicy, ScriptedPRM, encode
from tests.search.steering import KINDS, Talkative, models, picture, plan, spent, steered
from tts_tui import Budget, Plan, Sampling, SearchTree, Solver, Usage, load
from tts_tui.errors import BackendError, PlanError, UnknownName, UsageError
from tts_tui.search.slots import CHANGED, CUT
from tts_tui.search.tasks import Stopped, StopSignal
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import (
    HAND,
    WRITTEN,
    BranchBegun,
    NodesKept,
    NodesPruned,
    PlanChanged,
    SearchContinued,
    SearchPaused,
    SearchStarted,
    SearchStepped,
    SolutionFound,
    StepFailed,
    StepFinished,
    StepScored,
    StepStarted,
    StepStreamed,
)

SEP = "\n\n"
EVERY = [
    (name, variant)
    for name in ("beam", "dvts", "best-of-n", "majority", "cot")
    for variant in ("paper", "search-and-learn")
]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(tts_tui.search.search, "BACKOFF", 0.0)


def three_steps(path, draw):
    return f"step {draw % 1000}{SEP}" if len(path) < 2 else f"\\boxed{{{draw % 3}}}"


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


class Searched:
    """A search with all of its events."""

    def __init__(self, react, script=three_steps, policy=None, **settings):
        self.policy = policy or Talkative(script, piece=2)
        self.prm = ScriptedPRM(lambda steps: 0.25 + len(steps[-1]) / 1000)
        self.plan = plan(**settings)
        self.react = react
        self.events = []
        self.search = self.result = None
        self.errors = []

    def __call__(self, event):
        self.events.append(event)
        if self.search is not None:
            try:
                self.react(self, event)
            except Exception as error:
                self.errors.append(error)

    def steer(self, search):
        self.search = search

    @property
    def steering(self):
        return self.search.steering

    @property
    def tree(self):
        return self.search.tree

    def of(self, kind):
        return of(kind, self.events)

    async def run(self, record=None, solver=None, prm=True):
        async with Solver(self.policy, self.prm if prm else None) as solver:
            self.result = await solver.solve("p", self.plan, record=record, sinks=[self], steer=self.steer)
        assert self.errors == []
        assert self.policy.running == 0
        return self


def once(kind, do, when=lambda run, event: True):
    """Return a reaction to the first event of a kind."""
    left = [do]

    def react(run, event):
        if left and isinstance(event, kind) and when(run, event):
            left.pop()(run, event)

    return react


# -- more steps --------------------------------------------------------------------------------------------------------


async def test_more_children_are_asked_for_scored_and_vote(tmp_path):
    def more(run, event):
        run.steering.expand(run.tree.nodes[event.node], 3)
        run.steering.expand(run.tree.nodes[event.node])

    whole = once(StepScored, more, lambda run, event: run.tree.nodes[event.node].depth == 2)
    run = await Searched(whole).run(tmp_path / "run.jsonl")
    asked = [node for node in run.result.tree.nodes if node.by_hand]
    assert [(node.group, node.slot) for node in asked] == [(HAND, slot) for slot in range(5)]
    assert {event.by for event in run.of(StepStarted) if event.group == HAND} == {"person"}
    fresh = [node for node in asked if node.merged_into is None]
    assert all(node.solved and node.score is not None for node in fresh)
    voting = {node for tally in run.result.votes for node in tally.solutions}
    assert {node.id for node in fresh} <= voting
    assert picture(load(tmp_path / "run.jsonl")) == picture(run.result.tree)


async def test_a_pause_does_not_hold_what_a_person_asks_for():
    def ask(run, event):
        run.search.pause()
        run.steering.expand(run.tree.nodes[event.node], 1)

    def react(run, event):
        ask_once(run, event)
        if isinstance(event, StepScored) and run.tree.nodes[event.node].by_hand:
            run.search.go_on()

    ask_once = once(StepScored, ask)
    run = await Searched(react).run()
    assert any(node.by_hand and node.score is not None for node in run.result.tree.nodes)


async def test_the_search_waits_for_what_was_asked_for_by_hand():
    def ask(run, event):
        run.steering.expand(run.tree.nodes[event.node].parent, 1)

    run = await Searched(once(SolutionFound, ask), strategy="cot", n=1, vote="majority").run(prm=False)
    asked = next(node for node in run.result.tree.nodes if node.by_hand)
    assert asked.state == "done"
    assert {node for tally in run.result.votes for node in tally.solutions} == {
        node.id for node in run.result.tree.solutions
    }


# -- steps that the user writes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "variant"), EVERY)
async def test_the_search_goes_on_from_a_step_that_a_person_wrote(strategy, variant, tmp_path):
    write = once(StepStreamed, lambda run, event: run.steering.write(run.tree.root, "let x = 3"))
    run = await Searched(write, strategy=strategy, variant=variant).run(tmp_path / "run.jsonl")
    tree = run.result.tree
    (mine,) = [node for node in tree.nodes if node.by_hand]
    assert (mine.text, mine.group, mine.finish, mine.usage) == (f"let x = 3{SEP}", WRITTEN, "step", Usage())
    assert list(mine.ids) == encode(mine.text)
    assert mine.score is not None
    assert [event.node for event in run.of(BranchBegun)] == [mine.id]
    below = [node for node in tree.solutions if mine in node.path]
    voting = {node for tally in run.result.votes for node in tally.solutions}
    assert below and voting & {node.id for node in below}
    assert tree.unique_tokens() == 1 + len(mine.ids) + tree.counts.completion - tree.ahead.completion
    assert picture(load(tmp_path / "run.jsonl")) == picture(tree)


async def test_a_written_answer_votes_and_nothing_follows_it():
    write = once(StepStreamed, lambda run, event: run.steering.write(run.tree.root, "it is \\boxed{mine}"))
    run = await Searched(write).run()
    mine = next(node for node in run.result.tree.nodes if node.by_hand)
    assert (mine.text, mine.finish, mine.answer) == ("it is \\boxed{mine}", "boxed", "mine")
    assert "mine" in [tally.answer for tally in run.result.votes]
    assert not run.of(BranchBegun)


async def test_a_step_is_written_while_the_search_is_paused():
    def write(run, event):
        run.search.pause()
        run.steering.write(run.tree.root, "mine")

    def react(run, event):
        begin(run, event)
        if isinstance(event, BranchBegun):
            assert run.tree.paused
            run.search.go_on()

    begin = once(StepStarted, write)
    run = await Searched(react).run()
    assert len(run.of(BranchBegun)) == 1
    assert run.result.reason == "solved"


@pytest.mark.parametrize(
    ("settings", "says"), [({"total_tokens": 12}, "the path would have 14, and it may have 12"), ({}, "no such word")]
)
async def test_a_step_that_cannot_be_taken_is_left_out_with_a_notice(settings, says):
    class Picky(Talkative):
        async def encode(self, text):
            if not settings:
                raise BackendError("no such word")
            return await super().encode(text)

    write = once(StepStreamed, lambda run, event: run.steering.write(run.tree.root, "twelve chars"))
    run = await Searched(write, policy=Picky(three_steps, piece=2), **settings).run()
    assert [
        notice
        for notice in run.result.tree.notices
        if "the step that you wrote was left out" in notice and says in notice
    ]
    assert not [node for node in run.result.tree.nodes if node.by_hand]


@pytest.mark.parametrize("number", [-1, 2**31])
async def test_a_step_whose_ids_are_none_is_left_out_with_a_notice(number):
    class Odd(Talkative):
        async def encode(self, text):
            return (1, number)

    write = once(StepStreamed, lambda run, event: run.steering.write(run.tree.root, "twelve chars"))
    run = await Searched(write, policy=Odd(three_steps, piece=2)).run()
    assert [notice for notice in run.result.tree.notices if "left out" in notice and str(number) in notice]
    assert run.result.reason == "solved" and not [node for node in run.result.tree.nodes if node.by_hand]


# -- cutting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [True, False], ids=["inside the event", "after it"])
@pytest.mark.parametrize(("strategy", "variant"), EVERY)
async def test_a_cut_ends_what_is_written_and_the_strategy_notices_nothing(strategy, variant, inside):
    def cut(run, event):
        nodes = [run.tree.nodes[event.node]]
        run.steering.cut(nodes) if inside else asyncio.get_running_loop().call_soon(run.steering.cut, nodes)

    last = {"cot": 1}.get(strategy, 3)
    cut_one = once(StepStreamed, cut, lambda run, event: event.node == last)
    run = await Searched(cut_one, strategy=strategy, variant=variant).run()
    tree = run.result.tree
    node = tree.nodes[last]
    assert (node.state, node.why, node.cut, node.pruned) == ("failed", CUT, True, True)
    assert run.result.reason == ("solved" if strategy != "cot" else "unsolved")
    assert spent(tree).completion == tree.counts.completion == run.policy.sampled


@pytest.mark.parametrize(("strategy", "variant"), EVERY)
async def test_nothing_below_a_cut_votes_or_is_begun(strategy, variant):
    begun = []

    def react(run, event):
        cut_first(run, event)
        if begun and isinstance(event, StepStarted):
            assert not run.tree.is_cut(run.tree.nodes[event.parent])

    def cut(run, event):
        begun.append(event.node)
        run.steering.cut([run.tree.nodes[event.node].path[0]])

    cut_first = once(StepFinished, cut, lambda run, event: run.tree.nodes[event.node].depth == 2)
    run = await Searched(react, strategy=strategy, variant=variant).run()
    tree = run.result.tree
    assert begun
    assert not [node for tally in run.result.votes for node in tally.solutions if tree.is_cut(tree.nodes[node])]
    assert not [node for node in tree.voters() if tree.is_cut(node)]


async def test_everything_can_be_cut():
    def cut(run, event):
        run.steering.cut(run.tree.root.children)

    run = await Searched(once(SolutionFound, cut)).run()
    assert (run.result.answer, run.result.reason) == (None, "unsolved")


async def test_a_cut_step_leaves_its_place_to_others_in_a_beam():
    policy = ScriptedPolicy(lambda path, draw: f"{'abcd'[draw]}{SEP}" if not path else "\\boxed{1}", counted=True)
    cut = once(StepScored, lambda run, event: run.steering.cut([run.tree.nodes[event.node]]))
    run = Searched(cut, policy=policy)
    run.prm = ScriptedPRM(lambda steps: {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.1}.get(steps[0][0], 0.5))
    await run.run()
    kept = run.of(NodesKept)[0].nodes
    assert [run.result.tree.nodes[node].text for node in kept] == [f"b{SEP}", f"c{SEP}"]


@pytest.mark.parametrize(("strategy", "variant"), EVERY)
@given(
    seed=st.integers(0, 50),
    cuts=st.lists(
        st.tuples(st.integers(2, 90), st.sampled_from(["cut", "cut writing"]), st.integers(0, 999), st.booleans()),
        min_size=1,
        max_size=4,
    ),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_strategy_decides_alike_when_it_runs_again_over_the_recorded_tree(
    strategy, variant, seed, cuts, tmp_path_factory
):
    path = tmp_path_factory.mktemp("run") / "run.jsonl"
    result, _, _ = await steered(cuts, plan(strategy, variant=variant, speculation="off"), seed, path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    policy, prm = models(seed)
    async with Solver(policy, prm) as solver:
        again = await solver.resume(path)
    assert policy.requests == []
    assert again.votes == result.votes


# -- restoring ---------------------------------------------------------------------------------------------------------


async def test_the_search_goes_on_from_a_step_that_was_restored(tmp_path):
    def react(run, event):
        if isinstance(event, NodesPruned) and event.by == "strategy" and not run.of(BranchBegun):
            run.steering.restore(run.tree.nodes[event.nodes[0]])

    run = await Searched(react).run(tmp_path / "run.jsonl")
    tree = run.result.tree
    (branch,) = tree.branches
    assert branch.id in tree.restored and not branch.pruned and branch.why == "restored by hand"
    assert any(
        branch in node.path for tally in run.result.votes for node in map(tree.nodes.__getitem__, tally.solutions)
    )
    assert picture(load(tmp_path / "run.jsonl")) == picture(tree)


async def test_a_branch_begins_once_also_if_it_was_cut_and_restored_again():
    done = []

    def react(run, event):
        if not isinstance(event, StepFinished) or run.tree.nodes[event.node].depth != 2 or len(done) > 3:
            return
        done.append(event.node)
        node = run.tree.root.children[0]
        run.steering.cut([node])
        run.steering.restore(node)

    run = await Searched(react).run()
    assert len(done) > 1
    assert len(run.of(BranchBegun)) == 1
    tree = run.result.tree
    assert any(tree.root.children[0] in node.path for node in tree.voters())


async def test_a_restored_solution_votes_again():
    def restore(run, event):
        run.steering.cut([run.tree.nodes[event.node]])
        run.steering.restore(run.tree.nodes[event.node])

    run = await Searched(once(SolutionFound, restore), strategy="best-of-n").run()
    assert sum(len(tally.solutions) for tally in run.result.votes) == 4
    assert not run.of(BranchBegun)


async def test_a_strategy_does_not_prune_again_what_a_person_restored(tmp_path):
    def react(run, event):
        if isinstance(event, NodesPruned) and event.by == "strategy" and not run.tree.restored:
            run.steering.restore(run.tree.nodes[event.nodes[0]])

    path = tmp_path / "run.jsonl"
    await Searched(react).run(path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    async with Solver(
        Talkative(three_steps, piece=2), ScriptedPRM(lambda steps: 0.25 + len(steps[-1]) / 1000)
    ) as solver:
        result = await solver.resume(path)
    assert not [id for id in result.tree.restored if result.tree.nodes[id].pruned]


# -- changing the plan -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["beam", "dvts", "best-of-n", "majority", "cot"])
@pytest.mark.parametrize("before", ["beam", "dvts", "best-of-n", "cot"])
async def test_another_strategy_goes_on_over_the_same_tree(before, after, tmp_path):
    change = once(
        SolutionFound, lambda run, event: run.steering.change(run.tree.plan.replace(strategy=after, n=4, m=2))
    )
    run = await Searched(change, strategy=before, n=8, m=4, vote="prm-vote").run(tmp_path / "run.jsonl")
    tree = run.result.tree
    assert run.result.reason == "solved"
    assert tree.plan.strategy == run.result.finished.plan.strategy == after
    filled = [(node.parent.id, node.group, node.slot) for node in tree.nodes[1:] if node.state == "done"]
    assert len(filled) == len(set(filled))
    if before != after:
        assert {event.error for event in run.of(StepFailed)} <= {CHANGED}
    assert spent(tree).completion == tree.counts.completion == run.policy.sampled
    assert picture(load(tmp_path / "run.jsonl")) == picture(tree)


async def test_score_and_vote_change_without_a_step_being_written_anew():
    change = once(
        SolutionFound, lambda run, event: run.steering.change(run.tree.plan.replace(vote="majority", score="min"))
    )
    run = await Searched(change, strategy="best-of-n").run()
    assert not run.of(StepFailed)
    assert (run.result.finished.plan.vote, run.result.finished.plan.score) == ("majority", "min")
    assert all(tally.weight == len(tally.solutions) for tally in run.result.votes)


async def test_sampling_and_limits_count_at_once():
    hot = Sampling(temperature=1.5)
    change = once(
        NodesKept, lambda run, event: run.steering.change(run.tree.plan.replace(sampling=hot, step_tokens=99))
    )
    run = await Searched(change, speculation="off").run()
    first, rest = run.policy.requests[:4], run.policy.requests[4:]
    assert {(each.sampling.temperature, each.max_tokens) for each in first} == {(0.7, 2048)}
    assert {(each.sampling, each.max_tokens) for each in rest} == {(hot, 99)}
    assert not run.of(StepFailed)


async def test_a_changed_budget_ends_the_search():
    change = once(NodesKept, lambda run, event: run.steering.change(run.tree.plan.replace(budget=Budget(tokens=1))))
    run = await Searched(change).run()
    assert (run.result.reason, run.result.finished.detail) == ("budget", "the budget of 1 tokens is spent")


async def test_what_the_old_strategy_pruned_is_taken_back_and_cuts_stay():
    cut = []

    def react(run, event):
        if isinstance(event, NodesPruned) and event.by == "strategy" and not cut:
            cut.append(run.tree.root.children[0])
            run.steering.cut(cut)
            run.steering.change(run.tree.plan.replace(strategy="best-of-n"))

    run = await Searched(react).run()
    given_up = [node for node in run.result.tree.nodes if node.pruned]
    assert given_up == cut


async def test_a_plan_that_changes_nothing_is_no_event():
    run = await Searched(once(NodesKept, lambda run, event: run.steering.change(run.tree.plan))).run()
    assert not run.of(PlanChanged)


async def test_plans_that_this_search_cannot_follow():
    said = []

    def change(run, event):
        for kind, changes in ((UnknownName, {"strategy": "bim"}), (PlanError, {"strategy": "beam", "n": 3, "m": 2})):
            with pytest.raises(kind) as caught:
                run.steering.change(run.tree.plan.replace(**changes))
            said.append(str(caught.value))
        with pytest.raises(PlanError) as caught:
            run.steering.change(run.tree.plan.replace(strategy="beam"))
        said.append(str(caught.value))

    run = await Searched(once(StepFinished, change), strategy="majority", vote="majority").run()
    assert "did you mean 'beam'" in said[0] and "use n=2 or n=4" in said[1] and "was begun without one" in said[2]
    assert not run.of(PlanChanged)


# -- single steps and rounds -------------------------------------------------------------------------------------------


async def quiet(run):
    """Wait until the search makes no more progress."""
    heard = -1
    while heard != len(run.events) or run.policy.running:
        heard = len(run.events)
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.mark.parametrize("strategy", ["beam", "dvts", "best-of-n"])
async def test_one_step_and_one_round_at_a_time(strategy):
    run = Searched(lambda run, event: None, strategy=strategy)
    begins = asyncio.Event()

    def steer(search):
        run.search = search
        search.pause()
        begins.set()

    run.steer = steer
    task = asyncio.create_task(run.run())
    await begins.wait()
    begun = [len(run.of(StepStarted))]
    for let in (run.search.step, run.search.step, run.search.round):
        let()
        if strategy == "best-of-n":
            for _ in range(50):
                await asyncio.sleep(0)
        else:
            await quiet(run)
        begun.append(len(run.of(StepStarted)))
    assert begun == [0, 1, 2, 4 if strategy == "beam" else 6]
    assert [event.round for event in run.of(SearchStepped)] == [False, False, True]
    run.search.go_on()
    await task
    assert run.result.reason == "solved"


async def test_a_step_pauses_a_search_that_runs():
    def react(run, event):
        if isinstance(event, StepStarted) and not run.of(SearchStepped):
            run.search.step()
            asyncio.get_running_loop().call_later(0, run.search.go_on)

    run = await Searched(react).run()
    assert len(run.of(SearchPaused)) == len(run.of(SearchContinued)) == 1


def timed(*events):
    plain = SearchStarted(
        problem="p",
        plan=Plan(),
        policy=ScriptedPolicy(three_steps).info,
        prm=None,
        prompt_ids=(1,),
        version="",
        created="",
    )
    return SearchTree.fold([plain, *events])


def test_paused_time_is_added_up():
    assert timed(SearchPaused(t=2), SearchContinued(t=5), SearchPaused(t=6), SearchPaused(t=7)).held == 4
    assert timed(SearchPaused(t=2), SearchContinued(t=5), SearchContinued(t=9)).held == 3


async def test_a_pause_does_not_spend_the_time_limit():
    clock = [0.0]
    journal = EventLog(timed(), clock=lambda: clock[0])
    journal.append(PlanChanged(plan=Plan(budget=Budget(seconds=5))))
    journal.append(SearchPaused())
    watch = StopSignal(journal)
    task = asyncio.create_task(watch.run())
    clock[0] = 100.0
    watch.recheck()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    journal.append(SearchContinued(t=journal.now))
    watch.recheck()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    clock[0] = 105.0
    watch.recheck()
    with pytest.raises(Stopped, match="time limit of 5 s"):
        await task


# -- forks -------------------------------------------------------------------------------------------------------------


async def forked(tmp_path, choose, plan=None, **options):
    """Return a search, its fork at the node that `choose` selects, and the fork's policy."""
    first = await Searched(lambda run, event: None).run(tmp_path / "first.jsonl")
    policy, node = Talkative(three_steps, piece=2), choose(first.result.tree)
    async with Solver(policy, first.prm) as solver:
        result = await solver.fork(first.result.tree, node, plan, record=tmp_path / "fork.jsonl", **options)
    assert policy.running == 0
    assert picture(load(tmp_path / "fork.jsonl")) == picture(result.tree)
    return first, node, result, policy


@pytest.mark.parametrize(("strategy", "variant"), EVERY)
async def test_a_fork_begins_with_the_path_that_was_there_and_pays_nothing_for_it(strategy, variant, tmp_path):
    other = plan(strategy, variant=variant)
    first, node, result, policy = await forked(tmp_path, lambda tree: tree.solutions[0].path[1], other)
    tree = result.tree
    origin = tree.start.origin
    assert (origin.run, origin.node, origin.steps) == (first.result.tree.start.run, node.id, 2)
    assert tree.search_root is tree.nodes[2]
    assert [(step.text, step.score, step.usage) for step in tree.nodes[1:3]] == [
        (step.text, step.score, Usage()) for step in node.path
    ]
    assert tree.counts.completion == policy.sampled
    assert tree.unique_tokens() == 1 + len(node.path_ids) + policy.sampled
    assert result.reason == "solved"
    assert all(tree.nodes[id].path[:2] == tree.nodes[1:3] for tally in result.votes for id in tally.solutions)
    assert all(len(request.ids) > len(node.path_ids) for request in policy.requests)


async def test_a_fork_at_the_root_is_the_search_anew(tmp_path):
    _, _, result, _ = await forked(tmp_path, lambda tree: tree.root)
    assert result.tree.start.origin.steps == 0
    assert result.tree.plan == plan()
    assert result.reason == "solved"


async def test_a_fork_under_another_problem_is_scored_anew(tmp_path):
    _, _, result, _ = await forked(tmp_path, lambda tree: tree.solutions[0].path[0], problem="q")
    copied = result.tree.nodes[1]
    assert (result.problem, result.tree.start.problem) == ("q", "q")
    assert copied.score is not None
    assert result.tree.counts.prm_computed == sum(node.score is not None for node in result.tree.nodes)


async def test_a_fork_is_folded_into_the_tree_that_is_given(tmp_path):
    tree = SearchTree()
    _, _, result, _ = await forked(tmp_path, lambda tree: tree.root, into=tree)
    assert result.tree is tree


async def test_forks_that_cannot_be(tmp_path):
    first = await Searched(lambda run, event: None).run()
    tree = first.result.tree
    async with Solver(Talkative(three_steps), first.prm) as solver:
        with pytest.raises(UsageError, match="ended its answer: fork at a step before it"):
            await solver.fork(tree, tree.solutions[0])
        tree.nodes[1].state = "failed"
        with pytest.raises(UsageError, match=r"step 0\.0 is not whole"):
            await solver.fork(tree, tree.nodes[1])
        solver.policy.info = type(solver.policy.info)("other", 1, 100)
        with pytest.raises(UsageError, match="made with the policy scripted, not other"):
            await solver.fork(tree, tree.root)


async def test_every_prefix_of_a_fork_resumes_once_its_path_is_there(tmp_path):
    _, _, result, _ = await forked(tmp_path, lambda tree: tree.solutions[0].path[1])
    lines = (tmp_path / "fork.jsonl").read_bytes().splitlines(keepends=True)
    for end in range(1, len(lines), 5):
        path = tmp_path / f"{end}.jsonl"
        path.write_bytes(b"".join(lines[:end]))
        async with Solver(
            Talkative(three_steps, piece=2), ScriptedPRM(lambda steps: 0.25 + len(steps[-1]) / 1000)
        ) as solver:
            if end < 6:
                with pytest.raises(UsageError, match="ends within the path that it was forked with"):
                    await solver.resume(path)
            else:
                again = await solver.resume(path)
                assert (again.answer, again.reason) == (result.answer, result.reason)


# -- resuming ----------------------------------------------------------------------------------------------------------


async def resumed(path, lines, policy=None, **options):
    path.write_bytes(b"".join(lines))
    policy = policy or Talkative(three_steps, piece=2)
    async with Solver(policy, ScriptedPRM(lambda steps: 0.25 + len(steps[-1]) / 1000)) as solver:
        result = await solver.resume(path, **options)
    assert policy.running == 0
    assert picture(load(path)) == picture(result.tree)
    return result


def lines_until(path, found):
    """Return the lines of the recording up to and including the first one that contains `found`."""
    lines = path.read_bytes().splitlines(keepends=True)
    return lines[: next(place for place, line in enumerate(lines) if found in line) + 1]


async def test_what_was_asked_for_by_hand_is_asked_for_again(tmp_path):
    ask = once(StepScored, lambda run, event: run.steering.expand(run.tree.nodes[event.node], 1))
    await Searched(ask).run(tmp_path / "run.jsonl")
    result = await resumed(tmp_path / "cut.jsonl", lines_until(tmp_path / "run.jsonl", b'"by":"person"'))
    asked = [node for node in result.tree.nodes if node.by_hand]
    assert [node.state for node in asked] == ["failed", "done"]
    assert asked[0].slot == asked[1].slot
    assert asked[1].score is not None


async def test_a_written_step_gets_its_score_and_its_branch(tmp_path):
    write = once(StepStreamed, lambda run, event: run.steering.write(run.tree.root, "mine"))
    await Searched(write).run(tmp_path / "run.jsonl")
    result = await resumed(tmp_path / "cut.jsonl", lines_until(tmp_path / "run.jsonl", b'"text":"mine'))
    (mine,) = result.tree.branches
    assert mine.by_hand and mine.score is not None
    assert any(mine in node.path for node in result.tree.voters())


async def test_a_restored_step_gets_its_branch(tmp_path):
    def react(run, event):
        if isinstance(event, NodesPruned) and not run.tree.restored:
            run.steering.restore(run.tree.nodes[event.nodes[0]])

    await Searched(react).run(tmp_path / "run.jsonl")
    result = await resumed(tmp_path / "cut.jsonl", lines_until(tmp_path / "run.jsonl", b"restored by hand"))
    assert len(result.tree.branches) == 1
    assert result.tree.branches[0].children


async def test_a_changed_plan_holds_and_may_be_given_another_budget(tmp_path):
    change = once(
        NodesKept, lambda run, event: run.steering.change(run.tree.plan.replace(strategy="majority", vote="majority"))
    )
    await Searched(change).run(tmp_path / "run.jsonl")
    lines = lines_until(tmp_path / "run.jsonl", b"plan_changed")
    result = await resumed(tmp_path / "cut.jsonl", lines, budget=Budget(tokens=10_000))
    assert (result.tree.plan.strategy, result.tree.plan.budget.tokens) == ("majority", 10_000)
    assert result.finished.plan.strategy == "majority"


async def test_a_recording_is_folded_into_the_tree_that_is_given(tmp_path):
    await Searched(lambda run, event: None).run(tmp_path / "run.jsonl")
    lines = (tmp_path / "run.jsonl").read_bytes().splitlines(keepends=True)
    for some in (lines, lines[:20]):
        tree = SearchTree()
        result = await resumed(tmp_path / "cut.jsonl", some, tree=tree)
        assert result.tree is tree


# -- refused actions ---------------------------------------------------------------------------------------------------


def whole_and_ended(tree):
    return next(node for node in tree.nodes if node.terminal)


@pytest.mark.parametrize(
    ("do", "says"),
    [
        (lambda hand, tree: hand.expand(tree.root, 0), "0 steps cannot be asked for"),
        (lambda hand, tree: hand.expand(whole_and_ended(tree)), "ended its answer: nothing can follow it"),
        (lambda hand, tree: hand.write(whole_and_ended(tree), "x"), "ended its answer: nothing can follow it"),
        (lambda hand, tree: hand.write(tree.root, "  \n"), "says nothing"),
        (lambda hand, tree: hand.write(tree.root, "a\0b"), "says nothing"),
        (lambda hand, tree: hand.cut([tree.root]), "stop the search instead"),
        (lambda hand, tree: hand.cut([]), "is cut already"),
        (lambda hand, tree: (hand.cut([tree.nodes[1]]), hand.cut([tree.nodes[1]])), "is cut already"),
        (lambda hand, tree: (hand.cut([tree.nodes[1]]), hand.expand(tree.nodes[1])), "is cut: restore it first"),
        (lambda hand, tree: hand.restore(whole_and_ended(tree)), "was not given up"),
        (
            lambda hand, tree: (
                hand.cut([whole_and_ended(tree)]),
                hand.cut([whole_and_ended(tree).parent]),
                hand.restore(whole_and_ended(tree)),
            ),
            "stands below a cut: restore what was cut above it first",
        ),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(do, says):
    def react(run, event):
        with pytest.raises(UsageError, match=says):
            do(run.steering, run.tree)

    await Searched(once(SolutionFound, react), strategy="best-of-n").run()


async def test_steps_that_are_not_whole_or_only_repeat_others():
    said = []

    def react(run, event):
        for node in run.tree.nodes[1:]:
            try:
                run.steering.expand(node, 1)
            except UsageError as error:
                said.append(str(error))

    policy = Talkative(lambda path, draw: f"same{SEP}" if not path else "\\boxed{1}", piece=2)
    policy.faults = [BackendError("reset")]
    many = once(StepScored, react, lambda run, event: run.tree.nodes[event.node].depth == 1)
    run = await Searched(many, policy=policy).run()
    assert any("failed: choose another one" in sentence for sentence in said)
    assert any("says the same as step" in sentence for sentence in said)
    writing = await Searched(once(StepStreamed, react), policy=Talkative(three_steps, piece=2)).run()
    assert any("is still being written" in sentence for sentence in said)
    assert run.result.answer and writing.result.answer


async def test_a_policy_that_takes_no_words():
    def react(run, event):
        with pytest.raises(UsageError, match="cannot take a step in words"):
            run.steering.write(run.tree.root, "mine")

    await Searched(once(StepStarted, react), policy=ScriptedPolicy(three_steps)).run()


async def test_nothing_can_be_done_once_the_search_is_over():
    run = await Searched(lambda run, event: None).run()
    heard = len(run.events)
    for do in (
        lambda: run.steering.expand(run.tree.root),
        lambda: run.steering.cut([run.tree.nodes[1]]),
        lambda: run.steering.restore(run.tree.nodes[1]),
        lambda: run.steering.change(Plan()),
        lambda: run.steering.write(run.tree.root, "x"),
    ):
        with pytest.raises(UsageError, match="the search is over"):
            do()
    run.search.pause()
    run.search.step()
    run.search.round()
    run.search.go_on()
    assert len(run.events) == heard


async def test_strategies_may_look_below_a_node(monkeypatch):
    class Below:
        name, summary, needs_scores, uses_width = "below", "", False, False

        async def run(self, search):
            (first,) = await search.expand([search.root], 1)
            below = search.below(first)
            assert (below.root, search.root, below.tree) == (first, search.tree.root, search.tree)
            return await below.rollout(below.root, 2)

    monkeypatch.setattr(tts_tui.solver.registry, "strategy", lambda name: Below())
    run = await Searched(lambda run, event: None, vote="majority").run()
    assert [node.depth for node in run.result.tree.solutions] == [3, 3]


# -- random actions ----------------------------------------------------------------------------------------------------

ACTS = st.lists(
    st.tuples(st.integers(2, 120), st.sampled_from(KINDS), st.integers(0, 10**6), st.booleans()), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    acts=ACTS,
    seed=st.integers(0, 20),
    cut=st.lists(st.floats(0, 1), min_size=2, max_size=2),
    speculation=st.sampled_from(["on", "off"]),
)
@pytest.mark.parametrize(("strategy", "variant"), EVERY)
async def test_any_history_replays_resumes_and_leaves_nothing_behind(
    strategy, variant, acts, seed, cut, speculation, tmp_path_factory
):
    path = tmp_path_factory.mktemp("run") / "run.jsonl"
    before = asyncio.all_tasks()
    result, person, policy = await steered(acts, plan(strategy, variant=variant, speculation=speculation), seed, path)
    tree = result.tree
    assert person.broken == []
    assert policy.running == 0
    assert asyncio.all_tasks() == before
    assert result.reason in ("solved", "unsolved")
    assert picture(load(path)) == picture(SearchTree.fold(person.events)) == picture(tree)
    assert spent(tree).completion == tree.counts.completion == policy.sampled
    assert not [node for tally in result.votes for node in tally.solutions if tree.is_cut(tree.nodes[node])]
    lines = path.read_bytes().splitlines(keepends=True)
    for share in cut:
        part = path.with_name(f"{share}.jsonl")
        part.write_bytes(b"".join(lines[: 1 + int(share * (len(lines) - 1))]))
        policy, prm = models(seed)
        async with Solver(policy, prm) as solver:
            again = await solver.resume(part)
        assert again.reason in ("solved", "unsolved")
        assert policy.running == 0
        assert picture(load(part)) == picture(again.tree)
