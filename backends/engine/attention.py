"""Attention over one pool of keys and values that all sequences share.

Transformers' modelling code runs unchanged: `PoolCache` is its cache, and writes every new token's key and value into
the pool; `pool_attention` is its attention function, and reads them as a `Plan` says. A forward takes the new tokens
of many sequences side by side in one row, `[1, T]`: single sampled tokens and pieces of prompts alike.

What each new token (a *query*) looks at is cut into parts, which are attended one by one and merged by their
log-sum-exp (as in cascade and flash attention):

- `Shared`: a stretch of keys that a range of neighbouring queries sees whole, such as a prompt under all of its
  samples. It is one matrix product for all of them, and its keys are neither copied nor repeated.
- `Fresh`: the new tokens of one sequence among themselves, each seeing those before it.
- `Own`: the rest, short and different for every query, gathered into one padded batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from tts_tui.backends.engine.kv_cache import RadixNode, runs

NAME = "tts_pool"
"""Under this name transformers knows `pool_attention`."""

WORTH = 256
"""Keys whose copying is saved that make a part of its own worth its overhead."""

UNUSED = {"sliding_window", "softcap", "s_aux", "head_mask", "position_bias"}
"""What some models ask of an attention function, and this one cannot do."""

Keys: TypeAlias = "slice | Any"
"""Slots: consecutive ones, or a tensor of their numbers."""


class PoolLayer(CacheLayerMixin):
    """One layer's keys and values, `[slots, 2, heads, head dimension]`, as a transformers cache layer."""

    is_croppable = False

    def __init__(self, pool: Tensor) -> None:
        super().__init__()
        self.pool = pool
        self.write: Tensor | None = None
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is left to do."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes `[1, heads, T, head dimension]` into the slots of this forward; returns the pool in both places."""
        both = torch.stack((key_states[0], value_states[0])).permute(2, 0, 1, 3)
        self.pool.index_copy_(0, self.write, both)
        return self.pool, self.pool

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """No mask is made from these."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Positions are always given, never counted on from here."""
        return 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class PoolCache(Cache):
    """The pool of all layers.

    Args:
        layers: Number of layers.
        slots: Tokens it can hold.
        heads: Key-value heads.
        size: Dimension of a head.
        dtype: Of keys and values.
        device: Where they are.
    """

    def __init__(self, layers: int, slots: int, heads: int, size: int, dtype: torch.dtype, device: Any) -> None:
        # `empty`, so that the operating system commits pages only as slots come into use.
        shape = (layers, slots, 2, heads, size)
        self.pool = torch.empty(shape, dtype=dtype, device=device)
        super().__init__(layers=[PoolLayer(pool) for pool in self.pool])

    def aim(self, write: Tensor) -> None:
        """Sets the slots, `[T]`, that the next forward's tokens go to."""
        for layer in self.layers:
            layer.write = write


@dataclass(slots=True)
class Shared:
    """Queries `first` to `last` see all of `keys`."""

    first: int
    last: int
    keys: Keys


@dataclass(slots=True)
class Fresh:
    """Queries `first` to `last` are one sequence's new tokens, in slots `keys`; `mask` is `[groups * n, n]`."""

    first: int
    last: int
    keys: Keys
    mask: Tensor


@dataclass(slots=True)
class Own:
    """Queries `[B]` see slots `keys`, `[B, L]`, where `mask`, `[B, 1, 1, L]`, is 0 and not -inf."""

    queries: Tensor | slice
    keys: Tensor
    mask: Tensor


@dataclass(slots=True)
class AttentionPlan:
    """What the queries of one forward attend: every query is in `own` or in one `fresh`, and in any `shared`."""

    write: Tensor
    own: Own | None = None
    fresh: list[Fresh] = field(default_factory=list)
    shared: list[Shared] = field(default_factory=list)


@dataclass(slots=True)
class Sequence_:
    """One sequence's part in a forward.

    Attributes:
        path: Nodes with its first tokens' slots, from the root down.
        tail: Slots of its later tokens that are not in the tree.
        new: Slots of the tokens that are to run now, at least one.
    """

    path: Sequence[RadixNode]
    tail: Sequence[int]
    new: Sequence[int]


