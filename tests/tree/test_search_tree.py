"""The tree is the fold of the events; events survive their JSON form."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Plan, Sampling, SearchTree, Solver, Usage, default_plan, registry
from tts_tui.errors import PlanError, RecordCorrupt, UnknownName, UsageError
from tts_tui.profiles import names, plan_defaults, profile, vote_defaults
from tts_tui.profiles.prompts import FAMILIES, family_of, messages
from tts_tui.tree.events import NodesPruned, Notice, StepFinished, StepMerged, StepStreamed, decode, encode


@pytest.fixture
async def tree():
    policy = ScriptedPolicy(lambda path, draw: f"s{draw % 9}\n\n" if len(path) < 2 else "\\boxed{1}")
    async with Solver(policy, ScriptedPRM(lambda steps: 0.5)) as solver:
        return (await solver.solve("p", Plan(strategy="beam", n=8, m=4))).tree


async def test_paths_labels_depths_and_values(tree):
    leaf = tree.solutions[0]
    assert leaf.path_text == "".join(node.text for node in leaf.path)
    assert (leaf.depth, len(leaf.label.split("."))) == (3, 4)
    assert leaf.scores == [0.5] * 3
    assert (leaf.value, tree.root.value) == (0.5, -1.0)
    assert (tree.root.depth, tree.root.label, tree.root.path_ids) == (0, "0", [])
    assert len(tree) == len(tree.nodes) - 1
    assert repr(leaf).startswith(f"<Node {leaf.id} done")


async def test_a_perfect_cache_would_compute_the_prompt_and_every_step_once(tree):
    assert tree.unique_tokens() == 1 + tree.counts.completion
    assert tree.counts.cached_share == 1.0


def test_a_tree_that_has_not_begun():
    tree = SearchTree()
    assert len(tree) == 0
    assert tree.counts.cached_share == 0.0
    with pytest.raises(RecordCorrupt, match="not a recording of a search"):
        _ = tree.start
    with pytest.raises(RecordCorrupt, match="instead of search_started"):
        tree.apply(Notice(message="x"))


@pytest.mark.parametrize("event", [NodesPruned(nodes=(1, 0), why="worse"), StepMerged(node=0, into=1)])
def test_nothing_gives_up_the_problem_itself(tree, event):
    with pytest.raises(RecordCorrupt, match="the problem itself was"):
        tree.apply(event)


TEXTS = st.text(max_size=30)
COUNTS = st.integers(0, 10**6)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS)
IDS = st.lists(st.integers(0, 200_000), max_size=9).map(tuple)


@given(
    st.one_of(
        st.builds(StepStreamed, node=COUNTS, text=TEXTS, usage=USAGES, t=st.floats(0, 1e6)),
        st.builds(
            StepFinished, node=COUNTS, ids=IDS, text=TEXTS, finish=st.sampled_from(["step", "eos"]), usage=USAGES
        ),
        st.builds(Notice, message=TEXTS),
    )
)
def test_an_event_is_one_line_and_reads_back_the_same(event):
    line = encode(event)
    assert b"\n" not in line
    assert decode(line) == event


def test_a_line_that_is_no_event():
    for line in (b"", b"{}", b'{"event": "unheard_of"}', b"\xff", b'{"event": "notice", "message": 3}'):
        with pytest.raises(RecordCorrupt, match="not an event"):
            decode(line)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"score": "mim"}, "did you mean 'min'"),
        ({"vote": "prm-mix"}, "did you mean 'prm-max'"),
        ({"variant": "papr"}, "did you mean 'paper'"),
        ({"n": 0}, "n must be at least 1"),
        ({"max_depth": -1}, "max_depth must be at least 1"),
        ({"sampling": Sampling(temperature=-1.0)}, "temperature must not be negative"),
        ({"sampling": Sampling(temperature=math.nan)}, "temperature must not be negative"),
        ({"sampling": Sampling(top_p=0.0)}, "top_p must be in"),
        ({"separator": ""}, "separator must not be empty"),
    ],
)
def test_plans_that_cannot_be(settings, says):
    with pytest.raises((PlanError, UnknownName), match=says):
        Plan(**settings)


def test_default_plans():
    assert default_plan("cot").sampling.temperature == 0.0
    assert default_plan("majority").vote == "majority"
    assert default_plan("beam", n=8).n == 8


def test_specs_that_name_nothing():
    with pytest.raises(UnknownName, match="did you mean 'embedded'"):
        registry.policy("embeded")
    with pytest.raises(UnknownName, match="known are"):
        registry.reward_model("zzz", ScriptedPolicy(lambda path, draw: ""))
    with pytest.raises(UsageError, match="hf:PATH"):
        registry.policy("hf:")
    assert registry.reward_model("none", ScriptedPolicy(lambda path, draw: "")) is None


def test_plug_ins_are_found_by_their_entry_points(monkeypatch):
    class Entry:
        def __init__(self, thing):
            self.thing = thing

        def load(self):
            return self.thing

    class Mine:
        name, summary, needs_scores, uses_width, run = "mine", "", False, False, None

    plugins = {
        "policies": {"server": Entry(lambda rest: f"policy at {rest}")},
        "reward_models": {"judge": Entry(lambda rest: f"judge {rest}")},
        "strategies": {"mine": Entry(Mine())},
    }
    monkeypatch.setattr(registry, "_entry_points", plugins.__getitem__)
    registry.strategies.cache_clear()
    assert registry.policy("server:x:1") == "policy at x:1"
    assert registry.reward_model("judge:y", None) == "judge y"
    assert registry.strategy("mine").name == "mine"
    registry.strategies.cache_clear()


def test_profiles_are_data_with_defaults():
    for name in names():
        assert profile(name)
    with pytest.raises(UnknownName):
        profile("none such")
    assert vote_defaults("none such") == plan_defaults("none such") == {}
    assert vote_defaults("embedded").keys() == {"score", "vote"}


def test_the_embedded_policy_is_not_let_run_away():
    assert plan_defaults("embedded") == {"step_tokens": 256, "total_tokens": 512}
    solver = Solver("embedded", "none")
    assert solver.plan("best-of-n").total_tokens == 512
    assert solver.plan("best-of-n", total_tokens=9).total_tokens == 9


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("meta-llama/Llama-3.2-1B-Instruct", "llama3"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen"),
        ("DeepSeek-R1-Distill-Qwen-1.5B", "r1-distill"),
        ("google/gemma-3-270m", "default"),
    ],
)
def test_prompt_families(name, family):
    assert family_of(name) == family
    chat = messages("Why?", family)
    assert chat[-1]["role"] == "user"
    assert chat[-1]["content"].startswith("Why?")
    assert FAMILIES[family] in "".join(message["content"] for message in chat)
    assert [message["role"] for message in chat] == (["user"] if family == "r1-distill" else ["system", "user"])
