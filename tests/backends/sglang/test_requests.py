"""Requests of a policy to an SGLang server: sampling parameters, seeds, and ends of steps."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from tests.fake_sglang import FakeSGLang
from tests.proxy import Fault, Proxy
from tests.scripted import ScriptedPRM
from tts_tui import Budget, Plan, Sampling, Solver, StepRequest, Usage
from tts_tui.backends.sglang.policy import SEEDS, SGLangPolicy, body
from tts_tui.errors import BackendBadResponse
from tts_tui.tree.events import StepFailed

PROBLEM = "What is 3 + 4?"
SAMPLING = {
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "sampling_seed",
}


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    """Waits as short as tests want them."""
    monkeypatch.setattr("tts_tui.search.search.BACKOFF", 0.01)


def score(steps):
    return 1 / len(steps)


async def chunks_of(url: str, **settings):
    """A continuation's chunks, with all that the policy has counted, and the body that was asked."""
    policy = SGLangPolicy(url)
    await policy.start()
    try:
        prompt = await policy.prompt(PROBLEM)
        request = StepRequest(prompt.ids, **{"sampling": Sampling(), "max_tokens": 100, "session": "s", **settings})
        async with aclosing(policy.stream(request)) as chunks:
            return [chunk async for chunk in chunks]
    finally:
        await policy.close()


def drawings(server: FakeSGLang) -> list[dict]:
    return [asked["sampling_params"] for asked in server.bodies("/generate")]


# -- sampling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rollout", [False, True])
@pytest.mark.parametrize("top_k", [20, -1, 0])
async def test_nothing_that_changes_a_draw_is_left_to_the_server(rollout, top_k):
    async with FakeSGLang() as server:
        await chunks_of(server.url, sampling=Sampling(0.5, 0.9, top_k), rollout=rollout, seed=2**40 + 3)
        (drawing,) = drawings(server)
    assert drawing.keys() >= SAMPLING | {"stop", "skip_special_tokens"}
    assert {name: drawing[name] for name in SAMPLING} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": top_k if top_k > 0 else -1,  # SGLang refuses 0
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "sampling_seed": 3,
    }


# -- seeds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["majority", "best-of-n", "beam", "dvts"])
async def test_no_two_samples_of_a_search_share_a_seed(strategy):
    reset = Fault(then="reset", after=2)
    async with FakeSGLang() as server, Proxy(server.url, None, reset, reset, None, reset) as proxy:
        events = []
        async with Solver(SGLangPolicy(proxy.url), ScriptedPRM(score)) as solver:
            await solver.solve(PROBLEM, Plan(strategy=strategy, n=16, m=4), sinks=[events.append])
        seeds = [drawing["sampling_seed"] for drawing in drawings(server)]
    assert [event for event in events if isinstance(event, StepFailed)], "nothing was tried again"
    assert len(seeds) >= 16 and len(set(seeds)) == len(seeds)
    assert all(0 <= seed < SEEDS for seed in seeds)


async def test_another_seed_of_the_plan_is_another_seed_of_every_request():
    async with FakeSGLang() as server:
        async with Solver(SGLangPolicy(server.url), ScriptedPRM(score)) as solver:
            for seed in (0, 1):
                await solver.solve(PROBLEM, Plan(strategy="beam", n=4, m=2, seed=seed))
        seeds = [drawing["sampling_seed"] for drawing in drawings(server)]
    assert len(set(seeds)) == len(seeds)


