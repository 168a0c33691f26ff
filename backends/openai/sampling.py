"""Sampling parameters for OpenAI-compatible servers: which of them a server takes, and what is sent.

Servers fill in what a request leaves out, each in its own way: vLLM from the model's `generation_config.json`,
llama.cpp with a top_k of 40 and a min_p of 0.05, MLX with temperature 0. So every parameter is sent with every request,
with a value that changes nothing where the plan has none. Only temperature, top_p, seed and the penalties of presence
and frequency are OpenAI's own; servers that refuse others are asked without them, and `note` says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tts_tui.errors import RequestRefused
from tts_tui.protocols import Sampling

SEEDS = 2**31
"""Seeds are below this number: llama.cpp takes 32 bits. Of two billion pairs of samples about one shares a seed."""

Fields = Mapping[str, Any]
"""Some fields of a request."""

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
"""What a server may refuse, by what it is called in notes: the ways to say it, with values that change nothing. MLX
switches top_k off by 0, SGLang by -1; llama.cpp calls the penalty for repetition otherwise. A path is continued by its
text, so special tokens that the model writes must stand in it."""

Probe = Callable[[Fields], Awaitable[object]]
"""Sends a request with these fields."""


class Parameters:
    """The sampling parameters that one server takes; at first all of them.

    Args:
        url: The server's address, for messages.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._taken = {name: ways[0] for name, ways in OPTIONAL.items()}

    def fields(self, sampling: Sampling, seed: int) -> dict[str, Any]:
        """The fields of a request.

        Raises:
            RequestRefused: The server does not take a parameter that `sampling` needs.
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
        """Finds out which parameters the server takes, by trying each alone.

        Raises:
            BackendError: The server failed otherwise than by refusing.
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
        """What users should know of it, in a sentence; None if the server takes all."""
        missing = [name for name in OPTIONAL if name not in self._taken]
        if not missing:
            return None
        return f"{self._url} does not take {', '.join(missing)}: it samples by its own values of these"
