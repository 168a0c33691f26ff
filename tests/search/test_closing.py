"""Closing a solver ends its searches: their callers receive an error, and no caller's task is cancelled."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

import pytest

from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Plan, SearchTree, Solver, solve
from tts_tui.errors import SolverClosed, TTSError
from tts_tui.tree.events import SearchFinished

SEP = "\n\n"


@pytest.fixture
def policy():
    policy = ScriptedPolicy(lambda path, draw: f"step {draw % 9}{SEP}" if len(path) < 2 else "\\boxed{1}")
    policy.hold = asyncio.Event()
    return policy


@pytest.fixture
def solver(policy):
    return Solver(policy, ScriptedPRM(lambda steps: 0.5))


async def test_the_caller_of_solve_gets_an_error_and_goes_on_uncancelled(policy, solver):
    async def caller():
        try:
            await solver.solve("p", Plan(n=4), tree=tree)
        except SolverClosed:
            await asyncio.sleep(0)  # a cancellation that was only suppressed would be raised here
            return asyncio.current_task().cancelling()

    tree = SearchTree()
    async with solver:
        task = asyncio.create_task(caller())
        await policy.reached(4)
    assert policy.running == 0
    assert policy.closed
    assert await task == 0
    assert tree.finished.reason == "interrupted"
    assert issubclass(SolverClosed, TTSError)


async def test_other_work_in_the_caller_s_task_group_goes_on(policy, solver):
    done = []

    async def caller():
        with pytest.raises(SolverClosed):
            await solver.solve("p", Plan(n=4))
        done.append("caller")

    async def other(closed):
        await closed.wait()
        done.append("other")

    closed = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        await solver.__aenter__()
        group.create_task(caller())
        group.create_task(other(closed))
        await policy.reached(4)
        await solver.__aexit__(None, None, None)
        closed.set()
    assert sorted(done) == ["caller", "other"]


async def test_cancelling_the_caller_cancels_the_search_and_waits_for_its_end(policy, solver):
    async with solver:
        task = asyncio.create_task(solver.solve("p", Plan(n=4)))
        await policy.reached(4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert policy.running == 0


async def test_a_timeout_around_solve_stays_a_timeout(policy, solver):
    async with solver:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                search = asyncio.create_task(policy.reached(4))
                search.add_done_callback(lambda _: limit.reschedule(0))
                await solver.solve("p", Plan(n=4))
        assert policy.running == 0


async def test_a_caller_that_is_cancelled_while_the_solver_closes_stays_cancelled(policy, solver):
    async with solver:
        task = asyncio.create_task(solver.solve("p", Plan(n=4)))
        await policy.reached(4)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert policy.running == 0


async def test_a_caller_that_outlived_an_earlier_cancellation_hears_of_the_closing_all_the_same(policy, solver):
    async def caller(began):
        began.set()
        with suppress(asyncio.CancelledError):  # `uncancel` is omitted on purpose
            await asyncio.Event().wait()
        await solver.solve("p", Plan(n=4))

    async with solver:
        began = asyncio.Event()
        task = asyncio.create_task(caller(began))
        await began.wait()
        task.cancel()
        await policy.reached(4)
    with pytest.raises(SolverClosed):
        await task


async def test_a_stream_ends_with_the_error_after_its_last_event(policy, solver):
    heard = []

    async def listen():
        async with aclosing(solver.stream("p", Plan(n=4))) as events:
            async for event in events:
                heard.append(event)  # noqa: PERF401 (what comes before the error counts)

    async with solver:
        task = asyncio.create_task(listen())
        await policy.reached(4)
    with pytest.raises(SolverClosed):
        await task
    assert isinstance(heard[-1], SearchFinished)
    assert policy.running == 0


async def test_a_stream_that_was_left_open_stops_its_search_when_the_solver_is_left(policy, solver):
    async with solver:
        events = solver.stream("p", Plan(n=4))
        async for _ in events:
            break
        await policy.reached(4)
    assert policy.running == 0
    with pytest.raises(SolverClosed):
        async for _ in events:
            pass


async def test_solve_many_ends_with_the_error_and_begins_no_further_search(policy, solver):
    results = []

    async def listen():
        async with aclosing(solver.solve_many(["a", "b", "c", "d"], Plan(n=2), parallel=2)) as found:
            async for result in found:
                results.append(result)  # noqa: PERF401 (what comes before the error counts)

    async with solver:
        task = asyncio.create_task(listen())
        await policy.reached(4)
    with pytest.raises(SolverClosed):
        await task
    assert results == []
    assert len(policy.requests) == 4
    assert policy.running == 0


@pytest.mark.parametrize("method", ["solve", "fork", "resume", "stream", "solve_many"])
async def test_a_closed_solver_refuses_every_search(policy, solver, method, tmp_path):
    policy.hold.set()
    record = tmp_path / "run.jsonl"
    async with solver:
        tree = (await solver.solve("p", Plan(n=1), record=record)).tree
    asked = len(policy.requests)

    async def all_of(items):
        return [item async for item in items]

    calls = {
        "solve": lambda: solver.solve("p", Plan(n=1)),
        "fork": lambda: solver.fork(tree, tree.nodes[1]),
        "resume": lambda: solver.resume(record),
        "stream": lambda: all_of(solver.stream("p", Plan(n=1))),
        "solve_many": lambda: all_of(solver.solve_many(["p"], Plan(n=1))),
    }
    with pytest.raises(SolverClosed):
        await calls[method]()
    assert len(policy.requests) == asked
    async with solver:
        assert (await solver.solve("p", Plan(n=1))).answer == "1"


async def test_models_are_freed_even_if_the_closing_itself_is_cancelled(policy, solver):
    leaving = asyncio.Event()

    class Slow(ScriptedPRM):
        async def close(self):
            leaving.set()
            await asyncio.Event().wait()

    solver.prm = Slow(lambda steps: 0.5)
    policy.hold.set()

    async def session():
        async with solver:
            await solver.solve("p", Plan(n=1))

    task = asyncio.create_task(session())
    await leaving.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert policy.closed


def test_the_blocking_api_closes_its_models_after_the_search(policy):
    policy.hold = None
    result = solve("p", Plan(n=2, vote="majority"), policy=policy, prm=None)
    assert result.answer == "1"
    assert policy.running == 0
    assert policy.closed
