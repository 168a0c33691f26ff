"""A process reward model that is an adapter on a policy's own weights. One for the embedded policy is shipped.

The adapter was trained to continue right solutions. A step is scored by its tokens: by how much less likely each one is
than the token that the adapter prefers there (`tts_tui.backends.adapter.text.log_ratios`), which a `ScoreModel` turns
into a score. The weights are those of the base model, held in memory once if the policy is that model; the PRM adds
only the adapter and a separate pool of keys and values. `docs/embedded-prm.md` is the model card of the shipped
adapter; `tts-tui train-prm` trains others.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from array import array
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tts_tui.backends.adapter import file
from tts_tui.backends.adapter.file import AdapterHead, Sums
from tts_tui.backends.adapter.text import ALONE_FLOOR, AdapterText, alone, ends, log_ratios
from tts_tui.backends.local import download
from tts_tui.backends.local.loading import Loading, first_line, pick_device
from tts_tui.backends.local.policy import LocalPolicy, read_model
from tts_tui.errors import BackendError, BackendUnavailable
from tts_tui.protocols import ModelInfo, Policy, ScoreRequest, StepScore

if TYPE_CHECKING:
    from tts_tui.backends.engine.engine import Engine

TITLE = "embedded PRM"
"""The name of the shipped adapter in recordings."""
SLOTS = 8192
"""The default number of tokens whose keys and values are kept; an adapter's prompts are short."""
_REMEMBERED = 50_000


def shipped() -> Path:
    """Return the path of the adapter that is shipped with this package."""
    return Path(str(resources.files("tts_tui") / "data" / "embedded_prm.safetensors"))


class _Made(NamedTuple):
    """The result of loading: `rows` are the output embeddings of the adapter's vocabulary, `table` all of them."""

    info: ModelInfo
    head: AdapterHead
    layout: AdapterText
    engine: Engine
    rows: Any
    table: Any


class _Read(NamedTuple):
    """The ids of a path, and the number of its last tokens whose log-ratios are needed."""

    ids: tuple[int, ...]
    tokens: int


class _Path(NamedTuple):
    """A question and its steps, as ids.

    Attributes:
        ids: The ids of the question and all steps.
        steps: The number of ids of each step.
        ends: True if the last step ends the answer.
        alone: The question directly followed by the answer, if the score depends on it.
    """

    ids: tuple[int, ...]
    steps: tuple[int, ...]
    ends: bool
    alone: _Read | None


