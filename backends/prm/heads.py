"""Conversion of a PRM network's output to a score in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tts_tui.backends.engine.jobs import HiddenState

Readout = Literal["tokens", "softmax2", "sigmoid"]
"""The kind of outputs: logits (or log-probabilities) of good and bad token; logits of bad and good; one logit."""


def score_of(readout: Readout, values: Sequence[float]) -> float:
    """Convert outputs to a score in [0, 1].

    Args:
        readout: The kind of outputs.
        values: The outputs, one or two.

    Raises:
        ValueError: There are too many or too few outputs, or some are not finite: a made-up score would mislead a
            search.
    """
    if len(values) != (1 if readout == "sigmoid" else 2) or not all(map(math.isfinite, values)):
        raise ValueError(f"a PRM put out {list(values)!r}")
    if readout == "sigmoid":
        logit = values[0]
    else:
        logit = values[0] - values[1] if readout == "tokens" else values[1] - values[0]
    if logit < 0:  # avoids overflow
        return math.exp(logit) / (1.0 + math.exp(logit))
    return 1.0 / (1.0 + math.exp(-logit))


class ScoreHead:
    """A head of linear layers with ReLU in between, on the final normed hidden state.

    Args:
        layers: The weight `[out, in]` and the bias `[out]` or None of each layer, float32 on the CPU.
        readout: The kind of outputs of the last layer.
    """

    def __init__(self, layers: Sequence[tuple[Any, Any]], readout: Readout) -> None:
        self._layers = list(layers)
        self._readout: Readout = readout

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(part.numel() for layer in self._layers for part in layer if part is not None)

    def scores(self, ends: Sequence[HiddenState]) -> list[float | None]:
        """Return the scores of hidden states, each at the end of a path; None where an output is not finite."""
        import torch
        from torch.nn.functional import linear

        with torch.inference_mode():
            states = torch.cat([end.features[-1:] for end in ends])
            for place, (weight, bias) in enumerate(self._layers):
                states = linear(states.relu() if place else states, weight, bias)
        return [self._score(row) for row in states.tolist()]

    def _score(self, outputs: Sequence[float]) -> float | None:
        try:
            return score_of(self._readout, outputs)
        except ValueError:
            return None