def tree_order(paths: Sequence[Sequence[RadixNode]]) -> list[int]:
    """An order of sequences in which those that share nodes are neighbours."""
    keys = [[node.uid for node in path] for path in paths]
    return sorted(range(len(paths)), key=keys.__getitem__)


def make_plan(sequences: Sequence[Sequence_], groups: int, dtype: torch.dtype, device: Any) -> AttentionPlan:
    """Cuts what `sequences` attend into parts.

    Args:
        sequences: In tree order; their new tokens stand side by side in the forward in this order.
        groups: Query heads per key-value head.
        dtype: Of the masks.
        device: Of the masks and indexes.
    """
    starts = [0]
    for sequence in sequences:
        starts.append(starts[-1] + len(sequence.new))
    write = [slot for sequence in sequences for slot in sequence.new]
    plan = AttentionPlan(torch.tensor(write, device=device))
    own: list[list[int]] = [[] for _ in sequences]
    for (a, b), slots in _segments(sequences).items():
        queries = starts[b] - starts[a]
        long = any(len(sequence.new) > 1 for sequence in sequences[a:b])
        if long or (queries - 1) * len(slots) >= WORTH:
            plan.shared.append(Shared(starts[a], starts[b], _keys(slots, device)))
        else:
            rest = _long_runs(plan, slots, starts[a], starts[b])
            for row in range(a, b):
                own[row] += rest
    single = []
    for row, sequence in enumerate(sequences):
        first, last = starts[row], starts[row + 1]
        if last - first == 1:
            own[row] += _long_runs(plan, sequence.tail, first, last)
            own[row] += sequence.new
            single.append(row)
            continue
        if sequence.tail:
            plan.shared.append(Shared(first, last, _keys(sequence.tail, device)))
        mask = torch.full((last - first, last - first), float("-inf"), dtype=dtype, device=device)
        mask = mask.triu(1).repeat(groups, 1)
        plan.fresh.append(Fresh(first, last, _keys(sequence.new, device), mask))
    if single:
        every = len(single) == len(sequences)
        queries_ = slice(None) if every else torch.tensor([starts[r] for r in single], device=device)
        plan.own = _own(queries_, [own[row] for row in single], dtype, device)
    return plan


def _segments(sequences: Sequence[Sequence_]) -> dict[tuple[int, int], list[int]]:
    """Slots that exactly the sequences `a` to `b` have in common, by (a, b).

    Nodes with the same sequences below them lie on one path, one behind the other, and become one segment.
    """
    span: dict[RadixNode, list[int]] = {}
    for row, sequence in enumerate(sequences):
        for node in sequence.path:
            span.setdefault(node, [row, row])[1] = row + 1
    segments: dict[tuple[int, int], list[int]] = {}
    for node, (a, b) in span.items():
        segments.setdefault((a, b), []).extend(node.slots)
    return segments


def _long_runs(plan: AttentionPlan, slots: Sequence[int], first: int, last: int) -> list[int]:
    """Moves consecutive slots of at least `WORTH` into parts of their own, which copies nothing; returns the rest."""
    rest: list[int] = []
    for start, end in runs(slots):
        if end - start >= WORTH:
            plan.shared.append(Shared(first, last, slice(start, end)))
        else:
            rest += range(start, end)
    return rest


def _keys(slots: Sequence[int], device: Any) -> Keys:
    if slots[-1] - slots[0] == len(slots) - 1 and list(runs(slots)) == [(slots[0], slots[-1] + 1)]:
        return slice(slots[0], slots[-1] + 1)
    return torch.tensor(slots, device=device)


def _own(queries: Tensor | slice, rows: Sequence[list[int]], dtype: torch.dtype, device: Any) -> Own:
    width = max(map(len, rows))
    keys = torch.tensor([row + row[:1] * (width - len(row)) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    hidden = torch.arange(width, device=device) >= lengths[:, None]
    mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))
    return Own(queries, keys, mask[:, None, None])


