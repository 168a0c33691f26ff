"""Conversion of a llama model's GGUF file to a folder that transformers can load.

transformers can read GGUF itself, but takes two minutes for the embedded model (its tokenizer goes through the slow
conversion) and cannot save the result. Reading the file directly takes seconds, once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tts_tui.errors import BackendUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Progress = Callable[[str, int | None, int | None], None]

WEIGHTS = "model.safetensors"
_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL = 3  # GGUF token type of special tokens
_SPLIT = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def convert(source: Path, target: Path, progress: Progress) -> None:
    """Write the weights (float32), config, tokenizer and chat template of `source` into the folder `target`.

    Args:
        source: The GGUF file of a llama model with a byte-level BPE tokenizer.
        target: An existing folder.
        progress: A callback that receives a message, the number of tensors done and their total number.

    Raises:
        BackendUnavailable: The file contains another kind of model.
        OSError: The file cannot be read, or `target` cannot be written.
    """
    from gguf import GGUFReader

    reader = GGUFReader(source)
    read = _Fields(reader)
    if read("general.architecture") != "llama" or read("tokenizer.ggml.model") != "gpt2":
        raise BackendUnavailable(f"{source.name} holds no llama model with a byte-level tokenizer")
    _write_weights(reader, read, target / WEIGHTS, progress)
    progress("writing the tokenizer", None, None)
    for name, content in (
        ("config.json", _config(read)),
        ("generation_config.json", _generation(read)),
        ("tokenizer.json", _tokenizer(read)),
        ("tokenizer_config.json", _tokenizer_config(read)),
    ):
        indent = None if name == "tokenizer.json" else 2
        text = json.dumps(content, ensure_ascii=False, indent=indent)
        (target / name).write_text(text + "\n", encoding="utf-8")


class _Fields:
    """The metadata of a GGUF file by key, and the names of its tensors."""

    def __init__(self, reader: Any) -> None:
        self._fields = reader.fields
        self.tensors = {tensor.name for tensor in reader.tensors}

    def __call__(self, key: str, default: Any = None) -> Any:
        field = self._fields.get(key)
        if field is None:
            if default is None:
                raise BackendUnavailable(f"the GGUF file has no {key!r}")
            return default
        return field.contents()


def _unpermute(rows: Array, heads: int) -> Array:
    """Convert llama.cpp's order of Q and K rows (interleaved rotary pairs) to transformers' half-split rotary order."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _write_weights(reader: Any, read: _Fields, path: Path, progress: Progress) -> None:
    import numpy as np
    from gguf.quants import dequantize
    from safetensors.numpy import save_file

    heads = {"attn_q": read("llama.attention.head_count")}
    heads["attn_k"] = read("llama.attention.head_count_kv", heads["attn_q"])
    weights: dict[str, Array] = {}
    total = len(reader.tensors)
    for done, tensor in enumerate(reader.tensors):
        if done % 16 == 0:
            progress("converting the weights", done, total)
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        # GGUF lists the fastest axis first.
        values = values.reshape(tuple(int(size) for size in reversed(tensor.shape)))
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            if parts[2] in heads:
                values = _unpermute(values, heads[parts[2]])
            name = f"model.layers.{parts[1]}.{_NAMES[parts[2]]}.weight"
        else:
            top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
            name = f"{top[parts[0]]}.weight"
        weights[name] = np.ascontiguousarray(values)
    progress("writing the weights", total, total)
    save_file(weights, path, metadata={"format": "pt"})


def _special_ids(read: _Fields) -> dict[str, int]:
    bos, eos = read("tokenizer.ggml.bos_token_id"), read("tokenizer.ggml.eos_token_id")
    return {
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": read("tokenizer.ggml.padding_token_id", eos),
    }


def _config(read: _Fields) -> dict[str, Any]:
    hidden, heads = read("llama.embedding_length"), read("llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": "float32",
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": read("llama.feed_forward_length"),
        "max_position_embeddings": read("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": read("llama.block_count"),
        "num_key_value_heads": read("llama.attention.head_count_kv", heads),
        "rms_norm_eps": read("llama.attention.layer_norm_rms_epsilon"),
        "rope_parameters": {
            "rope_theta": read("llama.rope.freq_base", 10000.0),
            "rope_type": "default",
        },
        "tie_word_embeddings": "output.weight" not in read.tensors,
        "use_cache": True,
        "vocab_size": len(read("tokenizer.ggml.tokens")),
        **_special_ids(read),
    }


def _generation(read: _Fields) -> dict[str, Any]:
    return {"_from_model_config": True, "use_cache": True, **_special_ids(read)}


def _tokenizer(read: _Fields) -> dict[str, Any]:
    """Return the tokenizer in the format of the `tokenizers` library."""
    tokens: list[str] = read("tokenizer.ggml.tokens")
    types: list[int] = read("tokenizer.ggml.token_type")
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, **special, "special": True}
            for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind == _CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": _SPLIT,
        "post_processor": None,
        "decoder": {**_SPLIT, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in read("tokenizer.ggml.merges")],
        },
    }


def _tokenizer_config(read: _Fields) -> dict[str, Any]:
    tokens = read("tokenizer.ggml.tokens")
    ids = _special_ids(read)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[ids["bos_token_id"]],
        "eos_token": tokens[ids["eos_token_id"]],
        "pad_token": tokens[ids["pad_token_id"]],
        "unk_token": tokens[read("tokenizer.ggml.unknown_token_id", 0)],
        "clean_up_tokenization_spaces": False,
        "chat_template": read("tokenizer.chat_template"),
    }
