"""A transformers causal model, with its keys, values and hidden states in one pool, slot by slot."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tts_tui.backends.engine import attention
from tts_tui.backends.engine.attention import PoolCache, Sequence_, make_plan
from tts_tui.errors import BackendUnavailable

POOL_BYTES = 2 << 30
"""Most memory that the pool takes by default, unless one longest sequence needs more."""

POOL_SHARE = 0.25
"""Share of the machine's memory that the pool takes at most by default."""


class CausalModel:
    """Runs new tokens of many sequences at once, over keys and values that they share.

    Args:
        model: A transformers causal LM, or the body of one, in evaluation mode; its attention is replaced.
        slots: Tokens that the pool holds; None takes what `POOL_BYTES` and `POOL_SHARE` allow.

    Attributes:
        slots: Tokens that the pool holds.
        context: Longest sequence that the model was made for.
        parameters: Weights that each token passes.
        states: `[slots, width]`: the final normed states, in the model's dtype.

    Raises:
        BackendUnavailable: The model's attention is not what this engine computes.
    """

    def __init__(self, model: Any, *, slots: int | None = None) -> None:
        self.model = model
        self.config = model.config.get_text_config()
        self.device, self.dtype = model.device, model.dtype
        self._body = model.get_decoder()
        self._head = model.get_output_embeddings()
        check(model)
        self.context = _context(self.config)
        self.parameters = _parameters(model)
        layers, heads = self.config.num_hidden_layers, self.config.num_attention_heads
        kv_heads = getattr(self.config, "num_key_value_heads", None) or heads
        size = getattr(self.config, "head_dim", None) or self.config.hidden_size // heads
        self._groups = heads // kv_heads
        self._width = self.config.hidden_size
        each = torch.empty(0, dtype=self.dtype).element_size() * (layers * 2 * kv_heads * size + self._width)
        self.bytes_per_token = each
        self.slots = slots or _default_slots(each, self.context, self.device)
        # transformers renames it in the course of its 5th version, one model after the other.
        known = inspect.signature(self._body.forward).parameters
        self._cache_name = "cache" if "cache" in known else "past_key_values"
        self._cache = PoolCache(layers, self.slots, kv_heads, size, self.dtype, self.device)
        self.states = torch.empty((self.slots, self._width), dtype=self.dtype, device=self.device)
        self._check_arithmetic()

    @torch.inference_mode()
    def run(self, sequences: Sequence[Sequence_], ids: Sequence[int], positions: Sequence[int]) -> None:
        """Runs new tokens; their keys, values and states are in the pool afterwards.

        Args:
            sequences: In tree order (`attention.tree_order`).
            ids: Their new tokens, one sequence after the other.
            positions: Where each of them stands in its sequence.
        """
        plan = make_plan(sequences, self._groups, self.dtype, self.device)
        self._cache.aim(plan.write)
        out = self._body(
            input_ids=torch.tensor([ids], device=self.device),
            position_ids=torch.tensor([positions], device=self.device),
            use_cache=True,
            plan=plan,
            **{self._cache_name: self._cache},
        )
        self.states.index_copy_(0, plan.write, out.last_hidden_state[0])

    @torch.inference_mode()
    def logits(self, slots: Sequence[int]) -> Tensor:
        """Next-token logits, `[len(slots), vocabulary]` in float32, after the tokens in `slots`.

        Only of a model that has a head for tokens.
        """
        states = self.states[torch.tensor(slots, device=self.device)]
        logits = self._head(states).float()
        # What models do to their logits has no extension point; `_check_arithmetic` finds what is missing here.
        if scale := getattr(self.config, "logits_scaling", None):
            logits /= scale
        if scale := getattr(self.config, "logit_scale", None):
            logits *= scale
        if cap := getattr(self.config, "final_logit_softcapping", None):
            logits = logits.div_(cap).tanh_().mul_(cap)
        return logits

    def features(self, slots: Sequence[int]) -> Tensor:
        """A copy of the states, `[len(slots), width]` in float32 on the CPU, of the tokens in `slots`."""
        # Ordinary tensors, so that a reward model can also be trained on them.
        with torch.inference_mode(False):
            return self.states[torch.tensor(slots, device=self.device)].float().cpu()

    @torch.inference_mode()
    def _check_arithmetic(self) -> None:
        """Compares a few tokens with the model's own attention: no model is served wrongly without notice."""
        n = min(8, self.slots - 1, self.context)
        ids = [(7 * i + 3) % self.config.vocab_size for i in range(n)]
        try:
            out = self.model(torch.tensor([ids], device=self.device), use_cache=False)
            expected = (out.last_hidden_state if self._head is None else out.logits)[0].float()
            self.model.set_attn_implementation(attention.NAME)
            self.run([Sequence_([], [], range(n - 2))], ids[: n - 2], range(n - 2))
            for at in (n - 2, n - 1):
                self.run([Sequence_([], range(at), [at])], [ids[at]], [at])
            got = self.states[:n].float() if self._head is None else self.logits(range(n))
        except torch.OutOfMemoryError:
            raise
        except (NotImplementedError, TypeError, ValueError, RuntimeError, KeyError, AttributeError) as error:
            raise _unsupported(self.config, f"its attention does not fit the shared cache ({error})") from error
        exact = self.dtype == torch.float32
        if self._head is None:
            # By direction and length: a few channels of a state are a hundred times as large as the others.
            off, limit = float(((got - expected).norm(dim=1) / expected.norm(dim=1)).max()), 1e-3 if exact else 0.2
        else:
            off = float((got - expected).abs().max())
            limit = 1e-4 + float(expected.std()) * (0.01 if exact else 0.3)
        if not off <= limit:
            raise _unsupported(self.config, f"its outputs come out different (by {off:.2g})")


def check(model: Any) -> None:
    """Refuses models whose attention is not plain causal attention over all tokens.

    Raises:
        BackendUnavailable: With the reason.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention"}:
        raise _unsupported(config, f"it has layers of {', '.join(sorted(kinds - {'full_attention'}))}")
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window and not kinds:
        raise _unsupported(config, f"it has a sliding window of {window} tokens")
    if not getattr(model, "_supports_attention_backend", False):
        raise _unsupported(config, "its code has its attention built in")


def _unsupported(config: Any, why: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"the in-process engine cannot run {config.model_type} models of this kind: {why}; use another model"
    )


def _context(config: Any) -> int:
    longest = int(getattr(config, "max_position_embeddings", None) or 2048)
    rope = getattr(config, "rope_parameters", None) or {}
    # These change all positions' angles with the length of the longest sequence: keys computed before would be wrong.
    if rope.get("rope_type") in ("dynamic", "longrope"):
        longest = min(longest, int(rope.get("original_max_position_embeddings") or longest))
    return longest


def _parameters(model: Any) -> int:
    total = sum(p.numel() for p in model.parameters())
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    # Looking a row up in the embedding table is no arithmetic; tied to the head, it is counted as the head.
    return int(total if head is not None and table is head.weight else total - table.numel())


def _default_slots(each: int, context: int, device: Any) -> int:
    if device.type == "cuda":
        room = int(torch.cuda.mem_get_info(device)[0] * 0.6)
    else:
        known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 8 << 30
        room = int(min(max(POOL_BYTES, context * each), memory * POOL_SHARE))
    return max(64, room // each)
