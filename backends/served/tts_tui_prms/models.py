"""Networks with a head of one or two linear layers, which is read at the last token of the input.

The outputs are logits, in float32, which the client converts to scores, followed by the number of tokens that were
computed for them, which SGLang's replies to such requests do not include. Keys and values are kept in the radix cache
like those of any other model. The server does not start on a checkpoint that lacks a tensor, because a score computed
with random weights looks like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, ClassVar

import torch
from sglang.srt.layers.pooler import EmbeddingPoolerOutput, Pooler, PoolingType
from sglang.srt.models.llama import LlamaForCausalLM, LlamaModel
from sglang.srt.models.qwen2 import Qwen2ForCausalLM, Qwen2Model
from torch import nn

_PACKED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
"""Layers that SGLang packs from several layers of a checkpoint."""
_OTHER_NAMES = {"classifier": "score"}

Weights = Iterable[tuple[str, torch.Tensor]]


class _Scorer(nn.Module):
    """A reward model of a network and a head.

    Attributes:
        network: SGLang's class of the network.
        loader: SGLang's class that loads the network's weights.
        layers: The names of the head's linear layers in a checkpoint; there is a ReLU between two layers.
        labels: The number of outputs; None takes the number of labels in the configuration.
        biased: True if each layer must have a bias; otherwise a missing bias is zero.
    """

    network: ClassVar[Any]
    loader: ClassVar[Any]
    layers: ClassVar[tuple[str, ...]] = ("score",)
    labels: ClassVar[int | None] = None
    biased: ClassVar[bool] = False

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        super().__init__()
        self.config = config
        self.quant_config = quant_config
        self.model = self.network(config, quant_config=quant_config, prefix=f"{prefix}.model" if prefix else "model")
        size, labels = config.hidden_size, config.num_labels if self.labels is None else self.labels
        sizes = [size] * len(self.layers) + [labels]
        self.head = nn.ModuleList(nn.Linear(before, after, dtype=torch.float32) for before, after in pairwise(sizes))
        for layer in self.head:
            nn.init.zeros_(layer.bias)
        self.pooler = Pooler(pooling_type=PoolingType.LAST, normalize=False)

    @torch.no_grad()
    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        forward_batch: Any,
        input_embeds: torch.Tensor | None = None,
        get_embedding: bool = True,
    ) -> EmbeddingPoolerOutput:
        """Return logits at the last token of each sequence, and how many of its tokens were not in the cache.

        For a sequence that is computed in several chunks, both are those of the last chunk.
        """
        states = self.model(input_ids, positions, forward_batch, input_embeds)
        states = self.pooler(states, forward_batch).embeddings.float()
        for place, layer in enumerate(self.head):
            states = layer(states.relu() if place else states)
        computed = forward_batch.extend_seq_lens.to(states).unsqueeze(1)
        return EmbeddingPoolerOutput(embeddings=torch.cat([states, computed], dim=1))

    def load_weights(self, weights: Weights) -> None:
        """Load all required tensors, and ignore those on which scores do not depend.

        Raises:
            ValueError: A tensor is missing or has another shape.
        """
        seen: set[str] = set()
        load = getattr(self.loader, "_legacy_load_weights", self.loader.load_weights)
        load(self, self._without_head(weights, seen))
        name = type(self).__name__
        if missing := sorted(self._needed() - seen):
            more = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
            raise ValueError(f"the checkpoint lacks {missing[0]}{more}: it is no {name}, or download it again")

    def _without_head(self, weights: Weights, seen: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Load the head's tensors, and yield those of the network; add the names of both to `seen`."""
        own = {
            f"{layer}.{part}": (place, part) for place, layer in enumerate(self.layers) for part in ("weight", "bias")
        }
        for name, tensor in weights:
            layer, _, part = name.rpartition(".")
            name = f"{_OTHER_NAMES.get(layer, layer)}.{part}"
            if name in own:
                place, part = own[name]
                parameter = getattr(self.head[place], part)
                if parameter.shape != tensor.shape:
                    got, want = (" x ".join(map(str, shape)) for shape in (tensor.shape, parameter.shape))
                    raise ValueError(
                        f"{name} in the checkpoint is {got} and not {want}: it is no {type(self).__name__}"
                    )
                parameter.data.copy_(tensor)
            elif name.startswith("model."):
                yield name, tensor
            else:
                continue
            seen.add(name)

    def _needed(self) -> set[str]:
        """Return the names of the tensors that a checkpoint must have."""
        parts = ("weight", "bias") if self.biased else ("weight",)
        needed = {f"{layer}.{part}" for layer in self.layers for part in parts}
        if self.quant_config is None:  # quantized networks use different tensor names
            for name, _ in self.model.named_parameters():
                packed = next((packed for packed in _PACKED if packed in name), "")
                needed |= {"model." + name.replace(packed, part) for part in _PACKED.get(packed, (packed,))}
        return needed


class _Qwen2(_Scorer):
    network, loader = Qwen2Model, Qwen2ForCausalLM


class _Llama(_Scorer):
    network, loader = LlamaModel, LlamaForCausalLM


class Qwen2ForProcessRewardModel(_Qwen2):
    """Qwen2.5-Math-PRM, whose outputs are logits of bad and good."""

    layers, labels, biased = ("score.0", "score.2"), 2, True


class Qwen2ForPrmModel(_Qwen2):
    """Skywork-o1-Open-PRM, whose output is one logit."""

    layers, labels, biased = ("v_head.summary",), 1, True


class Qwen2ForTokenClassification(_Qwen2):
    """PRMs of TRL's trainer on Qwen2, whose outputs are logits of bad and good."""


class LlamaForTokenClassification(_Llama):
    """PRMs of TRL's trainer on Llama, whose outputs are logits of bad and good."""


class MistralForTokenClassification(_Llama):
    """PRMs of TRL's trainer on Mistral, whose outputs are logits of bad and good."""


class Qwen2ForSequenceClassification(_Qwen2):
    """Outcome reward models on Qwen2. SGLang's own class leaves a bias that a checkpoint lacks at random values."""


class LlamaForSequenceClassification(_Llama):
    """Outcome reward models on Llama, with a zero bias where a checkpoint has none."""


class MistralForSequenceClassification(_Llama):
    """Outcome reward models on Mistral, with a zero bias where a checkpoint has none."""


EntryClass = [
    Qwen2ForProcessRewardModel,
    Qwen2ForPrmModel,
    Qwen2ForTokenClassification,
    LlamaForTokenClassification,
    MistralForTokenClassification,
    Qwen2ForSequenceClassification,
    LlamaForSequenceClassification,
    MistralForSequenceClassification,
]
