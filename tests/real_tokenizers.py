"""The real tokenizers of PRMs' checkpoints, for tests that are marked `tokenizers`; `make tokenizers` makes them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parents[1] / "build" / "tokenizers"
NAMES = ("mistral", "llama3", "llama3_date", "qwen", "qwen_stock")
"""What each is, see scripts/real_tokenizers/make.py."""


def there() -> bool:
    """Whether they have been made."""
    return all((folder(name) / "tokenizer.json").exists() for name in NAMES)


def folder(name: str) -> Path:
    """The folder of one: tokenizer.json and tokenizer_config.json, as a checkpoint has them."""
    return FOLDER / name


@cache
def load(name: str) -> Tokenizer:
    """What stands in its tokenizer.json: special tokens are read out of text, and added only if that is asked for."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder(name) / "tokenizer.json"))


@cache
def load_chat(name: str) -> Any:
    """The transformers tokenizer, for its chat template."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder(name))
