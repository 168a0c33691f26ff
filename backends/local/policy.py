"""A policy on any Hugging Face causal language model, which runs in this process.

The model is a folder or a hub id whose architecture transformers implements. torch and transformers are imported when
the policy starts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tts_tui.backends.local.loading import (
    Loading,
    check_weights,
    first_line,
    folder_of,
    load_error_message,
    pick_device,
    quietly,
)
from tts_tui.errors import BackendError, BackendUnavailable
from tts_tui.profiles.prompts import family_of, messages
from tts_tui.protocols import Chunk, ModelInfo, Prompt, PromptEncoding, StepRequest, Usage

if TYPE_CHECKING:
    from tts_tui.backends.engine.engine import Engine

# Idle OpenMP threads should sleep, not spin: the event loop and the screen need the cores too. torch reads this when
# it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

Messages = Callable[[str], Sequence[dict[str, str]]]


class LocalPolicy:
    """A `Policy` that runs on the in-process engine.

    Args:
        source: A folder in Hugging Face format (config, safetensors, tokenizer), or a hub id.
        name: The name shown to users; the last part of `source` by default.
        device: "cpu", "cuda", ...; by default CUDA if it is available.
        dtype: "float32", "bfloat16" or "float16"; by default float32 on a CPU and bfloat16 elsewhere.
        kv_tokens: The number of tokens whose keys and values are kept; by default as many as fit into a share of the
            memory.
        threads: The number of threads to use on a CPU; by default all cores or one, whichever is currently faster.
        messages: A function that returns the chat messages for a problem; by default those of the model's prompt
            family.
        rows: The most sequences in a batch.

    Attributes:
        engine: The running engine; valid between `start` and `close`.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        name: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        kv_tokens: int | None = None,
        threads: int | None = None,
        messages: Messages | None = None,
        rows: int | None = None,
    ) -> None:
        self._source = os.path.expanduser(str(source).removeprefix("hf:"))
        self._name = name or Path(self._source).resolve().name
        self._device, self._dtype, self._kv_tokens = device, dtype, kv_tokens
        self._threads = threads
        self._messages = messages
        self._rows = rows
        self._loading = Loading(self._load, lambda made: made[0].stop())
        self._info: ModelInfo | None = None
        self._engine: Engine | None = None
        self._tokenizer: Any = None

    @property
    def info(self) -> ModelInfo:
        """The name, size and context of the model; valid after `start`."""
        if self._info is None:
            raise BackendError("the policy has not been started")
        return self._info

    @property
    def engine(self) -> Engine:
        """The running engine; valid between `start` and `close`."""
        if self._engine is None:
            raise BackendError("the policy is not running")
        return self._engine

    @property
    def network(self) -> tuple[Any, Any]:
        """The tokenizer and the transformers model, whose weights may be shared but must not be changed."""
        return self._tokenizer, self.engine.network

    async def start(self) -> None:
        """Load the model.

        Raises:
            BackendUnavailable: There is no such model, or it cannot be run; the message explains what to do.
        """
        self._engine, self._tokenizer, self._info = await self._loading.done()

    async def close(self) -> None:
        """End all requests and free the model. It is safe to call this twice."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    async def prompt(self, problem: str) -> Prompt:
        """Apply the model's chat template to `problem`."""
        if self._tokenizer is None:
            raise BackendError("the policy has not been started")
        return await asyncio.to_thread(self._prompt, problem)

    async def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a step given as text; see `EncodesText.encode`."""
        if self._tokenizer is None:
            raise BackendError("the policy has not been started")
        return tuple(self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    async def encode_prompt(self, prompt: Prompt, late: Callable[[Usage], None] | None = None) -> PromptEncoding:
        """Return the normalized mean hidden state over the problem; see `ExposesHiddenStates.encode_prompt`."""
        own = await asyncio.to_thread(self._own_tokens, prompt)
        (state,) = await self.engine.states([prompt.ids], [own])
        mean = state.features.mean(0)
        scaled = mean / mean.norm().clamp_min(1e-12)
        return PromptEncoding(tuple(scaled.tolist()), Usage(state.computed, state.cached))

    async def stream(self, request: StepRequest) -> AsyncGenerator[Chunk, None]:
        """Sample one continuation; see `Policy.stream`."""
        async with aclosing(self.engine.generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _prompt(self, problem: str) -> Prompt:
        return Prompt(problem, tuple(self._ids(self._text(problem))))

    def _text(self, problem: str) -> str:
        chat = self._messages(problem) if self._messages else messages(problem, self.info.family)
        return str(self._tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True))

    def _ids(self, text: str) -> list[int]:
        # The template adds the beginning-of-text token itself.
        return list(self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    def _own_tokens(self, prompt: Prompt) -> int:
        """Return how many of a prompt's last tokens belong to the problem and to the template's text after it."""
        text = self._text(prompt.problem)
        return min(len(self._ids(text[max(0, text.rfind(prompt.problem.strip())) :])), len(prompt.ids))

    def _load(self) -> tuple[Engine, Any, ModelInfo]:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise BackendUnavailable(f"this policy needs {error.name}: pip install {error.name}") from error
        from tts_tui.backends.engine.engine import Engine
        from tts_tui.backends.engine.model import CausalModel

        device, dtype = pick_device(torch, self._device, self._dtype)
        tokenizer, model = read_model(transformers, self._source, dtype)
        if tokenizer.chat_template is None:
            raise BackendUnavailable(
                f"{self._source} has no chat template: use an instruction-tuned model, or add chat_template.jinja"
            )
        threads = torch.get_num_threads()
        try:
            # The model check runs only a few tokens, for which waiting for a second core takes longer than using one.
            torch.set_num_threads(1)
            core = CausalModel(model.to(device).eval(), slots=self._kv_tokens)
        except (RuntimeError, MemoryError) as error:
            raise BackendUnavailable(
                f"{self._source} does not fit on {device}: {first_line(error)}; lower kv_tokens, or use another device"
            ) from error
        finally:
            torch.set_num_threads(threads)
        kind = f"{self._name} {core.config.model_type}"
        info = ModelInfo(self._name, core.parameters, min(core.context, core.slots), family_of(kind))
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        engine = Engine(
            core,
            lambda ids: backend.decode(ids, skip_special_tokens=True),
            _eos(model, tokenizer),
            rows=self._rows,
            threads=self._threads,
        )
        return engine, tokenizer, info


def read_model(transformers: Any, source: str, dtype: Any) -> tuple[Any, Any]:
    """Load the tokenizer and the model of a folder or hub id.

    Raises:
        ModelNotFound: `source` names neither a model's folder nor a hub id.
        BackendUnavailable: They cannot be loaded; the message is one sentence.
    """
    folder = folder_of(source)
    if folder is not None:
        check_weights(folder)
    options = {"local_files_only": folder is not None, "trust_remote_code": False}
    try:
        with quietly(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, use_safetensors=True, **options
            )
    except Exception as error:
        raise BackendUnavailable(load_error_message(source, error)) from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise BackendUnavailable(f"{source} has no tokenizer.json: save it with a fast tokenizer")
    return tokenizer, model


def _eos(model: Any, tokenizer: Any) -> frozenset[int]:
    found: set[int] = set()
    for ids in (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id):
        found.update([ids] if isinstance(ids, int) else ids or ())
    return frozenset(found)
