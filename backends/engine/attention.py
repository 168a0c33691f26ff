"""Attention over one pool of keys and values that all sequences share.

Transformers' modelling code runs unchanged. `PoolCache` is its cache and writes the key and value of every new token
into the pool; `pool_attention` is its attention function and reads them according to an `AttentionPlan`. A forward
pass takes the new tokens of many sequences concatenated in one row, `[1, T]`: single sampled tokens and chunks of
prompts alike.

The keys that each new token (a *query*) attends to are split into parts, which are attended to one by one and merged
by their log-sum-exp (as in cascade and flash attention):

- `Shared`: a run of keys that a range of adjacent queries sees in full, such as a prompt shared by all of its
  samples. It is one matrix product for all of these queries, and its keys are neither copied nor repeated.
- `Fresh`: the new tokens of one sequence, each attending to those before it.
- `Own`: the remaining keys, few and different for every query, gathered into one padded batch.
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
"""The name under which `pool_attention` is registered with transformers."""

WORTH = 256
"""The number of key copies that a separate part must save to be worth its overhead."""

UNUSED = {"sliding_window", "softcap", "s_aux", "head_mask", "position_bias"}
"""Keyword arguments that some models pass to an attention function and that `pool_attention` does not support."""

Keys: TypeAlias = "slice | Any"
"""Pool slots: a slice of consecutive ones, or a tensor of slot numbers."""


class PoolLayer(CacheLayerMixin):
    """One layer's keys and values, `[slots, 2, heads, head dimension]`, as a transformers cache layer."""

    is_croppable = False

    def __init__(self, pool: Tensor) -> None:
        super().__init__()
        self.pool = pool
        self.write: Tensor | None = None
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the pool is allocated up front."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write `[1, heads, T, head dimension]` into this forward pass's slots; return the pool twice."""
        both = torch.stack((key_states[0], value_states[0])).permute(2, 0, 1, 3)
        self.pool.index_copy_(0, self.write, both)
        return self.pool, self.pool

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return nominal mask sizes; no mask is built from them."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Return 0: positions are always passed explicitly, never derived from the cache length."""
        return 0

    def get_max_length(self) -> int:
        """Return -1, which means no limit."""
        return -1


class PoolCache(Cache):
    """The key-value pool of all layers, as a transformers cache.

    Args:
        layers: Number of layers.
        slots: The number of tokens that the pool can hold.
        heads: The number of key-value heads.
        size: The dimension of a head.
        dtype: The dtype of keys and values.
        device: The device of keys and values.
    """

    def __init__(self, layers: int, slots: int, heads: int, size: int, dtype: torch.dtype, device: Any) -> None:
        # `empty`, so that the operating system commits pages only as slots come into use.
        shape = (layers, slots, 2, heads, size)
        self.pool = torch.empty(shape, dtype=dtype, device=device)
        super().__init__(layers=[PoolLayer(pool) for pool in self.pool])

    def aim(self, write: Tensor) -> None:
        """Set the slots, `[T]`, into which the next forward pass writes its tokens."""
        for layer in self.layers:
            layer.write = write


@dataclass(slots=True)
class Shared:
    """A part in which queries `[first, last)` see all of `keys`."""

    first: int
    last: int
    keys: Keys


@dataclass(slots=True)
class Fresh:
    """A part for one sequence's new tokens: queries `[first, last)`, slots `keys`, mask `[groups * n, n]`."""

    first: int
    last: int
    keys: Keys
    mask: Tensor


@dataclass(slots=True)
class Own:
    """A padded batch: queries `[B]` see slots `keys`, `[B, L]`, where `mask`, `[B, 1, 1, L]`, is 0 rather than -inf."""

    queries: Tensor | slice
    keys: Tensor
    mask: Tensor


@dataclass(slots=True)
class AttentionPlan:
    """The parts that one forward pass attends to: each query is in `own` or one `fresh`, and any number of `shared`."""

    write: Tensor
    own: Own | None = None
    fresh: list[Fresh] = field(default_factory=list)
    shared: list[Shared] = field(default_factory=list)


