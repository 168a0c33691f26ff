"""Sampling parameters for OpenAI-compatible servers: which of them a server accepts, and the values that are sent.

Servers fill in parameters that a request leaves out, each in its own way: vLLM from the model's
`generation_config.json`, llama.cpp with a top_k of 40 and a min_p of 0.05, MLX with temperature 0. So every parameter
is sent with every request, with a neutral value if the plan has none. Only temperature, top_p, seed and the presence
and frequency penalties are OpenAI's own; servers that refuse others are asked without them, and `Parameters.note`
reports it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tts_tui.errors import RequestRefused
from tts_tui.protocols import Sampling

SEEDS = 2**31
"""Upper bound of seeds: llama.cpp takes 32 bits. About one in two billion pairs of samples shares a seed."""

Fields = Mapping[str, Any]
"""Part of the fields of a request."""

OPTIONAL: dict[str, Sequence[Fields]] = {
    "top_k": ({"top_k": -1}, {"top_k": 0}),
    "min_p": ({"min_p": 0.0},),
    "repetition_penalty": (
        {"repetition_penalty": 1.0, "repeat_penalty": 1.0},
        {"repetition_penalty": 1.0},
        {"repeat_penalty": 1.0},
    ),
    "presence_penalty": ({"presence_penalty": 0.0},),
    "frequency_penalty": ({"frequency_penalty": 0.0},),
    "seed": ({"seed": 0},),
    "skip_special_tokens": (
        {"skip_special_tokens": False, "spaces_between_special_tokens": False},
        {"skip_special_tokens": False},
    ),
}
"""Parameters that a server may refuse, by their names in notes, each with its alternative forms and neutral values. MLX
disables top_k by 0, SGLang by -1; llama.cpp has another name for the repetition penalty. A path is continued from its
text, so special tokens that the model generates must be part of it."""

Probe = Callable[[Fields], Awaitable[object]]
"""Function that sends a request with the given fields."""


class Parameters:
    """The sampling parameters that one server accepts; all of them until `find` is called.

    Args:
        url: The server's address, for messages.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._taken = {name: ways[0] for name, ways in OPTIONAL.items()}

    def fields(self, sampling: Sampling, seed: int) -> dict[str, Any]:
        """Return the sampling fields of a request.

        Raises:
            RequestRefused: The server does not accept a parameter that `sampling` needs.
        """
        fields: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        for way in self._taken.values():
            fields |= way
        if "seed" in fields:
            fields["seed"] = seed % SEEDS
        if sampling.top_k > 0:
            if "top_k" not in fields:
                raise RequestRefused(
                    f"{self._url} does not take top_k, and the plan samples from the {sampling.top_k} likeliest "
                    "tokens: use a plan without top_k, or another server"
                )
            fields["top_k"] = sampling.top_k
        return fields

    async def find(self, probe: Probe) -> None:
        """Find out which parameters the server accepts, by trying each one separately.

        Raises:
            BackendError: A request failed for another reason than a refusal.
        """
        self._taken = {}
        for name, ways in OPTIONAL.items():
            for way in ways:
                try:
                    await probe(way)
                except RequestRefused:
                    continue
                self._taken[name] = way
                break

    @property
    def note(self) -> str | None:
        """A sentence for users that names the parameters the server refuses; None if it accepts all."""
        missing = [name for name in OPTIONAL if name not in self._taken]
        if not missing:
            return None
        return f"{self._url} does not take {', '.join(missing)}: it samples by its own values of these"
