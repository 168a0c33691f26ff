"""The number of threads follows what was faster, by made-up times."""

from __future__ import annotations

from tts_tui.backends.engine.threads import LAST, Threads, cores


def run(threads: Threads, seconds: dict[int, float], forwards: int, tokens: int = 32) -> list[int]:
    """The choices of `forwards` forwards that take `seconds` by number of threads."""
    chosen = []
    for _ in range(forwards):
        chosen.append(threads.choose(tokens))
        threads.took(tokens, chosen[-1], seconds[chosen[-1]])
    return chosen


def test_all_cores_where_they_are_faster() -> None:
    chosen = run(Threads([8, 1]), {8: 0.1, 1: 0.5}, 1000)
    assert chosen[:2] == [8, 1]
    assert chosen.count(1) < 12


def test_one_core_where_all_wait_for_each_other() -> None:
    chosen = run(Threads([8, 1]), {8: 5.0, 1: 0.5}, 1000)
    assert chosen.count(8) < 12


def test_it_notices_a_change_either_way() -> None:
    threads = Threads([8, 1])
    run(threads, {8: 0.1, 1: 0.5}, 100)
    slow = run(threads, {8: 5.0, 1: 0.5}, 2 * LAST)
    # What is in use becomes slower: that shows at once.
    assert 1 in slow[:5]
    assert slow[5:].count(8) < 12
    fast = run(threads, {8: 0.1, 1: 0.5}, 2 * LAST)
    assert fast[LAST + 1 :].count(1) < 12


def test_sizes_are_told_apart() -> None:
    threads = Threads([2, 1])
    run(threads, {2: 2.0, 1: 1.0}, 10, tokens=1)
    run(threads, {2: 1.0, 1: 2.0}, 10, tokens=256)
    assert (threads.choose(1), threads.choose(300)) == (1, 2)


def test_a_number_that_was_asked_for_is_kept() -> None:
    assert set(run(Threads([3]), {3: 1.0}, 100)) == {3}


def test_there_is_a_core() -> None:
    assert cores() >= 1
