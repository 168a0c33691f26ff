"""The embedded PRM: real scores, the same however they are asked for, and no token run twice for them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from tts_tui.backends import embedded_prm, pull
from tts_tui.backends.embedded import CAPTURE, EmbeddedPolicy
from tts_tui.backends.embedded_prm import EmbeddedPRM, Head, load_head, save_head, shipped
from tts_tui.contracts import ModelInfo, Prompt, Sampling, ScoreRequest, StepRequest
from tts_tui.errors import BackendError, BackendUnavailable
from tts_tui.evaluation.prm_report import auc, wilson

QUESTION = "What is 7 + 8 - 6?"


def a_head(features: int = 12, hidden: int = 5, **changes: object) -> Head:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    parts = {
        "layers": CAPTURE,
        "fingerprint": "0" * 16,
        "mean": some(features),
        "scale": abs(some(features)) + 0.1,
        "w1": some(features, hidden),
        "b1": some(hidden),
        "w2": some(hidden),
        "b2": some(1),
    }
    return Head(**{**parts, **changes})  # type: ignore[arg-type]


def test_scores_are_in_range_and_do_not_depend_on_the_batch() -> None:
    head = a_head()
    steps = [np.float32(10.0**power) * np.ones(12, np.float32) for power in range(-3, 8)]
    scores = head.score(steps)
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert head.score(steps[::-1]) == scores[::-1]
    assert [head.score([step])[0] for step in steps] == scores
    assert head.score([]) == []


def test_a_head_survives_being_written(tmp_path: Path) -> None:
    head = a_head()
    save_head(head, tmp_path / "head.safetensors", "made by a test")
    again = load_head(tmp_path / "head.safetensors")
    step = np.ones(12, np.float32)
    assert again.score([step]) == head.score([step])
    assert (again.layers, again.fingerprint, again.parameters) == (head.layers, head.fingerprint, head.parameters)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    with pytest.raises(BackendUnavailable, match=r"cannot be read .*train it again"):
        load_head(path)
    path.write_bytes(b"no safetensors at all")
    with pytest.raises(BackendUnavailable, match="cannot be read"):
        load_head(path)
    save_head(a_head(w2=np.ones(7, np.float32)), path, "")
    with pytest.raises(BackendUnavailable, match=r"shapes .* do not fit together"):
        load_head(path)

    from safetensors.numpy import save_file

    save_file({"w1": np.ones((2, 2), np.float32)}, path)
    with pytest.raises(BackendUnavailable, match="no embedded PRM of this version"):
        load_head(path)


def test_the_shipped_head_is_small_and_fits_the_policy() -> None:
    head = load_head(shipped())
    assert shipped().stat().st_size < 2_000_000
    assert head.layers == CAPTURE
    assert head.w1.shape[0] == (len(CAPTURE) + 1) * 576
    assert all(np.isfinite(part).all() for part in (head.mean, head.scale, head.w1, head.b1, head.w2, head.b2))


def test_it_must_be_started() -> None:
    prm = EmbeddedPRM()
    with pytest.raises(BackendError, match="has not been started"):
        asyncio.run(prm.score([]))


def test_areas_and_intervals() -> None:
    assert auc([1.0, 2.0], [0.0, 0.5]) == 1.0
    assert auc([0.0], [1.0]) == 0.0
    assert auc([1.0, 0.0], [1.0, 0.0]) == 0.5
    rng = random.Random(0)
    right, wrong = [rng.choice(range(5)) for _ in range(30)], [rng.choice(range(4)) for _ in range(20)]
    pairs = [(r > w) + 0.5 * (r == w) for r in right for w in wrong]
    assert auc(right, wrong) == pytest.approx(sum(pairs) / len(pairs))
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == pytest.approx(1.0)


# --- with the embedded model ------------------------------------------------------------------------------------------


class OtherPolicy:
    """Some other policy: nothing of it is used."""

    info = ModelInfo("other", 1, 100)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def policy() -> AsyncIterator[EmbeddedPolicy]:
    policy = EmbeddedPolicy(kv_tokens=8000)
    await policy.start()
    yield policy
    await policy.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prm(policy: EmbeddedPolicy) -> AsyncIterator[EmbeddedPRM]:
    prm = EmbeddedPRM(policy)
    await prm.start()
    yield prm
    await prm.close()


async def written(policy: EmbeddedPolicy, question: str, seed: int, temperature: float = 0.7) -> ScoreRequest:
    """A whole solution by the policy, cut into its steps."""
    prompt = await policy.prompt(question)
    request = StepRequest(prompt.ids, Sampling(temperature), 120, rollout=True, seed=seed)
    texts, ids = [""], [()]
    async with aclosing(policy.stream(request)) as chunks:
        async for chunk in chunks:
            texts[-1] += chunk.text
            ids[-1] += chunk.ids
            if chunk.step_end:
                texts.append("")
                ids.append(())
    if not ids[-1]:
        del texts[-1], ids[-1]
    return ScoreRequest(prompt, tuple(texts), tuple(ids))


def prefixes(request: ScoreRequest) -> list[ScoreRequest]:
    ends = range(1, len(request.steps) + 1)
    return [ScoreRequest(request.prompt, request.steps[:end], request.step_ids[:end]) for end in ends]


embedded = pytest.mark.embedded
module_loop = pytest.mark.asyncio(loop_scope="module")


@embedded
@module_loop
async def test_scoring_the_policys_own_steps_runs_no_token(policy: EmbeddedPolicy, prm: EmbeddedPRM) -> None:
    requests = prefixes(await written(policy, QUESTION, seed=1))
    assert len(requests) >= 2
    before = (await policy.engine.settle()).computed
    for request, score in zip(requests, await prm.score(requests), strict=True):
        assert 0.0 <= score.score <= 1.0
        assert score.computed == 0
        assert score.cached == len(request.prompt.ids) + sum(map(len, request.step_ids))
    assert (await policy.engine.settle()).computed == before


@embedded
@module_loop
async def test_the_order_of_a_batch_and_later_steps_change_no_score(policy: EmbeddedPolicy, prm: EmbeddedPRM) -> None:
    one, two = await written(policy, QUESTION, seed=1), await written(policy, "What is 3 * 4 + 5?", seed=2)
    requests = prefixes(one) + prefixes(two)
    scores = [score.score for score in await prm.score(requests)]
    assert len(set(scores)) == len(scores)
    order = random.Random(0).sample(range(len(requests)), len(requests))
    again = [score.score for score in await prm.score([requests[place] for place in order])]
    assert again == [scores[place] for place in order]
    assert [(await prm.score([request]))[0].score for request in requests] == scores


@embedded
@module_loop
async def test_tokens_that_were_never_run_are_counted(policy: EmbeddedPolicy, prm: EmbeddedPRM) -> None:
    prompt = await policy.prompt(QUESTION)
    await policy.engine.states([prompt.ids])
    step = policy.ids_of("Step 1: 7 + 8 = 15 indeed") + policy.ids_of("\n") * 2
    request = ScoreRequest(prompt, ("Step 1: 7 + 8 = 15 indeed\n\n",), (step,))
    before = (await policy.engine.settle()).computed
    (score,) = await prm.score([request])
    assert score.computed == (await policy.engine.settle()).computed - before
    assert score.computed + score.cached == len(prompt.ids) + len(step)
    assert 0 < score.computed <= len(step)
    (again,) = await prm.score([request])
    assert (again.score, again.computed) == (score.score, 0)


@embedded
@module_loop
async def test_a_step_as_text_scores_as_its_ids_do(policy: EmbeddedPolicy, prm: EmbeddedPRM) -> None:
    requests = prefixes(await written(policy, QUESTION, seed=3, temperature=0.0))
    by_ids = await prm.score(requests)
    other = EmbeddedPRM(OtherPolicy())  # type: ignore[arg-type]
    await other.start()
    try:
        foreign = [
            ScoreRequest(Prompt(QUESTION, (9, 9)), request.steps, tuple((7,) for _ in request.steps))
            for request in requests
        ]
        by_text = await other.score(foreign)
        assert [score.score for score in by_text] == pytest.approx([score.score for score in by_ids], abs=1e-3)
        spent = sum(score.computed for score in by_text)
        assert spent == len(requests[-1].prompt.ids) + sum(map(len, requests[-1].step_ids))
        assert other.info.parameters > 134_000_000
    finally:
        await other.close()
        await other.close()


@embedded
@module_loop
async def test_a_right_step_scores_above_a_wrong_one(policy: EmbeddedPolicy, prm: EmbeddedPRM) -> None:
    """Not for every problem, but for the plainest ones."""
    above = 0
    for a in range(2, 8):
        prompt = await policy.prompt(f"What is {a} + 2 + 3?")
        texts = [f"Step 1: {a} + 2 = {value}\n\n" for value in (a + 2, a + 52)]
        steps = [policy.ids_of(text.strip()) + policy.ids_of("\n") * 2 for text in texts]
        requests = [ScoreRequest(prompt, (text,), (ids,)) for text, ids in zip(texts, steps, strict=True)]
        right, wrong = await prm.score(requests)
        above += right.score > wrong.score
    assert above >= 5


@embedded
@module_loop
async def test_a_head_for_another_model_or_other_layers_is_refused(policy: EmbeddedPolicy, tmp_path: Path) -> None:
    head = load_head(shipped())
    fields = {name: getattr(head, name) for name in head.__struct_fields__}
    save_head(Head(**{**fields, "fingerprint": "f" * 16}), tmp_path / "other.safetensors", "")
    with pytest.raises(BackendUnavailable, match="was trained on another model"):
        await EmbeddedPRM(policy, path=tmp_path / "other.safetensors").start()
    save_head(Head(**{**fields, "layers": (1, 2)}), tmp_path / "layers.safetensors", "")
    with pytest.raises(BackendUnavailable, match="reads layers"):
        await EmbeddedPRM(policy, path=tmp_path / "layers.safetensors").start()
    assert embedded_prm.load_head(shipped()).fingerprint == pull.fingerprint(policy.path)


@embedded
@module_loop
async def test_a_request_without_steps_is_refused(policy: EmbeddedPolicy, prm: EmbeddedPRM) -> None:
    with pytest.raises(BackendError, match="no step"):
        await prm.score([ScoreRequest(await policy.prompt(QUESTION), (), ())])
    assert await prm.score([]) == []
