"""Low-rank adapters on the weights of a causal model (LoRA, arXiv 2106.09685).

The adapted model shares the tensors of the base model, so that a policy and a reward model made from it fit into the
memory of one model.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tts_tui.backends.adapter.file import Shape
from tts_tui.errors import BackendUnavailable

_VALUES = 64
"""The approximate number of values per weight that a fingerprint includes."""


class LowRank(nn.Module):
    """A linear layer with a low-rank change.

    Args:
        base: The layer; its weights are shared and remain unchanged.
        shape: The rank and scale of the change.
    """

    def __init__(self, base: nn.Linear, shape: Shape) -> None:
        super().__init__()
        self.base, self.scale = base, shape.scale
        like = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.down = nn.Parameter(torch.empty(shape.rank, base.in_features, **like))
        self.up = nn.Parameter(torch.zeros(base.out_features, shape.rank, **like))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output with the change."""
        change = nn.functional.linear(nn.functional.linear(x, self.down), self.up)
        return torch.add(self.base(x), change, alpha=self.scale)


def adapted(model: Any, shape: Shape) -> Any:
    """Return a model that shares the tensors of `model` and has a new adapter, which has no effect yet.

    Args:
        model: A transformers causal LM, which remains unchanged.
        shape: The layers to adapt, and the size of the changes.

    Raises:
        BackendUnavailable: The architecture's layers are not in the expected place, or have no linear parts.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    own = copy.deepcopy(model, shared).requires_grad_(False)
    own.set_attn_implementation("sdpa")
    body = own.get_decoder()
    layers, norm = getattr(body, "layers", None), getattr(body, "norm", None)
    kind = model.config.model_type
    if layers is None or norm is None or not isinstance(getattr(norm, "weight", None), Tensor):
        raise BackendUnavailable(
            f"{kind} models cannot take the adapter: their layers are not where those of Llama, Qwen and Gemma are"
        )
    if not 0 <= shape.first < shape.depth <= len(layers):
        raise BackendUnavailable(
            f"the adapter is for layers {shape.first} to {shape.depth - 1}, and the model has {len(layers)}"
        )
    body.layers = layers[: shape.depth]
    body.config.num_hidden_layers = own.config.num_hidden_layers = shape.depth
    for layer in body.layers[shape.first :]:
        _adapt(layer, shape, kind)
    norm.weight = nn.Parameter(norm.weight.detach().clone())
    return own


def _adapt(layer: nn.Module, shape: Shape, kind: str) -> None:
    found = [(name, part) for name, part in layer.named_modules() if isinstance(part, nn.Linear)]
    if not found:
        raise BackendUnavailable(f"{kind} models cannot take the adapter: their layers have no linear parts")
    for name, part in found:
        parent, _, last = name.rpartition(".")
        setattr(layer.get_submodule(parent), last, LowRank(part, shape))


def learned(model: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of an `adapted` model's adapter, with their names in `Adapter.tensors`."""
    body = model.get_decoder()
    for name, part in body.layers.named_modules():
        if isinstance(part, LowRank):
            yield f"layers.{name}.down", part.down
            yield f"layers.{name}.up", part.up
    yield "norm", body.norm.weight


def put(model: Any, tensors: dict[str, Tensor]) -> None:
    """Copy an adapter's tensors into an `adapted` model.

    Raises:
        BackendUnavailable: The names or shapes of the tensors do not match the model.
    """
    places = dict(learned(model))
    if {name: place.shape for name, place in places.items()} != {name: own.shape for name, own in tensors.items()}:
        raise BackendUnavailable("the adapter's tensors do not fit the model: train it again for this model")
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(tensors[name])


def fingerprint(model: Any) -> str:
    """Return a short checksum of a base model, over the shapes of all weights and some bfloat16 values of each."""
    weights = sorted((name, tensor) for name, tensor in model.state_dict().items())
    digest = hashlib.sha256(json.dumps([(name, list(tensor.shape)) for name, tensor in weights]).encode())
    for _, tensor in weights:
        values = tensor.detach().flatten()
        some = values[:: max(1, len(values) // _VALUES)]
        digest.update(some.bfloat16().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
