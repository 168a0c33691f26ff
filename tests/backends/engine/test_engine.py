"""The engine says what transformers says, runs no token twice, and never hangs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
import torch

from tests.backends import tiny
from tests.backends.tiny import Answer, ask, ids_of, likeliest, piece, request
from tts_tui.backends.engine import attention
from tts_tui.backends.engine import engine as engine_module
from tts_tui.backends.engine.engine import Engine
from tts_tui.backends.engine.kv_cache import RadixNode
from tts_tui.errors import BackendError, ContextExceeded
from tts_tui.protocols import Sampling, Usage

LLAMA, QWEN = tiny.llama(), tiny.qwen2()
MODELS = pytest.mark.parametrize("model", [LLAMA, QWEN], ids=["llama", "qwen2"])


@asynccontextmanager
async def running(model: torch.nn.Module, **options: object) -> AsyncIterator[Engine]:
    """An engine, closed in the end, with nothing left in it that nobody asked for."""
    engine = tiny.engine(copy_of(model), **options)  # type: ignore[arg-type]
    try:
        yield engine
        if engine._dead is None:
            stats = await engine.settle()
            tree = engine._scheduler.tree
            assert (stats.running, stats.queued) == (0, 0)
            assert stats.kv_used == tree.tokens == tree.evictable()
    finally:
        await engine.close()


def copy_of(model: torch.nn.Module) -> torch.nn.Module:
    """The engine changes a model's attention; the reference keeps its own."""
    other = type(model)(model.config.__class__.from_dict(model.config.to_dict())).eval()
    other.load_state_dict(model.state_dict())
    return other


def numbers(seed: int, n: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(256), k=n))


async def all_of(engine: Engine, requests: list) -> list[Answer]:
    return await asyncio.gather(*(ask(engine, one) for one in requests))


def check_greedy(model: torch.nn.Module, ids: tuple[int, ...], answer: Answer, n: int) -> None:
    """`answer` has `n` tokens, or ends before, and is what transformers says."""
    assert len(answer.ids) == n or answer.ids[-1] == tiny.EOS
    assert answer.ids == likeliest(model, ids, answer.ids)


async def check_states(engine: Engine, model: torch.nn.Module, prefixes: list) -> None:
    """The final normed states, against a whole forward of each prefix."""
    last = [1 + place % 4 for place in range(len(prefixes))]
    for ids, n, state in zip(prefixes, last, await engine.states(prefixes, last), strict=True):
        with torch.inference_mode():
            expected = model.get_decoder()(torch.tensor([ids]), use_cache=False).last_hidden_state[0, -n:]
        torch.testing.assert_close(state.features, expected, atol=1e-4, rtol=1e-4)


@MODELS
async def test_a_ragged_batch_says_what_transformers_says(model: torch.nn.Module) -> None:
    prompts = [numbers(i, n) for i, n in enumerate((1, 2, 7, 40, 41, 90, 150))]
    async with running(model) as engine:
        answers = await all_of(engine, [request(ids, 12) for ids in prompts])
        for ids, answer in zip(prompts, answers, strict=True):
            check_greedy(model, ids, answer, 12)
        await check_states(engine, model, [*prompts, *(p[:5] for p in prompts[3:])])


