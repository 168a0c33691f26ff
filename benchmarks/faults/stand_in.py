"""Healthy answers: SGLang as a policy and as a PRM, and OpenAI-compatible servers.

A token of the policy is one byte. Its text is drawn from the request's own random numbers, so that samples differ and
a run can be repeated.
"""

from __future__ import annotations

import asyncio
import codecs
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal

from msgspec import Struct

Flavour = Literal["sglang", "vllm", "llama.cpp", "hosted", "prm-head", "prm-tokens"]
POLICIES: tuple[Flavour, ...] = ("sglang", "vllm", "llama.cpp", "hosted")
Event = dict[str, Any]

EOS, FIRST = 2, 3
CONTEXT = 4096
SEPARATOR = "\n\n"
WIDTH = 4
"""Width of a hidden state."""
NAME, PRM_NAME = "a/stand-in-7B", "a/stand-in-prm-7B"
_ASIDES = ("so 3 × 4 € are left", "😀 and √2 ≈ 1.41", "as it must be", "नमस्ते", "x² ≤ 9")
_MARKS = ("<|assistant|>", "Solution:")


def encode(text: str) -> list[int]:
    """Encode a text as ids, one per byte."""
    return [byte + FIRST for byte in text.encode()]


def decode(ids: Sequence[int]) -> str:
    """Decode ids, skipping those that are not bytes."""
    return bytes(id - FIRST for id in ids if FIRST <= id < FIRST + 256).decode(errors="replace")


class Row(Struct):
    """The cost of one request, as the server reported it.

    Attributes:
        tokens: Number of tokens that the server has reported.
        exact: Whether the client must have counted them all.
        bounded: Whether the client cannot have counted more.
    """

    tokens: int = 0
    exact: bool = True
    bounded: bool = True

    def inexact(self) -> None:
        """Say that the client may not have counted all tokens."""
        self.exact = False


