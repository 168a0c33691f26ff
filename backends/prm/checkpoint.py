"""Loading of a PRM's checkpoint: its kind, its network without a head, and its head.

No code of the checkpoint is run: the network is transformers' own class for its `model_type`, and the head is built
here. Every tensor that a score depends on must be present with the expected shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tts_tui.backends.local.loading import first_line, folder_of, has_pickle, load_error_message, quietly
from tts_tui.backends.prm.heads import Readout, ScoreHead
from tts_tui.errors import BackendUnavailable

_FILES = ("*.json", "*.model", "*.jinja", "*.txt")
_GOOD = {"correct", "right", "good", "positive", "pos", "true", "yes", "+"}
_BAD = {"incorrect", "wrong", "bad", "negative", "neg", "false", "no", "error", "-"}
_PICKLE = "--allow-pickle takes them all the same, if you trust where they are from"


class Checkpoint:
    """The files of one PRM. For a hub id, only the small files are downloaded at first, and the weights by `fetch`.

    Args:
        source: A folder or a hub id.
        allow_pickle: Also accept weights that were pickled by torch, which can run code.

    Attributes:
        source: The folder or hub id.
        folder: The folder of the files.
        config: The content of config.json.

    Raises:
        BackendUnavailable: The checkpoint cannot be read or downloaded; or, for a folder, as for `fetch`.
    """

    def __init__(self, source: str, *, allow_pickle: bool = False) -> None:
        self.source = source
        self._allow_pickle = allow_pickle
        folder = folder_of(source)
        self._at_hub = folder is None
        self.folder = folder if folder is not None else _download(source, _FILES)
        self.config: dict[str, Any] = self._json("config.json")
        if not self._at_hub:
            self.fetch()

    def fetch(self) -> None:
        """Make sure that the weights are present, downloading them from the hub if necessary.

        Raises:
            BackendUnavailable: The weights are in a format that may not be loaded, or some are missing.
        """
        if self._at_hub:
            _download(self.source, ["*.safetensors"])
        self._pickled = not any(self.folder.glob("*.safetensors"))
        if self._pickled and not self._allow_pickle and (self._at_hub or has_pickle(self.folder)):
            raise BackendUnavailable(
                f"{self.source} has no safetensors, only pickled weights, which can run code: convert them to "
                f"safetensors; {_PICKLE}"
            )
        if self._pickled and self._at_hub:
            _download(self.source, ["*.bin"])
        if self._pickled and not has_pickle(self.folder):
            raise BackendUnavailable(f"{self.source} has no weights: no *.safetensors file is in it")
        if missing := sorted({file for file in self._index.values() if not (self.folder / file).exists()}):
            raise BackendUnavailable(f"{self.source} is not whole: {missing[0]} is missing; download it again")

    @property
    def architecture(self) -> str:
        """The class from which it was saved, by its tensors where config.json is less specific; empty if unknown."""
        if "v_head.summary.weight" in (self._index or ({} if self._at_hub else self._where)):
            return "Qwen2ForPrmModel"
        named = self.config.get("architectures")
        return str(named[0]) if isinstance(named, list) and named else ""

    @property
    def _index(self) -> dict[str, str]:
        """The file name of each tensor, from the index file; empty if there is none."""
        for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
            if (self.folder / name).exists():
                return dict(self._json(name).get("weight_map", {}))
        return {}

    def _json(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / name).read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BackendUnavailable(f"the {name} of {self.source} cannot be read: {first_line(error)}") from error
        if not isinstance(found, dict):
            raise BackendUnavailable(f"the {name} of {self.source} cannot be read: it holds no table")
        return found

    def body(self, dtype: Any) -> tuple[Any, int]:
        """Load the network up to the final normed hidden state.

        Returns:
            The network, and the longest sequence, in tokens, that it computes exactly.

        Raises:
            BackendUnavailable: transformers does not support it, or tensors are missing.
        """
        import transformers

        try:
            with quietly(transformers):
                config = transformers.AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
                longest = int(getattr(config, "max_position_embeddings", None) or 2048)
                if window := _window(config):  # up to the window's length, a window changes nothing
                    longest, config.sliding_window = min(longest, window), None
                    if getattr(config, "layer_types", None):
                        config.layer_types = ["full_attention"] * len(config.layer_types)
                model, found = transformers.AutoModel.from_pretrained(
                    self.folder,
                    config=config,
                    dtype=dtype,
                    use_safetensors=not self._pickled,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        except Exception as error:  # whatever a damaged file raises
            raise BackendUnavailable(load_error_message(self.source, error)) from error
        if missing := sorted(found["missing_keys"]):
            raise BackendUnavailable(
                f"{self.source} is not whole: {missing[0]} and {len(missing) - 1} more of its network's tensors are "
                "missing; download it again"
                if len(missing) > 1
                else f"{self.source} is not whole: {missing[0]} is missing; download it again"
            )
        return model, longest

    def tensor(self, name: str, shape: Sequence[int | None], rows: Sequence[int] | None = None) -> Any:
        """Return one tensor, in float32.

        Args:
            name: The tensor's name.
            shape: The expected shape; None stands for any size.
            rows: The rows to return, by default all.

        Raises:
            BackendUnavailable: The tensor is missing or has another shape.
        """
        if name not in self._where:
            raise BackendUnavailable(
                f"{self.source}, a {self.architecture or 'model of no class'}, has no tensor {name}, which this PRM's "
                "score is computed with: name the PRM that it is, as in hf:PATH@NAME (see `tts-tui profiles`)"
            )
        got, read = self._read(name)
        if len(got) != len(shape) or any(want not in (None, have) for want, have in zip(shape, got, strict=True)):
            want = " x ".join("any" if size is None else str(size) for size in shape)
            raise BackendUnavailable(
                f"{name} in {self.source} is {' x '.join(map(str, got))} and not {want}: it is another kind of PRM; "
                "name the right one, as in hf:PATH@NAME (see `tts-tui profiles`)"
            )
        return read(rows).float()

    def has(self, name: str) -> bool:
        """Return whether the checkpoint has a tensor of that name."""
        return name in self._where

    def _read(self, name: str) -> tuple[list[int], Callable[[Sequence[int] | None], Any]]:
        """Return the shape of a tensor, and a function that reads its rows."""
        import torch

        if self._pickled:
            whole = _unpickled(self._where[name])[name]
            return list(whole.shape), lambda rows: whole.clone() if rows is None else whole[list(rows)]
        from safetensors import safe_open

        def read(rows: Sequence[int] | None) -> Any:
            with safe_open(self._where[name], framework="pt") as file:
                if rows is None:
                    return file.get_tensor(name)
                part = file.get_slice(name)
                return torch.cat([part[row : row + 1] for row in rows])

        with safe_open(self._where[name], framework="pt") as file:
            return list(file.get_slice(name).get_shape()), read

    @cached_property
    def _where(self) -> dict[str, Path]:
        """The path of the file of each tensor."""
        found: dict[str, Path] = {}
        try:
            if self._pickled:
                for path in sorted(self.folder.glob("pytorch_model*.bin")):
                    found |= dict.fromkeys(_unpickled(path), path)
            else:
                from safetensors import safe_open

                for path in sorted(self.folder.glob("*.safetensors")):
                    with safe_open(path, framework="pt") as file:
                        found |= dict.fromkeys(file.keys(), path)
        except Exception as error:  # whatever a damaged file raises
            raise BackendUnavailable(load_error_message(self.source, error)) from error
        return found


# -- heads -------------------------------------------------------------------------------------------------------------


def load_head(checkpoint: Checkpoint, adapter: str, profile: Mapping[str, Any]) -> ScoreHead:
    """Load the head of a checkpoint.

    Args:
        checkpoint: The checkpoint's files.
        adapter: The kind of PRM.
        profile: The PRM's profile.

    Raises:
        BackendUnavailable: Tensors are missing or have other shapes, or labels are in another order.
    """
    size = checkpoint.config.get("hidden_size")
    if not isinstance(size, int):
        raise BackendUnavailable(
            f"the config.json of {checkpoint.source} names no hidden_size: it is no language model"
        )
    if "head" in profile:
        return _of_tokens(checkpoint, size, profile["head"]["tokens"])
    if adapter == "skywork":
        return _linear(checkpoint, "v_head.summary", 1, size, "sigmoid")
    if adapter == "qwen":
        return _two_layers(checkpoint, 2, size, "softmax2")
    if adapter == "trl":
        _check_labels(checkpoint)
        name = "classifier" if checkpoint.has("classifier.weight") else "score"
        return _linear(checkpoint, name, 2, size, "softmax2")
    if checkpoint.has("score.0.weight"):
        return _two_layers(checkpoint, 1, size, "sigmoid")
    return _linear(checkpoint, "score", 1, size, "sigmoid")


def _of_tokens(checkpoint: Checkpoint, size: int, tokens: Sequence[int]) -> ScoreHead:
    """Return a head of two rows of the language model's head."""
    tied = checkpoint.config.get("tie_word_embeddings") and not checkpoint.has("lm_head.weight")
    weight = checkpoint.tensor("model.embed_tokens.weight" if tied else "lm_head.weight", (None, size), tokens)
    return ScoreHead([(weight, None)], "tokens")


