"""Searches on a real SGLang server: what is computed, what is counted, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import aclosing, contextmanager, suppress

import aiohttp
import pytest

from tests.backends.sglang.test_faults import until
from tests.scripted import ScriptedPRM
from tests.search.test_speculation import score
from tests.servers import PYTHON, Server, free_port
from tts_tui import Plan, Sampling, Solver, StepRequest, Usage
from tts_tui.backends.local.embedded import EmbeddedPolicy
from tts_tui.backends.sglang.policy import SGLangPolicy
from tts_tui.errors import TTSError
from tts_tui.tree.events import StepFailed

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(900)]

PROBLEM = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"
SHORT = {"n": 8, "m": 4, "step_tokens": 60, "total_tokens": 160, "max_depth": 4, "vote": "prm-max"}


def counters(server: Server) -> Usage:
    """What the server says that it has computed, reused and sampled since it began."""

    def total(name: str) -> int:
        rows = re.findall(rf"^sglang:{name}_total{{[^}}]*}} (\S+)$", server.ask("/metrics"), re.MULTILINE)
        return int(sum(map(float, rows)))

    prompt, cached = total("prompt_tokens"), total("cached_tokens")
    return Usage(prompt - cached, cached, total("generation_tokens"))


async def settled(server: Server) -> Usage:
    """The same once nothing runs any more; the counters lag behind."""
    before = None
    while (now := await asyncio.to_thread(counters, server)) != before:
        before = now
        await asyncio.sleep(0.5)
    return now


async def load(url: str) -> int:
    """Requests that run or wait."""
    async with aiohttp.ClientSession() as session, session.get(url + "/v1/loads") as reply:
        loads = (await reply.json())["loads"]
    return sum(load["num_running_reqs"] + load["num_waiting_reqs"] for load in loads)


async def flush(url: str) -> None:
    """Empties the server's cache."""
    async with aiohttp.ClientSession() as session:
        for _ in range(50):
            async with session.post(url + "/flush_cache") as reply:
                if reply.status == 200:
                    return
            await asyncio.sleep(0.1)
    raise AssertionError("the server never came to rest")


@pytest.mark.parametrize(
    ("strategy", "speculation"), [("best-of-n", "off"), ("beam", "off"), ("beam", "on"), ("dvts", "off")]
)
async def test_our_counts_are_the_server_s_and_the_tree_is_computed_once(strategy, speculation, smollm2_server):
    before = await settled(smollm2_server)
    await flush(smollm2_server.url)
    async with Solver(SGLangPolicy(smollm2_server.url), ScriptedPRM(score)) as solver:
        start = solver.policy.total
        result = await solver.solve(PROBLEM, Plan(strategy, speculation=speculation, **SHORT))
        ours = solver.policy.total - start
    tree, counts = result.tree, result.tree.counts
    assert Usage(counts.prompt_computed, counts.prompt_cached, counts.completion) == ours
    assert await settled(smollm2_server) - before == ours
    # The prompt once, and the last token of every other request's prompt, which no server keeps.
    if speculation == "off":
        requests = sum(1 for node in tree.nodes if node.usage is not None and node.usage.prompt_cached)
        assert len(tree.start.prompt_ids) <= counts.prompt_computed <= len(tree.start.prompt_ids) + requests
    assert await load(smollm2_server.url) == 0


async def test_a_child_s_prompt_is_the_exact_ids_of_its_path(smollm2_server):
    async with Solver(SGLangPolicy(smollm2_server.url), ScriptedPRM(score)) as solver:
        result = await solver.solve(PROBLEM, Plan("beam", speculation="off", **SHORT))
    paths = [node for node in result.tree.nodes if node.depth > 1 and node.state == "done"]
    assert paths
    for node in paths:
        path = len(result.tree.start.prompt_ids) + len(node.parent.path_ids)
        assert node.usage.prompt_cached == path - 1, "all but the last token came from the cache"