class StandIn:
    """The server side of a protocol.

    Args:
        flavour: Protocol of the server.
        seed: Seed of everything that is drawn.
        folder: Folder with the PRM's tokenizer.

    Attributes:
        pace: Seconds between two events of a stream.
        rows: Cost of each request for tokens or scores.
        asked: The ids or the text of each request for tokens.
    """

    def __init__(self, flavour: Flavour, seed: str, folder: Path) -> None:
        self.flavour, self.folder = flavour, folder
        self.pace = 0.0
        self.rows: list[Row] = []
        self.asked: list[tuple[int, ...] | str] = []
        self._draw = Random(f"{seed} {flavour}")
        self._seed = seed
        self._incremental = self._draw.random() < 0.5
        self._most = self._draw.choice((1, 3, 8))
        self._seen: set[tuple[int, ...]] = set()
        self._aborted: set[str] = set()
        self._count = 0

    def target(self, path: str, body: Any) -> str:
        """Classify a request: `generate`, `completions`, `score`, `states`, or `talk` for anything else."""
        if path == "/v1/completions":
            return "completions"
        if path == "/v1/embeddings" or (path == "/generate" and self.flavour == "prm-tokens"):
            return "score"
        if path == "/generate":
            return "generate" if body.get("stream") else "states"
        return "talk"

    def events(self, path: str, body: Any, row: Row) -> AsyncIterator[Event]:
        """Return the events of a stream."""
        self._count += 1
        draw = Random(f"{self._seed} {self._count}")
        if path == "/generate":
            self.asked.append(tuple(body["input_ids"]))
            return self._generate(body, draw, row)
        self.asked.append(body["prompt"])
        return self._complete(body, draw, row)

    def reply(self, path: str, body: Any, row: Row) -> tuple[int, Any]:
        """Return the status and JSON body of an answer that is not a stream."""
        own = getattr(self, "on_" + path.strip("/").replace("/", "_").replace("-", "_"), None)
        said = None if own is None else own(body, row)
        return (404, {"detail": "Not Found"}) if said is None else (200, said)

    # -- information about the server --------------------------------------------------------------------------------

    def on_health(self, body: Any, row: Row) -> Any:
        return {}

    def on_model_info(self, body: Any, row: Row) -> Any:
        if self.flavour == "sglang":
            said = {"model_path": NAME, "is_generation": True, "model_type": "llama"}
            return {**said, "tokenizer_path": str(self.folder)}
        kind = "Qwen2ForTokenClassification" if self.flavour == "prm-head" else "MistralForCausalLM"
        name = PRM_NAME if self.flavour == "prm-head" else "a/math-shepherd-mistral-7b-prm"
        said = {"model_path": name, "is_generation": self.flavour != "prm-head", "architectures": [kind]}
        return None if self.flavour in POLICIES else {**said, "tokenizer_path": str(self.folder)}

    def on_server_info(self, body: Any, row: Row) -> Any:
        known = {"version": "0.5.23", "max_running_requests": 64, "context_length": CONTEXT}
        return {**known, "enable_return_hidden_states": True, "max_req_input_len": CONTEXT - 6}

    def on_v1_loads(self, body: Any, row: Row) -> Any:
        return {"loads": [{"num_running_reqs": 0, "memory": {"weight_gb": 0.5}}]}

    def on_v1_models(self, body: Any, row: Row) -> Any:
        more: dict[str, Event] = {"vllm": {"max_model_len": CONTEXT}, "llama.cpp": {"meta": {"n_ctx_train": CONTEXT}}}
        return {"object": "list", "data": [{"id": NAME, "object": "model", **more.get(self.flavour, {})}]}

    def on_tokenize(self, body: Any, row: Row) -> Any:
        if self.flavour not in ("sglang", "vllm"):
            return None
        ids = encode(_render(body["messages"]) if "messages" in body else body["prompt"])
        return {"tokens": ids, "count": len(ids), "max_model_len": CONTEXT}

    def on_detokenize(self, body: Any, row: Row) -> Any:
        ids = body["tokens"]
        if self.flavour == "sglang":
            return {"text": [decode(each) for each in ids]}
        if self.flavour == "vllm":
            return {"prompt": decode(ids)}
        if self.flavour not in POLICIES:
            return {"text": [self._prm_text(each) for each in ids]}
        return None

    def on_apply_template(self, body: Any, row: Row) -> Any:
        return {"prompt": _render(body["messages"])} if self.flavour == "llama.cpp" else None

    def on_abort_request(self, body: Any, row: Row) -> Any:
        self._aborted.add(body["rid"])
        return {}

    # -- the policy --------------------------------------------------------------------------------------------------

    async def _generate(self, body: Any, draw: Random, row: Row) -> AsyncIterator[Event]:
        ids, drawing = tuple(body["input_ids"]), body["sampling_params"]
        text, end = _story(decode(ids), draw), EOS
        stop = (drawing.get("stop") or [None])[0]
        matched: Any = end
        if stop and stop in text:
            text, matched = text[: text.index(stop) + len(stop)], stop
        out = encode(text) if matched == stop else [*encode(text), end]
        most = drawing["max_new_tokens"]
        reason = {"type": "length", "length": most} if len(out) > most else {"type": "stop", "matched": matched}
        out = out[:most]
        cached = self._cached(ids)
        row.tokens += len(ids)
        reader = codecs.getincrementaldecoder("utf-8")("replace")
        so_far, done = "", 0
        while done < len(out):
            size = min(draw.randint(1, self._most), len(out) - done)
            new, done = out[done : done + size], done + size
            aborted = body.get("rid") in self._aborted
            last = aborted or done == len(out)
            piece = reader.decode(bytes(id - FIRST for id in new if id != EOS), last)
            so_far += piece
            row.tokens += size
            finish = {"type": "abort", "message": "Abort in progress"} if aborted else reason if last else None
            meta = {"prompt_tokens": len(ids), "cached_tokens": cached, "completion_tokens": done}
            written = (piece, new) if self._incremental else (so_far, out[:done])
            yield {"text": written[0], "output_ids": written[1], "meta_info": {**meta, "finish_reason": finish}}
            if aborted:
                return
            if self.pace:
                await asyncio.sleep(self.pace)

    def on_generate(self, body: Any, row: Row) -> Any:
        """Answer with log-probabilities for a score, or with hidden states."""
        ids = tuple(body["input_ids"])
        cached = self._cached(ids)
        meta: dict[str, Any] = {"prompt_tokens": len(ids), "cached_tokens": cached, "completion_tokens": 0}
        if self.flavour == "prm-tokens":
            row.tokens += len(ids) - cached
            pairs = zip(self._logits(ids), body["token_ids_logprob"], strict=True)
            meta["output_token_ids_logprobs"] = [[[logit, token, None] for logit, token in pairs]]
            return {"text": "", "output_ids": [], "meta_info": meta}
        most = body["sampling_params"]["max_new_tokens"]
        row.tokens += len(ids) + most
        meta |= {"completion_tokens": most, "finish_reason": {"type": "length", "length": most}}
        if body.get("return_hidden_states"):
            start = min(cached, body.get("logprob_start_len", len(ids)))
            meta["cached_tokens"] = start
            meta["hidden_states"] = [[[float(id % 7), 1.0, 0.5, -1.0] for id in ids[start:]]]
        return {"text": "", "output_ids": [FIRST] * most, "meta_info": meta}

    async def _complete(self, body: Any, draw: Random, row: Row) -> AsyncIterator[Event]:
        prompt, options = body["prompt"], body.get("stream_options") or {}
        text = _story(prompt, draw)
        reason = "length" if len(text) > body["max_tokens"] else "stop"
        text = text[: body["max_tokens"]]
        size, done = len(prompt.encode()), 0
        continuous = self.flavour == "vllm" and bool(options.get("continuous_usage_stats"))
        row.bounded = continuous
        row.tokens += size
        for piece, last in _pieces(text, draw, self._most):
            done += len(piece)
            row.tokens += len(piece)
            usage = {"prompt_tokens": size, "completion_tokens": done} if continuous else None
            choice = {"index": 0, "text": piece, "finish_reason": reason if last else None}
            yield {"object": "text_completion", "model": NAME, "choices": [choice], "usage": usage}
        if self.flavour != "hosted" and options.get("include_usage"):
            usage = {"prompt_tokens": size, "completion_tokens": done}
            yield {"object": "text_completion", "model": NAME, "choices": [], "usage": usage}
        else:
            row.exact = False

    def _cached(self, ids: tuple[int, ...]) -> int:
        known = ids in self._seen
        self._seen.add(ids)
        return len(ids) - 1 if known else 0

    # -- the PRM -----------------------------------------------------------------------------------------------------

    def on_v1_embeddings(self, body: Any, row: Row) -> Any:
        ids = tuple(body["input"])
        computed = len(ids) - self._cached(ids)
        row.tokens += computed
        data = [{"object": "embedding", "index": 0, "embedding": [*self._logits(ids), computed]}]
        return {"object": "list", "data": data, "usage": {"prompt_tokens": len(ids)}}

    def _logits(self, ids: tuple[int, ...]) -> list[float]:
        share = zlib.crc32(repr(ids).encode()) / 2**32
        return [-1.0 - 3 * share, -2.5]

    def _prm_text(self, ids: list[int]) -> str:
        from tokenizers import Tokenizer

        text: str = Tokenizer.from_file(str(self.folder / "tokenizer.json")).decode(ids)
        return text