@dataclass(slots=True)
class Sequence_:
    """One sequence's share of a forward pass.

    Attributes:
        path: The nodes that hold the slots of its first tokens, from the root down.
        tail: The slots of its later computed tokens, which are not in the tree.
        new: The slots of the tokens to run now, at least one.
    """

    path: Sequence[RadixNode]
    tail: Sequence[int]
    new: Sequence[int]


def tree_order(paths: Sequence[Sequence[RadixNode]]) -> list[int]:
    """Return an order of sequences in which those that share nodes are adjacent."""
    keys = [[node.uid for node in path] for path in paths]
    return sorted(range(len(paths)), key=keys.__getitem__)


def make_plan(sequences: Sequence[Sequence_], groups: int, dtype: torch.dtype, device: Any) -> AttentionPlan:
    """Split the keys that `sequences` attend to into parts.

    Args:
        sequences: The sequences in tree order; the forward pass concatenates their new tokens in this order.
        groups: The number of query heads per key-value head.
        dtype: The dtype of the masks.
        device: The device of the masks and indexes.
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
    """Return the slots that exactly the sequences `[a, b)` have in common, by (a, b).

    Nodes with the same sequences below them lie consecutively on one path and become one segment.
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
    """Move runs of at least `WORTH` consecutive slots into separate parts, without copying; return the other slots."""
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
    """Compute attention over the pool; this is transformers' attention function.

    Args:
        module: The attention layer, unused.
        query: `[1, query heads, T, head dimension]`.
        key: The layer's pool, `[slots, 2, heads, head dimension]`.
        value: The layer's pool again, unused.
        attention_mask: None; `plan` determines which keys each query sees.
        scaling: The scale of the scores, `head dimension ** -0.5` by default.
        plan: The parts to attend to, passed to the model's forward as a keyword.

    Returns:
        The output, `[1, T, query heads, head dimension]`, and None in place of attention weights.

    Raises:
        NotImplementedError: The model requires more than plain causal attention.
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
    """Attend to the `own` and `fresh` parts, which together contain each query exactly once."""
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
    """Attend from all queries `[heads, groups, n, d]` to the same keys; a group's heads are rows of one product."""
    kv_heads, groups, n, size = q.shape
    kv = pool[keys] if isinstance(keys, slice) else pool.index_select(0, keys)
    kv = kv.permute(1, 2, 0, 3)
    rows = q.reshape(1, kv_heads, groups * n, size)
    out, lse = _attend(rows, kv[0][None], kv[1][None], mask, scale)
    return out.reshape(q.shape), lse.reshape(q.shape[:3])


def _padded(q: Tensor, pool: Tensor, own: Own, scale: float) -> tuple[Tensor, Tensor]:
    """Attend from each query `[heads, groups, B, d]` to its own keys."""
    rows, width = own.keys.shape
    kv = pool.index_select(0, own.keys.view(-1)).view(rows, width, *pool.shape[1:])
    kv = kv.permute(2, 0, 3, 1, 4)
    out, lse = _attend(q.permute(2, 0, 1, 3), kv[0], kv[1], own.mask, scale)
    return out.permute(1, 2, 0, 3), lse.permute(1, 2, 0)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attend from `[B, heads, n, d]` to `[B, heads, L, d]`; also return the log-sum-exp of the scores in float32."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=mask, scale=scale
        )
    return attend_by_matmul(q, k, v, mask, scale)


def attend_by_matmul(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attend from `[B, heads, n, d]` to `[B, heads, L, d]` in plain tensor operations, for any device.

    Returns:
        The output, and the log-sum-exp of the scores in float32.
    """
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * scale
    if mask is not None:
        scores += mask
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None]).exp_().to(v.dtype)
    return torch.matmul(weights, v), lse


def _merge(out: Tensor, lse: Tensor, other: Tensor, weight: Tensor) -> None:
    """Merge another part into `out` and `lse` in place."""
    both = torch.logaddexp(lse, weight)
    out.mul_((lse - both).exp_()[..., None].to(out.dtype))
    out.add_(other * (weight - both).exp_()[..., None].to(out.dtype))
    lse.copy_(both)


AttentionInterface.register(NAME, pool_attention)
