"""A pause gate lets through exactly the tasks that it should."""

from __future__ import annotations

import asyncio

import pytest

from tts_tui.search.pausing import PauseGate


class Crowd:
    """Tasks that wait at a gate, and those that have passed it."""

    def __init__(self, gate):
        self.gate, self.passed, self.tasks = gate, [], []

    def come(self, *names):
        self.tasks += [asyncio.create_task(self._come(name)) for name in names]

    async def _come(self, name):
        await self.gate.wait()
        self.passed.append(name)


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def crowd():
    crowd = Crowd(PauseGate())
    yield crowd
    for task in crowd.tasks:
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)


async def test_everyone_passes_an_open_gate_and_nobody_a_closed_one(crowd):
    crowd.come("a", "b")
    await settle()
    assert crowd.passed == ["a", "b"]
    crowd.gate.close()
    crowd.come("c")
    await settle()
    assert (crowd.passed, crowd.gate.waiting, crowd.gate.is_open) == (["a", "b"], 1, False)
    crowd.gate.open()
    await settle()
    assert crowd.passed == ["a", "b", "c"]


async def test_a_step_lets_exactly_the_longest_waiting_through(crowd):
    crowd.gate.close()
    crowd.come("a", "b", "c")
    await settle()
    crowd.gate.step()
    await settle()
    assert crowd.passed == ["a"]
    crowd.gate.step()
    crowd.gate.step()
    crowd.gate.step()
    await settle()
    assert crowd.passed == ["a", "b", "c"]
    crowd.come("d", "e")
    await settle()
    assert crowd.passed == ["a", "b", "c", "d"]


async def test_a_round_lets_all_that_wait_through_and_no_more(crowd):
    crowd.gate.close()
    crowd.come("a", "b")
    await settle()
    crowd.gate.round()
    crowd.come("late")
    await settle()
    assert crowd.passed == ["a", "b"]


async def test_a_round_without_anyone_waiting_is_the_next_ones_that_come_together(crowd):
    crowd.gate.close()
    crowd.gate.round()
    await settle()
    crowd.come("a", "b", "c")
    await settle()
    crowd.come("late")
    await settle()
    assert crowd.passed == ["a", "b", "c"]


async def test_whoever_was_let_through_and_is_cancelled_gives_its_place_to_the_next(crowd):
    crowd.gate.close()
    crowd.come("a", "b")
    await settle()
    crowd.gate.step()
    crowd.tasks[0].cancel()
    await settle()
    assert crowd.passed == ["b"]
    crowd.come("c")
    await settle()
    assert crowd.passed == ["b"]


async def test_whoever_is_cancelled_while_it_waits_is_passed_over(crowd):
    crowd.gate.close()
    crowd.come("a", "b")
    await settle()
    crowd.tasks[0].cancel()
    await settle()
    crowd.gate.step()
    await settle()
    assert (crowd.passed, crowd.gate.waiting) == (["b"], 0)


async def test_opening_forgets_steps_that_nobody_took(crowd):
    crowd.gate.close()
    crowd.gate.step()
    crowd.gate.round()
    crowd.gate.open()
    crowd.gate.close()
    crowd.come("a")
    await settle()
    assert crowd.passed == []