def pool_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    plan: AttentionPlan,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention function over the pool.

    Args:
        module: The attention layer, unused.
        query: `[1, query heads, T, head dimension]`.
        key: The layer's pool, `[slots, 2, heads, head dimension]`.
        value: The same.
        attention_mask: None; `plan` says who sees what.
        scaling: Of the scores, `head dimension ** -0.5` by default.
        plan: Parts to attend, given to the model's forward as a keyword.

    Returns:
        `[1, T, query heads, head dimension]`, and no weights.

    Raises:
        NotImplementedError: The model asks for more than plain causal attention.
    """
    wanted = sorted(name for name in UNUSED if kwargs.get(name) is not None)
    if wanted or attention_mask is not None:
        raise NotImplementedError(", ".join(wanted) or "attention_mask")
    _, heads, tokens, size = query.shape
    pool, kv_heads = key, key.shape[2]
    scale = size**-0.5 if scaling is None else scaling
    q = query.reshape(kv_heads, heads // kv_heads, tokens, size)
    out, lse = _base(q, pool, plan, scale)
    for part in plan.shared:
        piece = q[:, :, part.first : part.last]
        got, weight = _grouped(piece, pool, part.keys, None, scale)
        _merge(out[:, :, part.first : part.last], lse[:, :, part.first : part.last], got, weight)
    return out.permute(2, 0, 1, 3).reshape(1, tokens, heads, size), None


def _base(q: Tensor, pool: Tensor, plan: AttentionPlan, scale: float) -> tuple[Tensor, Tensor]:
    """The parts in which each query is exactly once."""
    own = plan.own
    if own is not None and isinstance(own.queries, slice):
        return _padded(q, pool, own, scale)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    if own is not None:
        got, weight = _padded(q[:, :, own.queries], pool, own, scale)
        out[:, :, own.queries] = got
        lse[:, :, own.queries] = weight
    for part in plan.fresh:
        here = slice(part.first, part.last)
        out[:, :, here], lse[:, :, here] = _grouped(q[:, :, here], pool, part.keys, part.mask, scale)
    return out, lse


def _grouped(q: Tensor, pool: Tensor, keys: Keys, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """All queries `[heads, groups, n, d]` over the same keys: query heads of a group are rows of one product."""
    kv_heads, groups, n, size = q.shape
    kv = pool[keys] if isinstance(keys, slice) else pool.index_select(0, keys)
    kv = kv.permute(1, 2, 0, 3)
    rows = q.reshape(1, kv_heads, groups * n, size)
    out, lse = _attend(rows, kv[0][None], kv[1][None], mask, scale)
    return out.reshape(q.shape), lse.reshape(q.shape[:3])


def _padded(q: Tensor, pool: Tensor, own: Own, scale: float) -> tuple[Tensor, Tensor]:
    """Each query `[heads, groups, B, d]` over its own keys."""
    rows, width = own.keys.shape
    kv = pool.index_select(0, own.keys.view(-1)).view(rows, width, *pool.shape[1:])
    kv = kv.permute(2, 0, 3, 1, 4)
    out, lse = _attend(q.permute(2, 0, 1, 3), kv[0], kv[1], own.mask, scale)
    return out.permute(1, 2, 0, 3), lse.permute(1, 2, 0)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention of `[B, heads, n, d]` over `[B, heads, L, d]`, with the log-sum-exp of its scores in float32."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=mask, scale=scale
        )
    return attend_by_matmul(q, k, v, mask, scale)


def attend_by_matmul(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """What `_attend` does, in plain tensor operations for any device."""
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * scale
    if mask is not None:
        scores += mask
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None]).exp_().to(v.dtype)
    return torch.matmul(weights, v), lse


def _merge(out: Tensor, lse: Tensor, other: Tensor, weight: Tensor) -> None:
    """Merges a further part into `out` and `lse` in place."""
    both = torch.logaddexp(lse, weight)
    out.mul_((lse - both).exp_()[..., None].to(out.dtype))
    out.add_(other * (weight - both).exp_()[..., None].to(out.dtype))
    lse.copy_(both)


AttentionInterface.register(NAME, pool_attention)
