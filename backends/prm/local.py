"""A process reward model that runs in this process: any of `tts-tui profiles`, loaded from its checkpoint.

The network runs on the in-process engine, whose pool caches computed tokens: when a path has grown by a step, only
that step passes through the model, and a batch of paths is run together.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tts_tui import profiles
from tts_tui.backends.local.loading import Loading, first_line, name_of, pick_device
from tts_tui.backends.prm.truncation import fitting
from tts_tui.errors import BackendBadResponse, BackendError, BackendUnavailable
from tts_tui.profiles import specs
from tts_tui.protocols import ModelInfo, ScoreRequest, StepScore

if TYPE_CHECKING:
    from tts_tui.backends.engine.engine import Engine
    from tts_tui.backends.prm.heads import ScoreHead
    from tts_tui.backends.prm.layouts import Layout

# Idle OpenMP threads should sleep, not spin: the event loop and the screen need the cores too. torch reads this when
# it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class _Made(NamedTuple):
    """The result of loading a checkpoint."""

    profile: str
    info: ModelInfo
    layout: Layout
    head: ScoreHead
    engine: Engine


class LocalPRM:
    """A `RewardModel` on the in-process engine.

    Args:
        source: A folder in Hugging Face format, or a hub id.
        name: The name of its profile or adapter; by default recognised from the checkpoint.
        layout: The name of its input layout: `official`, `paper` or `sal`.
        allow_pickle: Also load weights that were pickled by torch, which can run code.
        device: "cpu", "cuda", ...; by default CUDA if it is available.
        dtype: "float32", "bfloat16" or "float16"; by default float32 on a CPU and bfloat16 elsewhere.
        kv_tokens: The number of tokens whose keys and values are kept; by default as many as fit into a share of the
            memory.
        threads: The number of threads to use on a CPU; by default all cores or one, whichever is currently faster.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        name: str | None = None,
        layout: str | None = None,
        allow_pickle: bool = False,
        device: str | None = None,
        dtype: str | None = None,
        kv_tokens: int | None = None,
        threads: int | None = None,
    ) -> None:
        self._source = os.path.expanduser(str(source))
        self._name, self._layout_name = name, layout or "official"
        self._allow_pickle = allow_pickle
        self._device, self._dtype, self._kv_tokens, self._threads = device, dtype, kv_tokens, threads
        self._loading = Loading(self._load, lambda made: made.engine.stop())
        self._made: _Made | None = None

    @property
    def info(self) -> ModelInfo:
        """The name, size and context of the model; valid after `start`."""
        if self._made is None:
            raise BackendError("the reward model has not been started")
        return self._made.info

    @property
    def profile(self) -> str:
        """The name of its profile; before `start`, derived from its name and config.json, or empty."""
        if self._made is not None:
            return self._made.profile
        return profiles.choose(self._name, self._source, specs.architecture(Path(self._source))) or ""

    async def start(self) -> None:
        """Load the checkpoint and check everything on which its scores depend.

        Raises:
            BackendUnavailable: The checkpoint cannot be loaded, or is a different PRM from the one that was named.
            UsageError: It is not a known PRM.
        """
        self._made = await self._loading.done()

    async def close(self) -> None:
        """Free the model. It is safe to call this twice."""
        made, self._made = self._made, None
        if made is not None:
            await made.engine.close()

    async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
        """Score the last step of each request, in order; a batch may mix problems.

        Raises:
            ContextExceeded: A question leaves no room for a step.
            BackendError: The engine failed, or the model's output is not finite.
        """
        made = self._made
        if made is None:
            raise BackendError("the reward model is not running")
        inputs = await asyncio.to_thread(_inputs, made, requests)
        distinct = list(dict.fromkeys(ids for ids, _ in inputs))
        ends = await made.engine.states(distinct)
        scores = dict(zip(distinct, await asyncio.to_thread(made.head.scores, ends), strict=True))
        counts = {ids: (end.computed, end.cached) for ids, end in zip(distinct, ends, strict=True)}
        result = []
        for (ids, unseen), request in zip(inputs, requests, strict=True):
            score = scores[ids]
            if score is None:
                raise BackendBadResponse(f"{made.info.name} gives no number for the step {request.steps[-1]!r}")
            computed, cached = counts[ids]
            counts[ids] = (0, len(ids))  # for duplicates of this request
            result.append(StepScore(score, computed, cached, unseen))
        return result

    def _load(self) -> _Made:
        try:
            import torch

            from tts_tui.backends.engine.engine import Engine
            from tts_tui.backends.engine.model import CausalModel
        except ImportError as error:
            raise BackendUnavailable(f"this reward model needs {error.name}: pip install {error.name}") from error
        from tts_tui.backends.prm.checkpoint import Checkpoint, load_head
        from tts_tui.backends.prm.layouts import check_tokens, make_layout
        from tts_tui.backends.prm.tokenizer import PRMTokenizer

        device, dtype = pick_device(torch, self._device, self._dtype)
        checkpoint = Checkpoint(self._source, allow_pickle=self._allow_pickle)
        chosen = profiles.choose(self._name, self._source, checkpoint.architecture)
        if chosen is None:
            raise specs.unknown_checkpoint(self._source, checkpoint.architecture)
        known, table = profiles.profile(chosen), profiles.layout(chosen, self._layout_name)
        checkpoint.fetch()
        head = load_head(checkpoint, known["adapter"], known)
        tokenizer = PRMTokenizer.load(str(checkpoint.folder))
        if "head" in known:
            check_tokens(tokenizer, known["head"])
        layout = make_layout(table, tokenizer)
        body, longest = checkpoint.body(dtype)
        core = _on_device(self._source, lambda: CausalModel(body.to(device).eval(), slots=self._kv_tokens), torch)
        engine = Engine(core, lambda _: "", frozenset(), threads=self._threads)
        context = min(longest, engine.context, int(known.get("context", longest)))
        family = profiles.full_name(chosen, self._layout_name)
        info = ModelInfo(name_of(self._source), core.parameters + head.parameters, context, family)
        return _Made(chosen, info, layout, head, engine)


def _inputs(made: _Made, requests: Sequence[ScoreRequest]) -> list[tuple[tuple[int, ...], int]]:
    """Return the ids of each request, and how many of its steps they do not include."""
    if not all(request.steps for request in requests):
        raise BackendError("there is no step to score")
    context = made.info.context
    return [fitting(made.layout, request.prompt.problem, request.steps, context) for request in requests]


def _on_device(source: str, make: Any, torch: Any) -> Any:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # for the few tokens of the check, waiting for a second core takes longer
        return make()
    except (RuntimeError, MemoryError) as error:
        raise BackendUnavailable(
            f"{source} does not fit into the memory: {first_line(error)}; use another device, or serve it with "
            "`tts-tui serve prm` on a machine that has the room"
        ) from error
    finally:
        torch.set_num_threads(threads)
