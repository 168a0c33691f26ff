"""How many weights a served model has, for FLOPs, and token ids: from its files on this machine, else from its name."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path

import msgspec

_WHOLE = frozenset({"F64", "F32", "F16", "BF16"})
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BbMm])(?![A-Za-z])")
_ACTIVE = re.compile(r"(?<![A-Za-z0-9])A(\d+(?:\.\d+)?)B(?![A-Za-z])")
_UNIT = {"b": 1e9, "m": 1e6}


def count_parameters(model: str, *, scores: bool = False) -> int:
    """Weights that each token passes; 0 if neither files nor name tell.

    Args:
        model: A folder, a hub id, or any name.
        scores: Whether it is a reward model, of whose head for tokens no more than two rows count.
    """
    return _in_files(Path(model), scores) or _in_name(model)


def vocabulary_of(model: str) -> int:
    """Return how many token ids a model has, by the files of its folder; 0 if it is not on this machine."""
    try:
        config = msgspec.json.decode((Path(model) / "config.json").read_bytes())
        size = config.get("text_config", config)["vocab_size"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return 0
    return size if isinstance(size, int) and size > 0 else 0


def _in_files(folder: Path, scores: bool) -> int:
    """By the headers of its safetensors files; packed weights of quantized models are not counted but given up on."""
    shapes: dict[str, int] = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with file.open("rb") as stream:
                header = msgspec.json.decode(stream.read(int.from_bytes(stream.read(8), "little")))
            for name, tensor in header.items():
                if name == "__metadata__":
                    continue
                if tensor["dtype"] not in _WHOLE:
                    return 0
                shapes[name] = prod(tensor["shape"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError, OverflowError, MemoryError):
        return 0
    total = sum(shapes.values())
    if scores:
        return total - shapes.get("model.embed_tokens.weight", 0) - shapes.get("lm_head.weight", 0)
    if "lm_head.weight" in shapes:  # a table of its own only looks tokens up
        total -= shapes.get("model.embed_tokens.weight", 0)
    return total


def _in_name(model: str) -> int:
    """The size that the name ends in: 7B, 135M; of a mixture of experts, what is active."""
    name = model.rstrip("/").rpartition("/")[2]
    if active := _ACTIVE.search(name):
        return int(float(active[1]) * 1e9)
    sizes = _SIZE.findall(name.replace("_", "-"))
    return int(float(sizes[-1][0]) * _UNIT[sizes[-1][1].lower()]) if sizes else 0
