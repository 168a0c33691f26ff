"""The embedded PRM: a small head on the embedded policy's own hidden states, trained by this project.

It reads what the policy's layers hold at the tokens of a step, and says how likely the solution is still on the way to
the right answer. The policy has computed those states already, so scoring its own steps costs no forward pass.
`docs/embedded-prm.md` is the model card; `tts_tui.evaluation.train_prm` made the weights.

::

    x = clip((mean of the step's states - mean) / scale)      over the last `WINDOW` tokens of the step
    score = sigmoid(gelu(x W1 + b1) w2 + b2)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from tts_tui.backends import pull
from tts_tui.backends.embedded import EmbeddedPolicy
from tts_tui.contracts import ModelInfo, Policy, ScoreRequest, StepScore
from tts_tui.errors import BackendError, BackendUnavailable

# numpy is loaded with the model: what only says which models there are, such as the first screen, does without it.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tts_tui.backends.engine import Engine

    Floats = NDArray[np.float32]

TITLE = "embedded PRM"
FORMAT = "tts-tui embedded prm 1"
WINDOW = 24
"""Tokens of a step that are read at most, counted from its end."""

CLIP = 6.0
_RETRAIN = "train it again with `python -m tts_tui.evaluation.train_prm`"


class Head(Struct, frozen=True):
    """The weights, and what they were trained on.

    Attributes:
        layers: Captured layers; the final normed state follows them.
        fingerprint: Of the model whose states it reads (`pull.fingerprint`).
        mean: `[features]`, taken off the states.
        scale: `[features]`, which then divides them.
        w1: `[features, hidden]`.
        b1: `[hidden]`.
        w2: `[hidden]`.
        b2: `[1]`.
    """

    layers: tuple[int, ...]
    fingerprint: str
    mean: Floats
    scale: Floats
    w1: Floats
    b1: Floats
    w2: Floats
    b2: Floats

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(part.size for part in (self.mean, self.scale, self.w1, self.b1, self.w2, self.b2))

    def score(self, steps: Sequence[Floats]) -> list[float]:
        """Scores in [0, 1] of steps, each given as the mean of its states, `[features]`."""
        # One step at a time: a score must not depend on which others are in the batch, not even by rounding.
        return [self._one(step) for step in steps]

    def _one(self, step: Floats) -> float:
        import numpy as np

        x = np.clip((step - self.mean) / self.scale, -CLIP, CLIP)
        logit = float(_gelu(x @ self.w1 + self.b1) @ self.w2 + self.b2[0])
        return float(1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0))))


def _gelu(x: Floats) -> Floats:
    """The tanh form, as torch's `gelu(approximate="tanh")`."""
    import numpy as np

    return (0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))).astype(np.float32)


# --- weights on disk --------------------------------------------------------------------------------------------------

_SHAPED = ("mean", "scale", "w1", "b1", "w2", "b2")


def shipped() -> Path:
    """The weights that come with this package."""
    return Path(str(resources.files("tts_tui") / "data" / "embedded_prm.safetensors"))


def save_head(head: Head, path: Path, about: str) -> None:
    """Writes the head; `about` says how it was made."""
    import numpy as np
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(getattr(head, name), dtype=np.float32) for name in _SHAPED}
    layout = {"layers": list(head.layers), "fingerprint": head.fingerprint, "window": WINDOW}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": FORMAT, "layout": json.dumps(layout), "about": about})
    path.chmod(0o644)  # safetensors makes files that only their owner can read


