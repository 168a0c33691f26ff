"""The file format of an adapter PRM: its weights in bfloat16, and the metadata needed to use them.

Reading the metadata (`peek`) imports no model library.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tts_tui.errors import BackendUnavailable, UsageError
from tts_tui.files import open_regular

FORMAT = "tts-tui adapter 1"
_LONGEST_HEADER = 100_000_000
_RETRAIN = "train it again with `tts-tui train-prm`"


class Shape(Struct, frozen=True):
    """The layers that an adapter changes, and the size of the changes.

    Attributes:
        depth: The number of layers of the base model that are used.
        first: The index, from 0, of the first adapted layer; all layers after it are adapted too.
        rank: The rank of each change.
        scale: The factor of each change.
    """

    depth: int
    first: int
    rank: int = 16
    scale: float = 2.0


class Sums(Struct, frozen=True):
    """A summary of the log-ratios of the tokens of a step or a path.

    Attributes:
        lowest: The lowest log-ratio.
        total: The sum of the log-ratios.
    """

    lowest: float = 0.0
    total: float = 0.0

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Sums:
        """Summarize log-ratios, none of which is above 0."""
        return cls(min(ratios, default=0.0), sum(ratios))

    def then(self, later: Sums) -> Sums:
        """Return the summary of these tokens followed by `later` ones."""
        return Sums(min(self.lowest, later.lowest), self.total + later.total)


class ScoreModel(Struct, frozen=True):
    """A logistic model of the probability that a solution is still on the way to the right answer after a step.

    Attributes:
        bias: The bias of the logit.
        lowest: The weight of the step's lowest log-ratio.
        total: The weight of the sum of the step's log-ratios.
        lowest_before: The weight of the lowest log-ratio of the earlier steps.
        total_before: The weight of the sum of the earlier steps' log-ratios.
        alone: The weight of the sum of the answer's log-ratios where the answer directly follows the question
            (`tts_tui.backends.adapter.text.alone`).
    """

    bias: float = 0.0
    lowest: float = 1.0
    total: float = 0.0
    lowest_before: float = 1.0
    total_before: float = 0.0
    alone: float = 0.0

    def score(self, step: Sums, before: Sums, alone: float = 0.0) -> float:
        """Return the score in (0, 1) of a step after the steps `before`; `alone` is the sum for the answer alone."""
        logit = (
            self.bias
            + self.lowest * step.lowest
            + self.total * step.total
            + self.lowest_before * before.lowest
            + self.total_before * before.total
            + self.alone * alone
        )
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit))))


class AdapterHead(Struct, frozen=True):
    """The metadata of an adapter.

    Attributes:
        shape: The layers that it changes, and the size of the changes.
        base: The spec of the base model: embedded, hf:PATH or hf:ORG/NAME.
        fingerprint: The fingerprint of the base model's weights (`tts_tui.backends.adapter.lora.fingerprint`).
        step: The score model for steps that do not end the answer.
        answer: The score model for the step that ends the answer.
        defaults: The score and vote that were found to suit it best.
        about: A description, for people, of how it was made.
    """

    shape: Shape
    base: str
    fingerprint: str
    step: ScoreModel = ScoreModel()
    answer: ScoreModel = ScoreModel()
    defaults: dict[str, str] = {}
    about: str = ""


class Adapter(Struct, frozen=True):
    """An adapter with its weights.

    Attributes:
        head: The metadata.
        vocabulary: The ids, `[tokens]` int64, among which the model chooses; every token is compared with the best of
            them.
        tensors: The weights `layers.N.NAME.down` `[rank, in]`, `layers.N.NAME.up` `[out, rank]`, and `norm` `[width]`.
    """

    head: AdapterHead
    vocabulary: Any
    tensors: dict[str, Any]

    @property
    def parameters(self) -> int:
        """The number of weights that it adds."""
        return sum(tensor.numel() for tensor in self.tensors.values())


def save(adapter: Adapter, path: Path) -> None:
    """Write an adapter in bfloat16, atomically.

    Raises:
        OSError: The file cannot be written.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in adapter.tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    metadata = {"format": FORMAT, "head": msgspec.json.encode(adapter.head).decode()}
    try:
        save_file({**tensors, "vocabulary": adapter.vocabulary.to(torch.int32)}, scratch, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{scratch} cannot be written: {error}") from error
    scratch.chmod(0o644)  # safetensors creates files that only their owner can read
    scratch.replace(path)


def peek(path: Path) -> AdapterHead:
    """Read the metadata of an adapter, without its weights.

    Raises:
        BackendUnavailable: It is missing, damaged, or of another format.
    """
    # Parsed without safetensors, which would import numpy, which nothing else needs before a search.
    try:
        with open_regular(path) as file:
            size = int.from_bytes(file.read(8), "little")
            header = msgspec.json.decode(file.read(min(size, _LONGEST_HEADER)), type=dict[str, dict[str, Any]])
    except (OSError, ValueError, RecursionError, msgspec.DecodeError, UsageError) as error:
        raise _unreadable(path, error) from error
    return _head(path, header.pop("__metadata__", {}), header)


def load(path: Path) -> Adapter:
    """Read an adapter with its weights.

    Raises:
        BackendUnavailable: It is missing, damaged, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        open_regular(path).close()  # safetensors would map any kind of file
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, UsageError) as error:
        raise _unreadable(path, error) from error
    head = _head(path, metadata, tensors)
    vocabulary = tensors.pop("vocabulary")
    wrong = _damage(head, vocabulary, tensors)
    if wrong:
        raise BackendUnavailable(f"the PRM {path} is damaged, {wrong}: {_RETRAIN}")
    return Adapter(head, vocabulary.long(), tensors)


def _damage(head: AdapterHead, vocabulary: Any, tensors: dict[str, Any]) -> str:
    """Return what is wrong with the content of an adapter; empty if nothing is."""
    if vocabulary.is_floating_point() or vocabulary.dim() != 1 or not vocabulary.numel():
        return "its vocabulary is not a list of token ids"
    if int(vocabulary.min()) < 0:
        return "its vocabulary has negative token ids"
    # The rank is an unchecked number in the header: it must match the file's tensors before any are allocated by it.
    ranks = {
        tensor.shape[0 if name.endswith(".down") else -1]
        for name, tensor in tensors.items()
        if name.endswith((".down", ".up")) and tensor.dim() == 2
    }
    if ranks != {head.shape.rank}:
        return f"its tensors do not have the rank {head.shape.rank}"
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        return "it has weights that are not finite numbers"
    numbers = (head.shape.scale, *msgspec.structs.astuple(head.step), *msgspec.structs.astuple(head.answer))
    if not all(map(math.isfinite, numbers)):
        return "it has coefficients that are not finite numbers"
    return ""


def _unreadable(path: Path, error: Exception) -> BackendUnavailable:
    return BackendUnavailable(f"the PRM {path} cannot be read ({error}): {_RETRAIN}, or give its file")


def _head(path: Path, metadata: dict[str, Any], names: Container[str]) -> AdapterHead:
    if metadata.get("format") != FORMAT or "vocabulary" not in names:
        raise BackendUnavailable(f"{path} holds no PRM of this version: {_RETRAIN}")
    try:
        return msgspec.json.decode(metadata["head"], type=AdapterHead)
    except (KeyError, RecursionError, msgspec.DecodeError) as error:
        raise BackendUnavailable(f"{path} is damaged: {_RETRAIN}") from error
