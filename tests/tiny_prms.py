"""Random two-layer PRMs, saved in the format of the real checkpoints: tensor names, config.json and tokenizer.

Their weights are drawn so that the state at a tag depends on all text before it, and scores spread over most of [0, 1]:
with the usual small weights all scores would be one half, and no test of them could fail.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import real_tokenizers

if TYPE_CHECKING:
    import torch

KINDS = ("math-shepherd", "rlhflow", "skywork", "qwen", "trl", "outcome", "outcome-qwen")

_SIZE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.46.3",
    "use_cache": True,
}
_MISTRAL = {
    "model_type": "mistral",
    "vocab_size": 32000,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
_LLAMA = {
    "model_type": "llama",
    "vocab_size": 128256,
    "bos_token_id": 128000,
    "eos_token_id": 128009,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "attention_bias": False,
    "mlp_bias": False,
}
_QWEN = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "pad_token_id": 151643,
    "max_position_embeddings": 4096,
    "sliding_window": 4096,
    "use_sliding_window": False,
    "max_window_layers": 28,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
_ONE_LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}

_CONFIGS: dict[str, dict[str, Any]] = {
    "math-shepherd": {**_MISTRAL, "architectures": ["MistralForCausalLM"]},
    "rlhflow": {**_LLAMA, "architectures": ["LlamaForCausalLM"]},
    "skywork": {**_QWEN, "architectures": ["Qwen2ForPrmModel"]},
    "qwen": {
        **_QWEN,
        "vocab_size": 152064,
        "architectures": ["Qwen2ForProcessRewardModel"],
        "auto_map": {
            "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
            "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
        },
    },
    "trl": {**_QWEN, "architectures": ["Qwen2ForTokenClassification"]},  # transformers assumes two labels
    "outcome": {**_LLAMA, **_ONE_LABEL, "architectures": ["LlamaForSequenceClassification"]},
    "outcome-qwen": {**_QWEN, **_ONE_LABEL, "architectures": ["Qwen2ForSequenceClassification"]},
}
_TOKENIZERS = {
    "math-shepherd": "mistral",
    "rlhflow": "llama3",
    "skywork": "qwen_stock",
    "qwen": "qwen",
    "trl": "qwen_stock",
    "outcome": "llama3",
    "outcome-qwen": "qwen_stock",
}
_SEEDS = {
    "math-shepherd": 0,
    "rlhflow": 4,
    "skywork": 5,
    "qwen": 5,
    "trl": 3,
    "outcome": 5,
    "outcome-qwen": 3,
}
"""Seeds with which the scores lie on both sides of one half."""
_CODE = 'raise RuntimeError("code out of a checkpoint was run")\n'


def make(
    kind: str,
    folder: Path,
    *,
    tokenizer: str | None = None,
    lm_head: bool = False,
    seed: int | None = None,
    **changes: Any,
) -> Path:
    """Write a random PRM.

    Args:
        kind: One of `KINDS`.
        folder: The target folder, created if necessary.
        tokenizer: The name of the real tokenizer, by default that of the kind.
        lm_head: True to give a checkpoint of the kinds `skywork` and `qwen` a head over the vocabulary too.
        seed: The seed of the random weights, by default one that spreads the scores well.
        changes: Changes to config.json; None removes a key.

    Returns:
        The folder.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in {**_SIZE, **_CONFIGS[kind], **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    save_file(
        _tensors(kind, folder, lm_head, _SEEDS[kind] if seed is None else seed),
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    for file in real_tokenizers.folder(tokenizer or _TOKENIZERS[kind]).iterdir():
        shutil.copyfile(file, folder / file.name)
    if kind == "skywork":
        _edit(folder / "tokenizer_config.json", {"bos_token": "<|endoftext|>"})
    for module in {name.partition(".")[0] for name in config.get("auto_map", {}).values()}:
        (folder / f"{module}.py").write_text(_CODE, encoding="utf-8")
    return folder


def _edit(path: Path, changes: Mapping[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}, ensure_ascii=False), "utf-8")


def _tensors(kind: str, folder: Path, lm_head: bool, seed: int) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint by their names."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    (architecture,) = config.architectures
    own = kind in ("skywork", "qwen")  # transformers has no class for these
    with torch.device("meta"):
        network = getattr(transformers, "Qwen2ForCausalLM" if own else architecture)(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if own and not lm_head:
        del shapes["lm_head.weight"]
    size = config.hidden_size
    if kind == "skywork":
        shapes |= {"v_head.summary.weight": (1, size), "v_head.summary.bias": (1,)}
    if kind == "qwen":
        shapes |= {"score.0.weight": (size, size), "score.0.bias": (size,)}
        shapes |= {"score.2.weight": (2, size), "score.2.bias": (2,)}
    generator = torch.Generator().manual_seed(seed)
    return {name: _draw(name, shape, generator) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    import torch

    drawn = torch.randn(shape, generator=generator)
    if name.endswith("norm.weight"):
        return 1.0 + 0.2 * drawn
    if name.endswith("bias"):
        return 0.2 * drawn
    if "embed_tokens" in name:
        return 0.3 * drawn
    return drawn * (_gain(name) / math.sqrt(shape[1]))


def _gain(name: str) -> float:
    """Return the ratio of the size of a layer's outputs to that of its inputs."""
    if any(part in name for part in ("q_proj", "k_proj")):
        return 1.7  # sharp attention: an average over many tokens would be the same for all texts
    if "o_proj" in name:
        return 2.0
    if any(part in name for part in ("lm_head", "score", "summary")):
        return 2.5
    return 1.0