def load_head(path: Path) -> Head:
    """Reads a head and checks its shapes.

    Raises:
        BackendUnavailable: It is missing, damaged, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            stored = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BackendUnavailable(f"the PRM weights {path} cannot be read ({error}): {_RETRAIN}") from error
    if stored.get("format") != FORMAT or set(tensors) != set(_SHAPED):
        raise BackendUnavailable(f"{path} holds no embedded PRM of this version: {_RETRAIN}")
    layout = json.loads(stored["layout"])
    head = Head(tuple(layout["layers"]), layout["fingerprint"], **tensors)
    features, hidden = head.w1.shape if head.w1.ndim == 2 else (-1, -1)
    shapes = {name: tensors[name].shape for name in _SHAPED}
    wanted = {"mean": (features,), "scale": (features,), "w1": (features, hidden), "b1": (hidden,)}
    wanted |= {"w2": (hidden,), "b2": (1,)}
    if shapes != wanted or layout["window"] != WINDOW:
        raise BackendUnavailable(f"the shapes in {path} do not fit together: {_RETRAIN}")
    return head


# --- the reward model -------------------------------------------------------------------------------------------------


class EmbeddedPRM:
    """A `RewardModel` on the embedded model's states.

    With the embedded policy it shares the policy's engine and reads what that has computed. With any other policy it
    loads the embedded model itself, and reads the same problem and steps as text under its own few-shot prompt.

    Args:
        policy: The policy of the same run, if any.
        path: Other weights than the shipped ones.
        progress: Told about the download of the model, where that is needed.

    Attributes:
        profile: Name of what is known of it (`tts_tui.profiles`).
    """

    profile = "embedded"

    def __init__(
        self, policy: Policy | None = None, *, path: Path | None = None, progress: pull.Progress | None = None
    ) -> None:
        self._shares = isinstance(policy, EmbeddedPolicy)
        self._model = policy if isinstance(policy, EmbeddedPolicy) else EmbeddedPolicy(progress=progress)
        self._path = path or shipped()
        self._head: Head | None = None

    @property
    def info(self) -> ModelInfo:
        """The base model with the head; valid after `start`."""
        base, head = self._model.info, self._ready()
        return ModelInfo(TITLE, base.parameters + head.parameters, base.context, base.family)

    async def start(self) -> None:
        """Loads the head, and the model unless the policy has it.

        Raises:
            BackendUnavailable: They cannot be had, or do not fit each other.
        """
        head = await asyncio.to_thread(load_head, self._path)
        if not self._shares:
            await self._model.start()
        if head.layers != self._model.capture:
            raise BackendUnavailable(
                f"the PRM reads layers {list(head.layers)} and the policy keeps {list(self._model.capture)}: "
                f"start the policy with capture={list(head.layers)}"
            )
        if head.fingerprint != await asyncio.to_thread(pull.fingerprint, self._model.path):
            raise BackendUnavailable(f"the PRM {self._path.name} was trained on another model: {_RETRAIN}")
        self._head = head

    async def close(self) -> None:
        """Frees what `start` loaded; a shared policy is left alone. Safe to call twice."""
        self._head = None
        if not self._shares:
            await self._model.close()

    async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
        """Scores the last step of each request, in order; a batch may mix problems.

        Raises:
            BackendError: The engine failed, or a request has no step.
        """
        head = self._ready()
        paths = await asyncio.gather(*(self._path_ids(request) for request in requests))
        states = await step_states(self._model.engine, paths)
        scores = head.score([state.mean for state in states])
        return [StepScore(score, state.computed, state.cached) for score, state in zip(scores, states, strict=True)]

    def _ready(self) -> Head:
        if self._head is None:
            raise BackendError("the PRM has not been started")
        return self._head

    async def _path_ids(self, request: ScoreRequest) -> tuple[tuple[int, ...], int]:
        """Ids of prompt and path, and how many of them are the step to score."""
        if not request.steps:
            raise BackendError("there is no step to score")
        if self._shares:
            ids = request.prompt.ids + tuple(token for step in request.step_ids for token in step)
            return ids, len(request.step_ids[-1])
        prompt = await self._model.prompt(request.prompt.problem)
        steps = [self._model.step_ids(text) for text in request.steps]
        return prompt.ids + tuple(token for step in steps for token in step), len(steps[-1])


# --- states -----------------------------------------------------------------------------------------------------------


class StepStates(Struct, frozen=True):
    """What a head reads of a step.

    Attributes:
        mean: `[features]`, the mean over the last `WINDOW` tokens of the step.
        computed: Tokens of the path that had to be run for it.
        cached: Tokens of the path that had been run before.
    """

    mean: Floats
    computed: int
    cached: int


async def step_states(engine: Engine, paths: Sequence[tuple[tuple[int, ...], int]]) -> list[StepStates]:
    """States of the last step of each path.

    Args:
        engine: A running engine.
        paths: Ids of prompt and path, and how many of them are the last step.
    """
    import numpy as np

    ends = await engine.states([ids for ids, _ in paths], [min(length, WINDOW) for _, length in paths])
    return [StepStates(np.asarray(end.features).mean(0), end.computed, end.cached) for end in ends]