def _linear(checkpoint: Checkpoint, name: str, out: int, size: int, readout: Readout) -> ScoreHead:
    return ScoreHead([_layer(checkpoint, name, out, size)], readout)


def _two_layers(checkpoint: Checkpoint, out: int, size: int, readout: Readout) -> ScoreHead:
    return ScoreHead([_layer(checkpoint, "score.0", size, size), _layer(checkpoint, "score.2", out, size)], readout)


def _layer(checkpoint: Checkpoint, name: str, out: int, size: int) -> tuple[Any, Any]:
    bias = checkpoint.tensor(f"{name}.bias", (out,)) if checkpoint.has(f"{name}.bias") else None
    return checkpoint.tensor(f"{name}.weight", (out, size)), bias


def _check_labels(checkpoint: Checkpoint) -> None:
    """Check that label 1 is the good one, as TRL's trainer saves it."""
    labels = checkpoint.config.get("id2label")
    for number, wrong in (("1", _BAD), ("0", _GOOD)):
        called = str(labels.get(number, "")) if isinstance(labels, dict) else ""
        if wrong & set(re.split(r"[\s_,;:/]+|(?<=\w)-(?=\w)", called.lower())):
            raise BackendUnavailable(
                f"{checkpoint.source} calls its label {number} {called!r}, and a PRM of TRL's trainer has the good one "
                "at 1: it cannot be read as one"
            )


# -- files -------------------------------------------------------------------------------------------------------------


def _unpickled(path: Path) -> Any:
    """Return the tensors of a file that was pickled by torch."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)  # the format used before torch 1.6


def _download(source: str, patterns: Sequence[str]) -> Path:
    """Download the top-level files that match `patterns`; return the folder of the hub id in the hub's cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=list(patterns), ignore_patterns=["*/*"]))
    except Exception as error:  # whatever the hub's client raises
        raise BackendUnavailable(load_error_message(source, error)) from error


def _window(config: Any) -> int | None:
    if not getattr(config, "use_sliding_window", True):
        return None
    return getattr(config, "sliding_window", None)