@MODELS
async def test_shared_prefixes_and_deep_trees(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    # Low enough that segments of all kinds occur: shared, copied, and long runs of one row.
    monkeypatch.setattr("tts_tui.backends.engine.attention.WORTH", 6)
    root = numbers(1, 60)
    leaves = [root]
    async with running(model) as engine:
        for depth in range(5):
            asked = [
                request(ids, 3 + k, sampling=Sampling(1.0), seed=100 * depth + k) for ids in leaves for k in range(3)
            ]
            answers = await all_of(engine, asked)
            paths = [one.ids + tuple(a.ids) for one, a in zip(asked, answers, strict=True)]
            await check_states(engine, model, paths)
            leaves = paths[:: 2 + depth]
        # The same again, but cold: everything in one forward that mixes reading and writing.
        finals = [request((*ids, 3, 4, 5), 4) for ids in leaves]
        for one, answer in zip(finals, await all_of(engine, finals), strict=True):
            check_greedy(model, one.ids, answer, 4)


@MODELS
async def test_long_writing_and_long_reading_side_by_side(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tts_tui.backends.engine.attention.WORTH", 16)
    prompts = [numbers(7, 5), numbers(8, 5), numbers(9, 180), numbers(9, 120) + numbers(10, 60)]
    async with running(model, chunk=16) as engine:
        answers = await all_of(engine, [request(ids, 60) for ids in prompts])
        for ids, answer in zip(prompts, answers, strict=True):
            check_greedy(model, ids, answer, 60)


async def test_the_operations_of_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_attend", attention.attend_by_matmul)
    monkeypatch.setattr(attention, "WORTH", 16)
    prompts = [numbers(7, 5), numbers(9, 180), numbers(9, 120) + numbers(10, 60)]
    async with running(LLAMA, chunk=16) as engine:
        for ids, answer in zip(prompts, await all_of(engine, [request(ids, 50) for ids in prompts]), strict=True):
            check_greedy(LLAMA, ids, answer, 50)


def test_a_plan_copies_no_common_keys_and_no_long_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "WORTH", 16)
    prompt = RadixNode(tuple(range(20)), list(range(20)), None, 1)
    scattered = RadixNode((1,) * 9, list(range(30, 48, 2)), prompt, 2)
    short = RadixNode((2,), [99], prompt, 3)
    tails = ([100], [*range(200, 220), 60], [], [])
    paths = ([prompt, scattered], [prompt, scattered], [prompt, scattered], [prompt, short])
    new = ([101], [61], [70], [80])
    sequences = [attention.Sequence_(*parts) for parts in zip(paths, tails, new, strict=True)]
    plan = attention.make_plan(sequences, 2, torch.float32, "cpu")
    found = [(s.first, s.last, s.keys if isinstance(s.keys, slice) else s.keys.tolist()) for s in plan.shared]
    assert found == [(0, 4, slice(0, 20)), (0, 3, scattered.slots), (1, 2, slice(200, 220))]
    assert plan.own is not None
    seen = [row[mask == 0].tolist() for row, mask in zip(plan.own.keys, plan.own.mask[:, 0, 0], strict=True)]
    assert seen == [[100, 101], [60, 61], [70], [99, 80]]
    assert (plan.own.queries, plan.write.tolist()) == (slice(None), [101, 61, 70, 80])


async def test_equal_cold_prompts_are_computed_once() -> None:
    ids = numbers(2, 100)
    async with running(LLAMA, chunk=32) as engine:
        answers = await all_of(engine, [request(ids, 5, seed=k) for k in range(8)])
        costs = sorted((a.usage.prompt_computed, a.usage.prompt_cached) for a in answers)
        assert costs == [(0, 100)] * 7 + [(100, 0)]
        assert {a.usage.completion for a in answers} == {5}
        stats = await engine.settle()
        assert stats.computed == 100 + 8 * 5
        assert stats.sampled == 8 * 5


async def test_common_beginnings_of_cold_prompts_are_computed_once() -> None:
    common = numbers(3, 50)
    asked = [request((*common, 200 + k, 7, 8), 2) for k in range(6)]
    async with running(LLAMA, chunk=512) as engine:
        answers = await all_of(engine, asked)
        assert sum(a.usage.prompt_computed for a in answers) == 50 + 6 * 3


async def test_a_child_finds_all_of_its_prompt_computed() -> None:
    async with running(LLAMA) as engine:
        ids = numbers(4, 30)
        for depth in range(6):
            answers = await all_of(
                engine,
                [request(ids, 4, sampling=Sampling(1.0), seed=depth * 9 + k) for k in range(3)],
            )
            if depth:
                assert {a.usage.prompt_computed for a in answers} == {0}
                assert {a.usage.prompt_cached for a in answers} == {len(ids)}
            ids += tuple(answers[1].ids)
        state = (await engine.states([ids]))[0]
        assert (state.computed, state.cached) == (0, len(ids))
        stats = await engine.settle()
        assert stats.computed == 30 + stats.sampled


async def test_steps_of_a_rollout_are_there_for_others_while_it_goes_on() -> None:
    chain = (*ids_of("abc"), piece("\n\n"), *ids_of("de"), piece("So\n\nThen\n"), *ids_of("fg"), tiny.EOS)
    ids, seen, steps = (chain[0],), [chain[0]], 0
    async with running(tiny.parrot(chain)) as engine:
        async with aclosing(engine.generate(request(ids, 100, rollout=True))) as chunks:
            async for chunk in chunks:
                seen += chunk.ids
                if chunk.step_end:
                    steps += 1
                    state = (await engine.states([tuple(seen)], [4]))[0]
                    assert (state.computed, state.cached, len(state.features)) == (0, len(seen), 4)
        assert steps == 2


async def test_states_of_what_was_never_run_are_computed_and_counted() -> None:
    ids = numbers(5, 40)
    async with running(LLAMA) as engine:
        await ask(engine, request(ids[:10], 1))
        first, second = await engine.states([ids, ids[:5]])
        assert (first.computed + first.cached, second.computed, second.cached) == (40, 0, 5)
        assert first.computed in (29, 30)
        assert await engine.states([]) == []
        await check_states(engine, LLAMA, [ids])


@MODELS
async def test_after_eviction(model: torch.nn.Module) -> None:
    async with running(model, slots=96) as engine:
        for seed in range(6):
            ids = numbers(seed % 4, 50)
            check_greedy(model, ids, await ask(engine, request(ids, 10)), 10)
        await check_states(engine, model, [numbers(1, 50)])
        assert engine.stats().kv_used <= 96


@MODELS
@pytest.mark.parametrize(("slots", "rows", "n"), [(100, 5, 60), (300, 12, 60)])
async def test_after_preemption(model: torch.nn.Module, slots: int, rows: int, n: int) -> None:
    prompts = [numbers(20 + k, 20) for k in range(rows)]
    async with running(model, slots=slots) as engine:
        answers = await all_of(engine, [request(ids, n) for ids in prompts])
        for ids, answer in zip(prompts, answers, strict=True):
            check_greedy(model, ids, answer, n)
            assert answer.usage.completion == len(answer.ids)
        stats = await engine.settle()
        assert stats.preemptions > 0
        # What had to be run again is no secret.
        prompt = sum(a.usage.prompt_computed for a in answers)
        assert stats.computed == prompt + stats.sampled
        assert prompt > rows * 20


@pytest.mark.parametrize(
    "sampling",
    [Sampling(0.7), Sampling(1.0, top_p=0.9), Sampling(1.3, top_k=20), Sampling(1.0, 0.8, 50)],
    ids=str,
)
async def test_draws_do_not_depend_on_the_company(sampling: Sampling) -> None:
    ids = numbers(6, 33)
    mine = request(ids, 20, sampling=sampling, seed=42)
    async with running(LLAMA) as engine:
        alone = await ask(engine, mine)
    async with running(LLAMA) as engine:
        others = [request(numbers(k, 3 * k + 1), 25, sampling=Sampling(1.0), seed=k) for k in range(9)]
        together = await all_of(engine, [*others[:4], mine, *others[4:], mine])
    assert alone.ids == together[4].ids == together[-1].ids
    async with running(LLAMA) as engine:
        other = await ask(engine, request(ids, 20, sampling=sampling, seed=43))
    assert other.ids != alone.ids


async def test_a_preempted_row_draws_on_as_if_nothing_had_been() -> None:
    asked = [request(numbers(k, 20), 50, sampling=Sampling(1.0), seed=k) for k in range(4)]
    async with running(LLAMA) as engine:
        free = await all_of(engine, asked)
    async with running(LLAMA, slots=90) as engine:
        squeezed = await all_of(engine, asked)
        assert (await engine.settle()).preemptions > 0
    assert [a.ids for a in free] == [a.ids for a in squeezed]
    assert [a.text for a in free] == [a.text for a in squeezed]


async def test_a_closed_stream_leaves_at_once() -> None:
    loop = ids_of("ab")
    model = tiny.parrot([*loop, loop[0]])
    async with running(model) as engine:
        async with aclosing(engine.generate(request(loop, 200))) as chunks:
            seen = [await anext(chunks) for _ in range(3)]
            assert (await engine.settle()).running == 1
        stats = await engine.settle()
        assert stats.running == 0
        assert stats.sampled < 200
        assert [c.text for c in seen] == ["a", "b", "a"]


async def test_a_cancelled_task_leaves_while_it_waits_and_while_it_reads() -> None:
    async with running(LLAMA, rows=1, chunk=8) as engine:
        first = asyncio.create_task(ask(engine, request(numbers(1, 100), 100)))
        second = asyncio.create_task(ask(engine, request(numbers(2, 100), 100)))
        while (await engine.settle()).queued != 1:
            pass
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert (await engine.settle()).queued == 0
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (await engine.settle()).running == 0


async def test_what_an_abandoned_long_prompt_cost_is_told() -> None:
    async with running(LLAMA, chunk=8) as engine:
        async with aclosing(engine.generate(request(numbers(1, 60), 5))) as chunks:
            first = await anext(chunks)
        assert (first.ids, first.text, first.usage) == ((), "", Usage(prompt_computed=8))
        answer = await ask(engine, request(numbers(1, 60), 5))
        assert answer.usage.prompt_computed + answer.usage.prompt_cached == 60
        assert answer.usage.prompt_cached >= 8


async def test_limits_of_the_context() -> None:
    async with running(LLAMA) as engine:
        with pytest.raises(ContextExceeded, match="256 tokens leave no room in the context of 256"):
            await ask(engine, request(numbers(1, 256), 5))
        answer = await ask(engine, request(numbers(1, 250), 50))
        assert (len(answer.ids), answer.finish) == (6, "length")
        assert (await engine.states([numbers(1, 256)]))[0].cached == 250
        with pytest.raises(ContextExceeded):
            await engine.states([numbers(1, 257)])


async def test_limits_of_the_pool() -> None:
    async with running(LLAMA, slots=64) as engine:
        with pytest.raises(ContextExceeded, match="kv_tokens"):
            await ask(engine, request(numbers(1, 64), 5))
        answer = await ask(engine, request(numbers(1, 60), 50))
        assert (len(answer.ids), answer.finish) == (4, "length")


@pytest.mark.parametrize("ids", [(), (-1,), (1, tiny.VOCAB)])
async def test_ids_that_no_model_can_read_are_refused(ids: tuple[int, ...]) -> None:
    async with running(LLAMA) as engine:
        with pytest.raises(BackendError, match="token ids"):
            await ask(engine, request(ids, 5))
        assert (await ask(engine, request((1,), 2))).finish == "length"


async def test_no_token_wanted() -> None:
    async with running(LLAMA) as engine:
        answer = await ask(engine, request(numbers(1, 9), 0))
        assert (answer.ids, answer.finish) == ([], "length")
        assert answer.usage == Usage(prompt_computed=9)


NEWLINE = ids_of("\n")[0]


async def steps_of(*chain: int, n: int = 20, **changes: object) -> Answer:
    """The answer of a model that says `chain` after its first token."""
    async with running(tiny.parrot(chain)) as engine:
        return await ask(engine, request(chain[:1], n, **changes))


async def test_a_separator_of_one_token() -> None:
    chain = (*ids_of("qab"), piece("\n\n"), *ids_of("cd"), tiny.EOS)
    answer = await steps_of(*chain)
    assert answer.steps == ["ab\n\n", "cd"]
    assert answer.finish == "eos"
    assert tuple(answer.ids) == chain[1:]
    answer = await steps_of(*chain, rollout=False)
    assert (answer.text, answer.finish) == ("ab\n\n", "step")
    assert [c.step_end for c in answer.chunks] == [False, False, True]


async def test_a_separator_of_two_tokens() -> None:
    chain = (*ids_of("qab"), piece(".\n"), NEWLINE, *ids_of("cd"), tiny.EOS)
    assert (await steps_of(*chain)).steps == ["ab.\n\n", "cd"]
    assert (await steps_of(*chain, rollout=False)).text == "ab.\n\n"


async def test_a_separator_in_the_middle_of_a_token() -> None:
    chain = (*ids_of("qab"), piece("So\n\nThen\n"), NEWLINE, *ids_of("cd"), tiny.EOS)
    answer = await steps_of(*chain)
    # The line feed after the step's end does not count towards the next one.
    assert answer.steps == ["abSo\n\nThen\n", "\ncd"]
    assert (await steps_of(*chain, rollout=False)).finish == "step"


async def test_newlines_without_end() -> None:
    answer = await steps_of(*ids_of("q"), NEWLINE, NEWLINE, n=5)
    assert answer.steps == ["\n\n", "\n\n", "\n"]
    assert answer.finish == "length"


async def test_a_newline_in_the_prompt_is_no_half_of_a_separator() -> None:
    async with running(tiny.parrot((NEWLINE, *ids_of("abcd")), (*ids_of("q"), NEWLINE))) as engine:
        answer = await ask(engine, request(ids_of("\n\nq"), 3))
        assert answer.steps == ["\nab"]


async def test_another_separator() -> None:
    answer = await steps_of(*ids_of("qabcdef"), n=6, separator="cd")
    assert answer.steps == ["abcd", "ef"]


async def test_the_limit_meets_the_separator() -> None:
    chain = (*ids_of("qa"), piece("\n\n"), *ids_of("b"))
    assert (await steps_of(*chain, n=2, rollout=False)).finish == "step"
    answer = await steps_of(*chain, n=2)
    assert (answer.finish, answer.chunks[-1].step_end) == ("length", True)


@pytest.mark.parametrize("text", ["né∑😀!", "日é😀"])
async def test_characters_of_many_tokens_come_out_whole(text: str) -> None:
    chain = ids_of("q" + text)
    assert len(set(chain)) == len(chain)
    answer = await steps_of(*chain, n=len(chain) - 1)
    assert answer.text == text
    assert "".join(c.text for c in answer.chunks if len(c.text) == 1) == text


async def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    chain = ids_of("qa😀")
    answer = await steps_of(*chain, n=3)
    assert (answer.text, len(answer.ids)) == ("a\ufffd", 3)


async def test_special_tokens_add_no_text() -> None:
    begin = tiny.TOKENIZER.convert_tokens_to_ids("<|im_start|>")
    answer = await steps_of(*ids_of("qa"), begin, *ids_of("b"), tiny.EOS)
    assert (answer.text, len(answer.ids), answer.usage.completion) == ("ab", 4, 4)


async def test_one_call_into_the_loop_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    put = engine_module._put
    monkeypatch.setattr(engine_module, "_put", lambda items: (calls.append(len(items)), put(items)))
    async with running(LLAMA) as engine:
        await all_of(engine, [request(numbers(1, 10), 10, seed=k) for k in range(16)])
        forwards = engine.stats().forwards
    assert sum(calls) == 16 * 10
    assert len(calls) <= forwards + 1


async def test_when_the_engine_dies_everyone_hears_of_it() -> None:
    async with running(LLAMA, rows=2) as engine:
        run, left = engine._model.run, iter(range(5))

        def break_down(*args: object) -> None:
            if next(left, None) is None:
                raise RuntimeError("out of luck")
            run(*args)  # type: ignore[arg-type]

        engine._model.run = break_down  # type: ignore[method-assign]
        waiting = [ask(engine, request(numbers(k, 10), 50)) for k in range(5)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(r) for r in results] == [BackendError] * 5
        for again in (ask(engine, request((1,), 5)), engine.states([(1,)]), engine.settle()):
            with pytest.raises(BackendError, match="out of luck"):
                await again


async def test_closing_ends_what_runs_and_what_waits() -> None:
    async with running(LLAMA, rows=1) as engine:
        tasks = [asyncio.create_task(ask(engine, request(numbers(k, 9), 200))) for k in range(3)]
        await engine.settle()
        await asyncio.gather(engine.close(), engine.close())
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(r, BackendError) and "closed" in str(r) for r in results)
        assert not engine._thread.is_alive()
        with pytest.raises(BackendError, match="closed"):
            await ask(engine, request((1,), 5))


def test_a_loop_that_went_away_does_not_hurt_the_next_one() -> None:
    engine = tiny.engine(copy_of(LLAMA))

    async def leave() -> None:
        chunks = engine.generate(request(numbers(1, 9), 200))
        await anext(chunks)
        engine._send = lambda *a, **k: None  # type: ignore[method-assign]

    asyncio.run(leave())
    del engine._send  # type: ignore[method-assign]

    async def use() -> Answer:
        answer = await ask(engine, request(numbers(2, 9), 5))
        while (await engine.settle()).running:
            pass
        await engine.close()
        return answer

    check_greedy(LLAMA, numbers(2, 9), asyncio.run(use()), 5)
