"""Number of weights (for FLOPs) and of token ids of a served model, from its local files or else from its name.

Only the number of weights can be taken from the name.
"""

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
    """Return the number of weights that are active for each token; 0 if neither files nor name reveal it.

    Args:
        model: A folder, a hub id, or any name.
        scores: True for a reward model, which uses at most two rows of its language model head, so the head is left
            out of the count.
    """
    return _in_files(Path(model), scores) or _in_name(model)


def vocabulary_of(model: str) -> int:
    """Return the number of token ids from the configuration in a model's folder; 0 if it is not on this machine."""
    try:
        config = msgspec.json.decode((Path(model) / "config.json").read_bytes())
        size = config.get("text_config", config)["vocab_size"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return 0
    return size if isinstance(size, int) and size > 0 else 0


def _in_files(folder: Path, scores: bool) -> int:
    """Count weights by the headers of the safetensors files in `folder`.

    Returns 0 for quantized models, whose packed weights cannot be counted.
    """
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
    if "lm_head.weight" in shapes:  # an untied embedding table is only used for lookups
        total -= shapes.get("model.embed_tokens.weight", 0)
    return total


def _in_name(model: str) -> int:
    """Return the last size in the name, such as 7B or 135M; for a mixture of experts, the active weights."""
    name = model.rstrip("/").rpartition("/")[2]
    if active := _ACTIVE.search(name):
        return int(float(active[1]) * 1e9)
    sizes = _SIZE.findall(name.replace("_", "-"))
    return int(float(sizes[-1][0]) * _UNIT[sizes[-1][1].lower()]) if sizes else 0
