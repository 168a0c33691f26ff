"""Tiny models made on the fly: random ones, and one whose every next token the test decides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tts_tui.backends.engine.engine import Engine
from tts_tui.backends.engine.model import CausalModel
from tts_tui.protocols import Chunk, Sampling, StepRequest, Usage

# Two threads on matrices of this size only wait for each other.
torch.set_num_threads(1)

CONTEXT = 256
SPECIAL = ("<|im_start|>", "<|im_end|>")
WHOLE = ("\n\n", ".\n", "\n\nNext", "So\n\nThen\n")
"""Pieces of text that are one token each."""

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, the pieces of `WHOLE`, and chat markers."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    written = str.maketrans({"\n": "Ċ", " ": "Ġ"})
    for piece in (*(w.translate(written) for w in WHOLE), *SPECIAL):
        vocab[piece] = len(vocab)
    raw = Tokenizer(BPE(vocab, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    return fast


TOKENIZER = tokenizer()
VOCAB = len(TOKENIZER)
EOS = TOKENIZER.convert_tokens_to_ids("<|im_end|>")


def ids_of(text: str) -> tuple[int, ...]:
    """One token a byte, but for special tokens."""
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def piece(text: str) -> int:
    """The one token that says `text`."""
    return int(TOKENIZER.convert_tokens_to_ids(text.replace("\n", "Ċ").replace(" ", "Ġ")))


def decode(ids: list[int]) -> str:
    """Text without special tokens."""
    return str(TOKENIZER.backend_tokenizer.decode(ids, skip_special_tokens=True))


def llama(seed: int = 0) -> LlamaForCausalLM:
    """Two random layers; weights large enough that the likeliest token is clearly the likeliest."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


def qwen2(seed: int = 0, **changes: object) -> Qwen2ForCausalLM:
    """The same with biases, and one key-value head for all."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        tie_word_embeddings=True,
        **changes,
    )
    model = Qwen2ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def parrot(*chains: Sequence[int]) -> LlamaForCausalLM:
    """A model that follows each of its tokens by the next one in `chains`, whatever came before."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=VOCAB + VOCAB % 2,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(VOCAB, config.hidden_size))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        for chain in chains:
            for one, following in itertools.pairwise(chain):
                model.lm_head.weight[following, one] = 1.0
    return model


def engine(model: torch.nn.Module, *, slots: int = 4096, rows: int = 64, chunk: int = 64) -> Engine:
    """An engine on `model`, with the tiny tokenizer."""
    core = CausalModel(model, slots=slots)
    return Engine(core, decode, frozenset({EOS}), rows=rows, chunk=chunk, threads=1)


def save(model: torch.nn.Module, folder: Path) -> Path:
    """Model and tokenizer as a folder in Hugging Face format."""
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def likeliest(model: torch.nn.Module, ids: Sequence[int], answer: Sequence[int]) -> list[int]:
    """What transformers would have written in each place of `answer` behind `ids`, had it written the rest before."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*ids, *answer]]), use_cache=False).logits[0]
    return logits[len(ids) - 1 : -1].argmax(-1).tolist()


def request(ids: Sequence[int], n: int = 8, **changes: object) -> StepRequest:
    """A greedy rollout of `n` tokens, but for `changes`."""
    options = {"sampling": Sampling(temperature=0.0), "rollout": True, **changes}
    return StepRequest(tuple(ids), max_tokens=n, **options)  # type: ignore[arg-type]


class Answer:
    """All chunks of one stream, and what they add up to."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks
        self.ids = [token for chunk in chunks for token in chunk.ids]
        self.text = "".join(chunk.text for chunk in chunks)
        self.usage = sum((chunk.usage for chunk in chunks), Usage())
        self.finish = chunks[-1].finish if chunks else None

    @property
    def steps(self) -> list[str]:
        """The text, cut after each step's end."""
        steps = [""]
        for chunk in self.chunks:
            steps[-1] += chunk.text
            if chunk.step_end:
                steps.append("")
        return steps


async def ask(engine: Engine, asked: StepRequest) -> Answer:
    """The whole answer to one request."""
    return Answer([chunk async for chunk in engine.generate(asked)])