async def test_the_state_is_the_one_that_the_model_has_in_this_process_and_leaves_the_prompt_cached(smollm2_server):
    long = "Let x be 3. " * 40 + "Find x^2."
    server, local = SGLangPolicy(smollm2_server.url), EmbeddedPolicy()
    await server.start()
    await local.start()
    try:
        for problem in (PROBLEM, " 0 + 0?\n", long):
            await flush(smollm2_server.url)
            before, start = await settled(smollm2_server), server.total
            prompt = await server.prompt(problem)
            assert prompt == await local.prompt(problem)
            reading, again, here = (
                await server.encode_prompt(prompt),
                await server.encode_prompt(prompt),
                await local.encode_prompt(prompt),
            )
            assert reading.hidden_state == pytest.approx(here.hidden_state, abs=1e-5)
            assert again.hidden_state == pytest.approx(reading.hidden_state, abs=1e-6)
            assert reading.usage.prompt_computed == len(prompt.ids)
            assert again.usage.prompt_computed < len(prompt.ids)
            assert reading.usage + again.usage == server.total - start
            async with aclosing(server.stream(StepRequest(prompt.ids, Sampling(), 1))) as chunks:
                (first, *_) = [chunk async for chunk in chunks]
            assert first.usage.prompt_cached == len(prompt.ids) - 1
            assert await settled(smollm2_server) - before == server.total - start
    finally:
        await server.close()
        await local.close()


async def test_a_stream_that_is_closed_is_aborted_and_counted_to_the_last_token(tiny_server):
    before = await settled(tiny_server)
    policy = SGLangPolicy(tiny_server.url)
    await policy.start()
    prompt = await policy.prompt(PROBLEM)
    start, late = policy.total, []
    request = StepRequest(prompt.ids, Sampling(), 1500, rollout=True, session="s", late=late.append)
    read = Usage()
    async with aclosing(policy.stream(request)) as chunks:
        async for chunk in chunks:
            read += chunk.usage
            if read.completion >= 5:
                break
    assert await load(tiny_server.url) == 0
    assert sum(late, read) == policy.total - start
    await policy.close()
    assert await settled(tiny_server) - before == policy.total - start


async def test_after_a_cancelled_search_nothing_runs_on_the_server(tiny_server):
    async with Solver(SGLangPolicy(tiny_server.url), None) as solver:
        for delay in range(10):
            search = asyncio.create_task(solver.solve(PROBLEM, Plan("majority", n=16, total_tokens=900)))
            await asyncio.sleep(0.05 * delay)
            search.cancel()
            await asyncio.gather(search, return_exceptions=True)
            async with asyncio.timeout(1.0):
                while await load(tiny_server.url):
                    pass


@contextmanager
def router(workers):
    """SGLang's router over `workers`, as README starts it."""
    port = free_port()
    command = [PYTHON, "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--policy", "manual", "--health-check-interval-secs", "5", "--health-failure-threshold", "2"]
    command += ["--prometheus-port", str(free_port()), "--worker-urls", *(worker.url for worker in workers)]
    group = {"start_new_session": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **group) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


async def behind(url: str, workers: int) -> SGLangPolicy:
    """A policy on a router that knows all its workers, which takes it a moment."""
    async with asyncio.timeout(120):
        while True:
            policy = SGLangPolicy(url, stall=30.0)
            with suppress(TTSError):
                await policy.start()
                if len(policy.server.workers) == workers:
                    return policy
            await policy.close()
            await asyncio.sleep(1.0)


async def test_a_router_keeps_a_search_on_one_worker_and_outlives_the_other(tiny_server, tiny_model):
    with Server.start(tiny_model) as mortal, router([tiny_server, mortal]) as url:
        policy = await behind(url, 2)
        async with Solver(policy, None) as solver:
            plan = Plan("majority", n=8, vote="majority", total_tokens=60)
            results = [result async for result in solver.solve_many([PROBLEM + str(i) for i in range(4)], plan)]
            for result in results:
                size = len(result.tree.start.prompt_ids)
                assert result.tree.counts.prompt_computed <= size + 7, "the prompt was computed on one worker, once"
            events = []
            long = plan.replace(n=4, total_tokens=600)
            searches = [
                asyncio.create_task(solver.solve(PROBLEM + str(i), long, sinks=[events.append])) for i in range(4)
            ]
            await until(lambda: len(events) > 200, 60)
            await asyncio.to_thread(mortal.kill)
            for result in await asyncio.gather(*searches):
                failures = [event.error for event in events if isinstance(event, StepFailed)]
                assert result.reason in ("solved", "unsolved"), failures
                assert len(result.tree.solutions) == 4


def test_the_command_line_solves_on_a_server(smollm2_server):
    command = [sys.executable, "-m", "tts_tui", "solve", "What is 2 + 3?", "--policy", f"sglang:{smollm2_server.url}"]
    command += ["--strategy", "majority", "--prm", "none", "-n", "4", "--total-tokens", "100", "--display", "plain"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    assert "reused" in done.stdout and "Traceback" not in done.stderr
