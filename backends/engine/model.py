"""A transformers causal model whose keys, values and hidden states are stored in one pool, one slot per token."""

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
"""The most memory in bytes that the pool takes by default, unless one sequence of full length needs more."""

POOL_SHARE = 0.25
"""The largest share of the machine's memory that the pool takes by default."""


class CausalModel:
    """A causal model that runs new tokens of many sequences at once, over shared keys and values.

    Args:
        model: A transformers causal LM, or the body of one, in evaluation mode; its attention is replaced.
        slots: The number of tokens that the pool holds; None chooses it by `POOL_BYTES` and `POOL_SHARE`.

    Attributes:
        slots: The number of tokens that the pool holds.
        context: The longest sequence, in tokens, that the model supports.
        parameters: The number of weights that take part in the computation of each token.
        states: The final normed hidden states, `[slots, width]`, in the model's dtype.

    Raises:
        BackendUnavailable: The engine does not support the model's attention.
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
        # transformers 5 renames this argument, one model after another.
        known = inspect.signature(self._body.forward).parameters
        self._cache_name = "cache" if "cache" in known else "past_key_values"
        self._cache = PoolCache(layers, self.slots, kv_heads, size, self.dtype, self.device)
        self.states = torch.empty((self.slots, self._width), dtype=self.dtype, device=self.device)
        self._check_arithmetic()

    @torch.inference_mode()
    def run(self, sequences: Sequence[Sequence_], ids: Sequence[int], positions: Sequence[int]) -> None:
        """Run new tokens, and store their keys, values and hidden states in the pool.

        Args:
            sequences: The sequences, in tree order (`attention.tree_order`).
            ids: The new tokens of the sequences, concatenated.
            positions: The position of each new token in its sequence.
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
        """Return next-token logits, `[len(slots), vocabulary]` in float32, after the tokens in `slots`.

        The model must have a language-model head.
        """
        states = self.states[torch.tensor(slots, device=self.device)]
        logits = self._head(states).float()
        # Post-processing of logits by models has no extension point; `_check_arithmetic` detects cases missing here.
        if scale := getattr(self.config, "logits_scaling", None):
            logits /= scale
        if scale := getattr(self.config, "logit_scale", None):
            logits *= scale
        if cap := getattr(self.config, "final_logit_softcapping", None):
            logits = logits.div_(cap).tanh_().mul_(cap)
        return logits

    def features(self, slots: Sequence[int]) -> Tensor:
        """Return a copy of the hidden states of the tokens in `slots`, `[len(slots), width]` in float32 on the CPU."""
        # Return ordinary tensors, not inference tensors, so that a reward model can also be trained on them.
        with torch.inference_mode(False):
            return self.states[torch.tensor(slots, device=self.device)].float().cpu()

    @torch.inference_mode()
    def _check_arithmetic(self) -> None:
        """Compare a few tokens with the model's own attention, so that an unsupported model fails here.

        Raises:
            BackendUnavailable: The results differ, or the model cannot run with this attention.
        """
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
            # Compare whole vectors: a few channels of a state are a hundred times as large as the others.
            off, limit = float(((got - expected).norm(dim=1) / expected.norm(dim=1)).max()), 1e-3 if exact else 0.2
        else:
            off = float((got - expected).abs().max())
            limit = 1e-4 + float(expected.std()) * (0.01 if exact else 0.3)
        if not off <= limit:
            raise _unsupported(self.config, f"its outputs come out different (by {off:.2g})")


def check(model: Any) -> None:
    """Check that a model's attention is plain causal attention over all tokens.

    Raises:
        BackendUnavailable: It is not; the message gives the reason.
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
    # These types change the angles of all positions with the longest sequence, which would invalidate cached keys.
    if rope.get("rope_type") in ("dynamic", "longrope"):
        longest = min(longest, int(rope.get("original_max_position_embeddings") or longest))
    return longest


def _parameters(model: Any) -> int:
    total = sum(p.numel() for p in model.parameters())
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    # An embedding lookup is not arithmetic; an embedding table that is tied to the head is counted as the head.
    return int(total if head is not None and table is head.weight else total - table.numel())


def _default_slots(each: int, context: int, device: Any) -> int:
    if device.type == "cuda":
        room = int(torch.cuda.mem_get_info(device)[0] * 0.6)
    else:
        known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 8 << 30
        room = int(min(max(POOL_BYTES, context * each), memory * POOL_SHARE))
    return max(64, room // each)
