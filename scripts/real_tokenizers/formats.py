"""Contents of real checkpoints' tokenizer.json, built from files that other libraries ship."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

_LLAMA_NAMED = {
    0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 6: "start_header_id", 7: "end_header_id",
    8: "eom_id", 9: "eot_id", 10: "python_tag",
}  # fmt: skip
LLAMA_BASE, LLAMA_ADDED = 128_000, 256

QWEN_BASE = 151_643
QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
QWEN_PLAIN = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>",
)  # fmt: skip
TAG, TAG_INSTEAD_OF = "<extra_0>", "<|quad_end|>"

# -- vocabularies ------------------------------------------------------------------------------------------------------

Merges = list[tuple[str, str]]


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield numbers and values of a protocol buffer's fields; four-byte and eight-byte values stay bytes."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while place < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or varint()
        yield key >> 3, message[place : place + size]
        place += size


def pieces(model: bytes) -> list[tuple[str, float]]:
    """Return the pieces of a sentencepiece model by id, with their scores; pieces with high scores are merged first."""
    found = [dict(fields(piece)) for number, piece in fields(model) if number == 1]
    return [(piece[1].decode(), struct.unpack("<f", piece[2])[0]) for piece in found]


def ranks(model: bytes) -> list[bytes]:
    """Return the tokens of a tiktoken file by id, which is the order in which they are merged."""
    lines = [line.split() for line in model.splitlines() if line]
    if [int(rank) for _, rank in lines] != list(range(len(lines))):
        raise ValueError("a vocabulary has gaps")
    return [base64.b64decode(token) for token, _ in lines]


def letters() -> dict[int, str]:
    """Return the letter that stands for each byte in a byte-level BPE: the byte's own character if it is printable."""
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return {byte: chr(byte) if byte in printed else chr(next(others)) for byte in range(0x100)}


def all_merges(vocabulary: Mapping[str, Any]) -> Merges:
    """Return all ways to form each token from two others."""
    return [
        (token[:cut], token[cut:])
        for token in vocabulary
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]


def one_merge_each(tokens: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the last merge that forms each token."""
    rank = {token: number for number, token in enumerate(tokens)}
    merges = []
    for token in tokens:
        if len(token) > 1:
            parts = [token[i : i + 1] for i in range(len(token))]
            while len(parts) > 2:
                joined = [rank.get(left + right, len(tokens)) for left, right in pairwise(parts)]
                at = joined.index(min(joined))
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            merges.append((parts[0], parts[1]))
    return merges


# -- files -------------------------------------------------------------------------------------------------------------


def _added(number: int, text: str, special: bool = True) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": text, **flags, "special": special}


def _begins_with(text: str, number: int) -> dict[str, Any]:
    """Return a post-processor that prepends a token to a text."""

    def with_token(*sequences: str) -> list[dict[str, Any]]:
        return [
            part
            for kind, name in enumerate(sequences)
            for part in ({"SpecialToken": {"id": text, "type_id": kind}}, {"Sequence": {"id": name, "type_id": kind}})
        ]

    tokens = {text: {"id": text, "ids": [number], "tokens": [text]}}
    return {
        "type": "TemplateProcessing",
        "single": with_token("A"),
        "pair": with_token("A", "B"),
        "special_tokens": tokens,
    }


def _file(added: list[dict[str, Any]], model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    options = {"dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    return {**head, **parts, "model": {"type": "BPE", **options, **model}}


def mistral_file(model: bytes) -> dict[str, Any]:
    """Return Mistral 7B's tokenizer.json."""
    scores = dict(pieces(model))
    vocabulary = {piece: number for number, piece in enumerate(scores)}
    special = list(scores)[:3]
    # The longest first, so that blanks, which share one score, grow from the left as in sentencepiece.
    merges = sorted(all_merges(scores), key=lambda way: (-scores["".join(way)], -len(way[0]), -len(way[1])))
    return _file(
        [_added(number, text) for number, text in enumerate(special)],
        {
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
        normalizer={
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        pre_tokenizer=None,
        post_processor=_begins_with("<s>", 1),
        decoder={
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
    )


def _byte_level(trim_offsets: bool, use_regex: bool = False) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": trim_offsets, "use_regex": use_regex}


def _byte_level_file(
    tokens: Sequence[bytes], merges: list[tuple[bytes, bytes]] | None, digits: str, added: Any, **parts: Any
) -> dict[str, Any]:
    """Return a tokenizer.json of a byte-level BPE.

    Args:
        tokens: Tokens by id.
        merges: Merges in order; None for all ways to form a token. In that case, words that are tokens need no merges.
        digits: Quantifier of a regular expression for how many digits are grouped.
        added: Special tokens.
        parts: Other parts of the file.
    """
    letter = letters()

    def written(token: bytes) -> str:
        return "".join(letter[byte] for byte in token)

    vocabulary = {written(token): number for number, token in enumerate(tokens)}
    if merges is None:
        ways = sorted(all_merges(vocabulary), key=lambda way: tuple(vocabulary[text] for text in ("".join(way), *way)))
    else:
        ways = [(written(left), written(right)) for left, right in merges]
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return _file(
        added,
        {
            "unk_token": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": merges is None,
            "vocab": vocabulary,
            "merges": ways,
        },
        pre_tokenizer={"type": "Sequence", "pretokenizers": [split, _byte_level(trim_offsets=False)]},
        decoder=_byte_level(trim_offsets=False),
        **parts,
    )


def llama_special() -> list[str]:
    """Return Llama 3.1's special tokens by id."""
    reserved = iter(range(LLAMA_ADDED))
    names = [_LLAMA_NAMED.get(i) or f"reserved_special_token_{next(reserved)}" for i in range(LLAMA_ADDED)]
    return [f"<|{name}|>" for name in names]


def llama_file(model: bytes) -> dict[str, Any]:
    """Return Llama 3.1's tokenizer.json."""
    special = llama_special()
    post = [_byte_level(trim_offsets=True, use_regex=True), _begins_with(special[0], LLAMA_BASE)]
    return _byte_level_file(
        ranks(model),
        None,
        "{1,3}",
        [_added(LLAMA_BASE + i, text) for i, text in enumerate(special)],
        normalizer=None,
        post_processor={"type": "Sequence", "processors": post},
    )


def qwen_file(model: bytes) -> dict[str, Any]:
    """Return Qwen2.5's tokenizer.json."""
    tokens = ranks(model)
    names = [(text, True) for text in QWEN_SPECIAL] + [(text, False) for text in QWEN_PLAIN]
    return _byte_level_file(
        tokens,
        one_merge_each(tokens),
        "",
        [_added(QWEN_BASE + i, text, special) for i, (text, special) in enumerate(names)],
        normalizer={"type": "NFC"},
        post_processor=_byte_level(trim_offsets=False),
    )
