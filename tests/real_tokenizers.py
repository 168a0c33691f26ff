"""The real tokenizers of PRM checkpoints, for tests that are marked `tokenizers`; built by `make tokenizers`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parents[1] / "build" / "tokenizers"
NAMES = ("mistral", "llama3", "llama3_date", "qwen", "qwen_stock")
"""The names of the tokenizers, which `scripts/real_tokenizers/make.py` describes."""


def there() -> bool:
    """Return whether all tokenizers have been built."""
    return all((folder(name) / "tokenizer.json").exists() for name in NAMES)


def folder(name: str) -> Path:
    """Return the folder of a tokenizer, which has tokenizer.json and tokenizer_config.json like a checkpoint."""
    return FOLDER / name


@cache
def load(name: str) -> Tokenizer:
    """Load a tokenizer.json: special tokens are recognised in text, and are added only on request."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder(name) / "tokenizer.json"))


@cache
def load_chat(name: str) -> Any:
    """Load the transformers tokenizer, for its chat template."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder(name))