class AdapterPRM:
    """A `RewardModel` that is an adapter on a base model.

    If the policy is the base model, its weights are shared; with any other policy the base model is loaded. The PRM
    reads the problem and the steps as text, and has a separate pool of keys and values: when a path has grown by a
    step, only that step passes through the model.

    Args:
        policy: The policy of the same run, if any.
        path: The file of the adapter; by default the shipped one.
        progress: A callback for the download of the embedded model, where that is needed.
        dtype: The dtype, as in `LocalPolicy`, if the base model is loaded.
        kv_tokens: The number of tokens whose keys and values are kept.
        threads: The number of threads to use on a CPU; by default all cores or one, whichever is currently faster.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        path: str | Path | None = None,
        progress: download.Progress | None = None,
        dtype: str | None = None,
        kv_tokens: int = SLOTS,
        threads: int | None = None,
    ) -> None:
        self._policy, self._given = policy, path
        self._path = Path(os.path.expanduser(str(path))) if path else shipped()
        self._progress, self._dtype, self._slots, self._threads = progress, dtype, kv_tokens, threads
        self._loading = Loading(self._load, lambda made: made.engine.stop())
        self._made: _Made | None = None
        self._sums: dict[bytes, Sums] = {}

    @property
    def info(self) -> ModelInfo:
        """The name, size and context of the base model with the adapter; valid after `start`."""
        return self._ready().info

    @property
    def profile(self) -> str:
        """The name of its profile; empty unless it is the shipped adapter."""
        return "" if self._given else "embedded"

    @property
    def defaults(self) -> dict[str, str]:
        """The score and vote that suit it best; empty if its file cannot be read, which `start` reports."""
        try:
            return file.peek(self._path).defaults
        except BackendUnavailable:
            return {}

    async def start(self) -> None:
        """Load the adapter, and the base model unless the policy has it.

        Raises:
            BackendUnavailable: They cannot be loaded, or do not match each other.
        """
        self._made = await self._loading.done()

    async def close(self) -> None:
        """Free everything that `start` loaded, but not a shared policy. It is safe to call this twice."""
        made, self._made = self._made, None
        self._sums.clear()
        if made is not None:
            await made.engine.close()

    async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
        """Score the last step of each request, in order; a batch may mix problems.

        Raises:
            ContextExceeded: A path is longer than the context.
            BackendError: The engine failed, or a request has no step.
        """
        made = self._ready()
        if not all(request.steps for request in requests):
            raise BackendError("there is no step to score")
        paths = await asyncio.to_thread(lambda: [_path(made, request) for request in requests])
        distinct = list(dict.fromkeys(paths))
        # If the earlier steps of a path were not scored here, all tokens are read; those in the pool are not run again.
        known = [self._sums.get(_key(_before(path))) for path in distinct]
        reads = [
            _Read(path.ids, sum(path.steps) if before is None else path.steps[-1])
            for path, before in zip(distinct, known, strict=True)
        ]
        answers = [path.alone for path in distinct if path.alone is not None]
        everything = list(dict.fromkeys([*reads, *answers]))  # a solution may consist of only its answer
        states = await made.engine.states([one.ids for one in everything], [one.tokens + 1 for one in everything])
        ratios = await asyncio.to_thread(
            lambda: {one: _ratios(made, one, state.features) for one, state in zip(everything, states, strict=True)}
        )
        sums = {answer: sum(ratios[answer]) for answer in answers}
        counts = {one.ids: (state.computed, state.cached) for one, state in zip(everything, states, strict=True)}
        scores = {
            path: self._judged(made.head, path, before, ratios[own], sums)
            for path, before, own in zip(distinct, known, reads, strict=True)
        }
        return [StepScore(scores[path], *_spent(path, counts)) for path in paths]

    def _judged(
        self, head: AdapterHead, path: _Path, before: Sums | None, ratios: list[float], answers: dict[_Read, float]
    ) -> float:
        """Return the score of a path's last step, from its log-ratios, or those of all steps where `before` is None."""
        at = 0
        if before is None:
            before = Sums()
            for tokens in path.steps[:-1]:
                before = before.then(Sums.of(ratios[at : at + tokens]))
                at += tokens
        step = Sums.of(ratios[at:])
        while len(self._sums) >= _REMEMBERED:
            del self._sums[next(iter(self._sums))]
        self._sums[_key(path.ids)] = before.then(step)
        if not path.ends:
            return head.step.score(step, before)
        answer = -ALONE_FLOOR if path.alone is None else max(-ALONE_FLOOR, answers[path.alone])
        return head.answer.score(step, before, answer)

    def _ready(self) -> _Made:
        if self._made is None:
            raise BackendError("the PRM has not been started")
        return self._made

    def _load(self) -> _Made:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise BackendUnavailable(f"this reward model needs {error.name}: pip install {error.name}") from error
        from tts_tui.backends.adapter.lora import adapted, fingerprint, put
        from tts_tui.backends.engine.engine import Engine
        from tts_tui.backends.engine.model import CausalModel

        adapter = file.load(self._path)
        head = adapter.head
        shared = self._policy.network if isinstance(self._policy, LocalPolicy) else None
        if shared is None or fingerprint(shared[1]) != head.fingerprint:
            shared = self._base(torch, transformers, head.base)
            if fingerprint(shared[1]) != head.fingerprint:
                raise BackendUnavailable(
                    f"the PRM {self._path.name} was trained on other weights than {head.base} has: "
                    "train it again with `tts-tui train-prm`"
                )
        tokenizer, base = shared
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)  # for the few tokens of the check, waiting for a second core takes longer
            model = adapted(base, head.shape)
            put(model, adapter.tensors)
            core = CausalModel(model.eval(), slots=self._slots)
        except (RuntimeError, MemoryError) as error:
            raise BackendUnavailable(
                f"the PRM {self._path.name} does not fit on {base.device}: {first_line(error)}"
            ) from error
        finally:
            torch.set_num_threads(threads)
        layout = AdapterText(tokenizer)
        engine = Engine(core, lambda _: "", frozenset(), threads=self._threads)
        name = self._path.name if self._given else TITLE
        info = ModelInfo(name, core.parameters, min(core.context, core.slots), "adapter")
        table = model.get_output_embeddings().weight.detach()
        if int(adapter.vocabulary.max()) >= len(table):
            raise BackendUnavailable(
                f"the PRM {self._path.name} is damaged, its vocabulary has ids that the model lacks: "
                "train it again with `tts-tui train-prm`"
            )
        return _Made(info, head, layout, engine, table[adapter.vocabulary.to(table.device)].float().cpu(), table)

    def _base(self, torch: Any, transformers: Any, spec: str) -> tuple[Any, Any]:
        """Load the tokenizer and the network of the base model."""
        source = spec.removeprefix("hf:")
        if spec == download.EMBEDDED.name:
            if not download.is_present():
                download.pull(self._progress)
            source = str(download.model_path())
        device, dtype = pick_device(torch, None, self._dtype)
        try:
            tokenizer, model = read_model(transformers, os.path.expanduser(source), dtype)
        except BackendUnavailable as error:
            raise BackendUnavailable(f"the PRM {self._path.name} is made on {spec}: {error}") from error
        tokenizer.backend_tokenizer.no_truncation()
        return tokenizer, model.to(device).eval()


def _path(made: _Made, request: ScoreRequest) -> _Path:
    question = made.layout.prompt(request.prompt.problem)
    steps = [made.layout.step(text) for text in request.steps]
    last = ends(request.steps[-1])
    answer = alone(request.steps) if last and made.head.answer.alone else None
    read = None
    if answer is not None:
        own = made.layout.step(answer)
        read = _Read(question + own, len(own))
    return _Path(question + tuple(token for step in steps for token in step), tuple(map(len, steps)), last, read)


def _before(path: _Path) -> tuple[int, ...]:
    return path.ids[: -path.steps[-1]]


def _key(ids: Sequence[int]) -> bytes:
    """Return a checksum of ids, which takes far less memory than the ids themselves."""
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=16).digest()


def _ratios(made: _Made, read: _Read, states: Any) -> list[float]:
    """Return the log-ratios of the last tokens of a path; `states` are those of one more token."""
    ids = read.ids[-read.tokens :]
    own = made.table[list(ids)].float().cpu()
    return [float(ratio) for ratio in log_ratios(states[:-1], own, made.rows)]


def _spent(path: _Path, counts: dict[tuple[int, ...], tuple[int, int]]) -> tuple[int, int]:
    """Return the tokens computed and reused for a path, and set its `counts` to all reused, for duplicates of it."""
    total = (0, 0)
    for ids in (path.ids, path.alone.ids if path.alone else None):
        if ids is not None:
            computed, cached = counts[ids]
            counts[ids] = (0, computed + cached)
            total = (total[0] + computed, total[1] + cached)
    return total