def _render(messages: Sequence[dict[str, str]]) -> str:
    return "".join(f"<|{message['role']}|>{message['content']}" for message in messages) + "<|assistant|>"


def _story(before: str, draw: Random) -> str:
    """Generate the rest of a solution, given the prompt and the steps so far."""
    place = max(before.rfind(mark) + len(mark) for mark in _MARKS)
    steps, text = before[place:].count(SEPARATOR), ""
    while True:
        steps += 1
        if draw.random() < (0.0, 0.1, 0.35, 0.5, 1.0)[min(steps, 5) - 1]:
            break
        one, other = draw.randint(1, 9), draw.randint(1, 9)
        said = f"Step {steps}: {one} + {other} = {one + other}, {draw.choice(_ASIDES)}."
        text += (said if draw.random() < 0.95 else " ") + SEPARATOR
    chance = draw.random()
    if chance < 0.8:
        return text + f"The answer is \\boxed{{{draw.choice((7, 7, 7, 8, 9))}}}"
    return text + ("I cannot say." if chance < 0.9 else "and so on " * 60 if chance < 0.95 else "")


def _pieces(text: str, draw: Random, most: int) -> Iterator[tuple[str, bool]]:
    """Split `text`, marking the last piece."""
    done = 0
    while True:
        size = draw.randint(1, most)
        piece, done = text[done : done + size], done + size
        yield piece, done >= len(text)
        if done >= len(text):
            return


def make_tokenizer(folder: Path) -> Path:
    """Write a byte tokenizer, with the three special words of Math-Shepherd's checkpoint."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{letter: place for place, letter in enumerate(alphabet, FIRST)}}
    merges = [("Ġ", "+"), ("Ġ", "-"), ("Ð", "º"), ("Ð", "¸"), ("Ġ", "Ðº"), ("ĠÐº", "Ð¸")]
    ids = (648, 387, 300, 301, 302, 12902)
    vocabulary |= {left + right: id for (left, right), id in zip(merges, ids, strict=True)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder
