"""Token sampling: one number in [0, 1) determines each token, so that a draw does not depend on the other rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tts_tui.protocols import Sampling

BLOCK = 256
"""The number of tokens per block; block sums locate a draw without a cumulative sum over the whole vocabulary."""

NUCLEUS = 512
"""The number of likeliest tokens that top-p tries before it sorts the whole vocabulary."""


def draw(logits: Tensor, how: Sequence[Sampling], uniforms: Sequence[float]) -> list[int]:
    """Sample one token per row.

    Args:
        logits: The logits, `[B, vocabulary]` in float32; overwritten.
        how: The temperature, top-k and top-p of each row, applied in this order.
        uniforms: One number in [0, 1) per row; unused where the temperature is 0.
    """
    chosen = torch.empty(len(how), dtype=torch.long)
    greedy = [row for row, sampling in enumerate(how) if sampling.temperature == 0]
    cut = [row for row, s in enumerate(how) if s.temperature and (s.top_p < 1 or s.top_k > 0)]
    plain = [row for row, s in enumerate(how) if s.temperature and s.top_p >= 1 and s.top_k <= 0]
    if greedy:
        chosen[greedy] = _rows(logits, greedy).argmax(-1).cpu()
    if plain:
        heat = torch.tensor([[how[row].temperature] for row in plain], device=logits.device)
        picks = torch.tensor([[uniforms[row]] for row in plain], device=logits.device)
        chosen[plain] = invert(_rows(logits, plain).div_(heat), picks).cpu()
    for row in cut:
        chosen[row] = _draw_cut(logits[row] / how[row].temperature, how[row], uniforms[row])
    return chosen.tolist()


def invert(scores: Tensor, uniforms: Tensor) -> Tensor:
    """Return the tokens, `[B]`, at which the cumulative softmax of `scores`, `[B, V]`, exceeds `uniforms`, `[B, 1]`."""
    p = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    if spare := -p.shape[1] % BLOCK:
        p = torch.nn.functional.pad(p, (0, spare))
    blocks = p.view(len(p), -1, BLOCK)
    sums = blocks.sum(-1).cumsum(-1)
    block, rest = _locate(sums, uniforms * sums[:, -1:])
    inside = blocks[torch.arange(len(p), device=p.device), block[:, 0]].cumsum(-1)
    at, _ = _locate(inside, rest)
    return (block * BLOCK + at)[:, 0]


def _locate(sums: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each row's cumulative sum first exceeds `target`, and the target's excess over the preceding sum."""
    # Rounding must not lead past the last index that has any weight.
    target = torch.minimum(target, sums[:, -1:] * (1 - 1e-6))
    at = torch.searchsorted(sums, target, right=True)
    before = torch.where(at > 0, sums.gather(1, (at - 1).clamp_(min=0)), 0)
    return at, target - before


def _draw_cut(scores: Tensor, how: Sampling, uniform: float) -> int:
    """Draw one of the `top_k` likeliest tokens, restricted to the fewest that hold `top_p` of the probability."""
    size = scores.shape[0]
    k = min(how.top_k, size) if how.top_k > 0 else min(NUCLEUS, size)
    best, ids = scores.topk(k)
    total = best.logsumexp(0) if how.top_k > 0 else scores.logsumexp(0)
    p = (best - total).exp()
    if how.top_p < 1:
        if how.top_k <= 0 and k < size and float(p.sum()) < how.top_p:
            best, ids = scores.sort(descending=True)
            p = (best - total).exp()
        before = p.cumsum(0) - p
        p = p[before < how.top_p]
    sums = p.cumsum(0)[None]
    at, _ = _locate(sums, uniform * sums[:, -1:])
    return int(ids[at[0, 0]])


def _rows(logits: Tensor, rows: list[int]) -> Tensor:
    return logits if len(rows) == len(logits) else logits[rows]