async def test_a_resumed_search_asks_with_the_same_seeds(tmp_path):
    plan, record = Plan(strategy="beam", n=4, m=2, speculation="off"), tmp_path / "run.jsonl"

    def asked(server):
        return {
            (tuple(one["input_ids"]), one["sampling_params"]["sampling_seed"]) for one in server.bodies("/generate")
        }

    async with FakeSGLang() as server:
        async with Solver(SGLangPolicy(server.url), ScriptedPRM(score)) as solver:
            result = await solver.solve(PROBLEM, plan)
        whole, size = asked(server), len(result.tree.start.prompt_ids)
    async with FakeSGLang() as server:
        async with Solver(SGLangPolicy(server.url), ScriptedPRM(score)) as solver:
            # Some way into the second of three rounds.
            budget = Budget(tokens=size + 6 * len("Step 1: 3 + 4 = 7"))
            first = await solver.solve(PROBLEM, plan.replace(budget=budget), record=record)
            assert first.reason == "budget"
        before = asked(server)
        async with Solver(SGLangPolicy(server.url), ScriptedPRM(score)) as solver:
            second = await solver.resume(record, budget=Budget())
        after = asked(server)
    assert second.reason == "solved" and before < after
    assert after == whole


@pytest.mark.parametrize(
    ("version", "seeded"),
    [("0.5.2", False), ("0.5.0rc2", False), ("0.5.3", True), ("0.5.23", True), ("", True), ("0.0.0.dev0", True)],
)
async def test_a_server_that_is_too_old_for_seeds_is_sent_none(version, seeded):
    async with FakeSGLang(server={"version": version}) as server:
        await chunks_of(server.url)
        (drawing,) = drawings(server)
    assert ("sampling_seed" in drawing) == seeded


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rollout", [False, True])
async def test_logits_that_are_no_numbers_end_no_step(rollout):
    late = []
    async with FakeSGLang() as server:
        server.broken = 1
        policy = SGLangPolicy(server.url)
        await policy.start()
        request = StepRequest((await policy.prompt(PROBLEM)).ids, Sampling(), 100, rollout=rollout, late=late.append)
        got = []
        with pytest.raises(BackendBadResponse, match="NaN happened") as raised:
            async with aclosing(policy.stream(request)) as chunks:
                async for chunk in chunks:
                    got += [chunk]
        await policy.close()
    assert raised.value.retryable and not any(chunk.finish or chunk.step_end for chunk in got)
    assert sum((chunk.usage for chunk in got), sum(late, Usage())) == policy.total
    assert policy.total.completion == 3


@pytest.mark.parametrize("strategy", ["best-of-n", "beam"])
async def test_a_step_that_logits_broke_off_is_tried_again(strategy):
    events = []
    async with FakeSGLang() as server:
        server.broken = 2
        policy = SGLangPolicy(server.url)
        async with Solver(policy, ScriptedPRM(score)) as solver:
            result = await solver.solve(PROBLEM, Plan(strategy=strategy, n=4, m=2), sinks=[events.append])
    failures = [event for event in events if isinstance(event, StepFailed)]
    assert (result.reason, result.answer) == ("solved", "7")
    assert len(failures) == 2 and all(failure.retry for failure in failures)
    assert all(node.text.endswith(("\n\n", "{7}")) for node in result.tree.nodes[1:] if node.state == "done")


# -- a real server -----------------------------------------------------------------------------------------------------


@pytest.mark.sglang
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rollout", [False, True])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.0), Sampling(0.5, 0.9, 20), Sampling(top_k=0)])
async def test_a_real_server_takes_every_parameter(tiny_server, sampling, rollout):
    for seed in (0, 2**31 - 1, 2**63 - 1):
        chunks = await chunks_of(tiny_server.url, sampling=sampling, rollout=rollout, max_tokens=8, seed=seed)
        assert chunks[-1].finish


@pytest.mark.sglang
@pytest.mark.timeout(600)
def test_a_real_server_refuses_what_it_does_not_know(tiny_server):
    """Which is why its taking all of the above says something."""
    import urllib.error

    asked = body(StepRequest((5, 6, 7), Sampling(), 4), 4) | {"stream": False}
    assert tiny_server.ask("/generate", asked)["meta_info"]["completion_tokens"]
    asked["sampling_params"]["samplng_seed"] = 1
    with pytest.raises(urllib.error.HTTPError):
        tiny_server.ask("/generate", asked)
