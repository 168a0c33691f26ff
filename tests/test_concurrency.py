"""Concurrent tasks: a failure ends all of them, and is raised unchanged."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest

from tts_tui.concurrency import concurrently, task_group


async def give(value, turns=0):
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


async def test_results_come_in_order_whatever_is_done_first():
    assert await concurrently(give(number, 5 - number) for number in range(5)) == [0, 1, 2, 3, 4]
    assert await concurrently([]) == []


async def test_a_failure_ends_the_others_before_it_is_raised_as_it_is():
    cause, ended = KeyError("cause"), []

    async def waits(name):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async def fails():
        await asyncio.sleep(0)
        raise ValueError("this one") from cause

    before = asyncio.all_tasks()
    with pytest.raises(ValueError, match="this one") as caught:
        await concurrently([waits("a"), fails(), waits("b")])
    assert sorted(ended) == ["a", "b"] and asyncio.all_tasks() == before
    assert caught.value.__cause__ is cause


async def test_the_first_of_several_failures_is_told():
    async def fails(turns):
        await give(None, turns)
        raise ValueError(turns)

    with pytest.raises(ValueError, match="1"):
        await concurrently([fails(3), fails(1), fails(1)])


async def test_whoever_is_cancelled_ends_what_it_waits_for():
    running, both = [], asyncio.Event()

    async def waits():
        running.append(1)
        if len(running) == 2:
            both.set()
        try:
            await asyncio.Event().wait()
        finally:
            running.pop()

    task = asyncio.create_task(concurrently([waits(), waits()]))
    await both.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not running


async def test_a_failure_of_the_body_is_told_as_it_is_too():
    with pytest.raises(LookupError):
        async with task_group() as group:
            group.create_task(asyncio.Event().wait())
            raise LookupError


def test_nowhere_does_a_failure_leave_others_running():
    """`gather` raises the first failure while the other tasks keep running, unless it waits for all of them."""
    root = Path(__file__).resolve().parents[1]
    files = [file for part in ("tts_tui", "strategies", "backends") for file in (root / part).rglob("*.py")]
    for file in files:
        for call in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "asyncio.gather":
                assert "return_exceptions" in {keyword.arg for keyword in call.keywords}, f"{file}:{call.lineno}"
