"""Draws against their definition, in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_tui.backends.engine.attention import attend_by_matmul
from tts_tui.backends.engine.sampling import NUCLEUS, draw
from tts_tui.protocols import Sampling

seeds = st.integers(0, 2**32)
uniforms = st.floats(0, 1, exclude_max=True)


def some_logits(seed: int, rows: int, size: int) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * 4


def allowed(logits: list[float], how: Sampling, uniform: float) -> set[int]:
    """Tokens whose stretch of the running sum holds `uniform`, within rounding; in the order that `draw` sums in."""
    best = sorted(range(len(logits)), key=lambda i: -logits[i])
    order = best if how.top_k > 0 or how.top_p < 1 else list(range(len(logits)))
    if how.top_k > 0:
        order = order[: how.top_k]
    top = max(logits)
    weights = {i: math.exp((logits[i] - top) / how.temperature) for i in order}
    total, before, kept = sum(weights.values()), 0.0, []
    for i in order:
        if before < how.top_p * total * (1 - 1e-6):
            kept.append(i)
        before += weights[i]
    total, before, found = sum(weights[i] for i in kept), 0.0, set()
    for i in kept:
        after = before + weights[i]
        if before - 1e-4 * total <= uniform * total <= after + 1e-4 * total:
            found.add(i)
        before = after
    return found


@settings(deadline=None, max_examples=60)
@given(seeds, st.lists(uniforms, min_size=1, max_size=5), st.sampled_from([5, 256, 300, 1024]), st.data())
def test_every_draw_is_where_its_number_falls(seed: int, numbers: list[float], size: int, data: st.DataObject) -> None:
    how = [
        Sampling(
            data.draw(st.sampled_from([0.3, 1.0, 2.0])),
            data.draw(st.sampled_from([1.0, 0.9, 0.2])),
            data.draw(st.sampled_from([-1, 1, 7])),
        )
        for _ in numbers
    ]
    logits = some_logits(seed, len(numbers), size)
    drawn = draw(logits.clone(), how, numbers)
    for row, sampling, number, token in zip(logits.tolist(), how, numbers, drawn, strict=True):
        assert token in allowed(row, sampling, number)


@given(seeds, uniforms)
def test_no_draw_has_no_weight(seed: int, number: float) -> None:
    logits = some_logits(seed, 1, 700)
    logits[0, 1::2] = float("-inf")
    assert draw(logits, [Sampling(1.0)], [number])[0] % 2 == 0


def test_the_largest_number_below_one_is_no_way_out() -> None:
    logits = torch.full((1, 513), float("-inf"))
    logits[0, 3] = logits[0, 300] = 0.0
    assert draw(logits.clone(), [Sampling(1.0)], [math.nextafter(1, 0)]) == [300]
    assert draw(logits.clone(), [Sampling(1.0)], [0.0]) == [3]
    assert draw(logits.clone(), [Sampling(1.0, top_p=0.99)], [math.nextafter(1, 0)]) == [300]


def test_temperature_zero_is_greedy_beside_others() -> None:
    logits = some_logits(1, 3, 300)
    how = [Sampling(0.0), Sampling(1.0, top_k=1), Sampling(0.01)]
    assert draw(logits.clone(), how, [0.9, 0.9, 0.9]) == logits.argmax(-1).tolist()


def test_a_flat_nucleus_is_larger_than_the_first_look() -> None:
    logits = torch.zeros(1, 4 * NUCLEUS)
    drawn = {draw(logits.clone(), [Sampling(1.0, top_p=0.9)], [k / 997])[0] for k in range(997)}
    assert len(drawn) > 1.5 * NUCLEUS


@pytest.mark.parametrize("masked", [False, True])
def test_both_ways_to_attend_agree(masked: bool) -> None:
    q, k, v = torch.randn(3, 2, 5, 16), torch.randn(3, 2, 9, 16), torch.randn(3, 2, 9, 16)
    mask = torch.zeros(3, 1, 1, 9)
    mask[1, ..., 4:] = float("-inf")
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    given_mask = mask if masked else None
    for got, expected in zip(
        attend_by_matmul(q, k, v, given_mask, 0.3), flash(q, k, v, attn_mask=given_mask, scale=0.3), strict=True
    ):
        torch.testing.assert_close(got, expected)
