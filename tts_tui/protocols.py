"""What a policy, a reward model and a strategy must do, and the values they exchange.

Nothing here does anything. Backends and strategies depend on this module, and this module depends on neither.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal, Protocol, runtime_checkable

from msgspec import Meta, Struct

Finish = Literal["step", "eos", "boxed", "length"]
"""How a step ended: at the separator (the path can go on), at the end of the answer, with a box where the strategy
takes that as the end, or cut off at its limit."""

SEPARATOR = "\n\n"

MOST_TOKEN_IDS = 2**31
"""Bound of token ids: the tree keeps them as signed 32-bit numbers."""
TokenId = Annotated[int, Meta(ge=0, lt=MOST_TOKEN_IDS)]
"""A token id. Whatever is decoded into it is checked."""


Count = Annotated[int, Meta(ge=-(2**48), le=2**48)]
"""A number of tokens or weights, or a correction of one. What is read from a file is checked: it goes into sums and
products, as `Total` and float."""

TokenCount = Annotated[int, Meta(ge=0, le=2**48)]
"""A number of tokens as a server reports it, which is never negative."""

Total = Annotated[int, Meta(ge=-(2**62), le=2**62)]
"""A sum of counts."""


class ModelInfo(Struct, frozen=True):
    """What is known of a loaded model.

    Attributes:
        name: What users call it.
        parameters: Number of weights that each token passes; FLOPs = 2 x parameters x tokens.
        context: Longest sequence in tokens, prompt and answer together.
        family: Prompt family, a key of `tts_tui.profiles.prompts.FAMILIES`.
    """

    name: str
    parameters: Count
    context: int
    family: str = "default"


class Usage(Struct, frozen=True, omit_defaults=True):
    """Policy tokens, counted where the backend counts them.

    Attributes:
        prompt_computed: Prompt tokens that passed the model.
        prompt_cached: Prompt tokens whose keys and values were reused.
        completion: Tokens sampled.
    """

    prompt_computed: Count = 0
    prompt_cached: Count = 0
    completion: Count = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_computed + other.prompt_computed,
            self.prompt_cached + other.prompt_cached,
            self.completion + other.completion,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_computed - other.prompt_computed,
            self.prompt_cached - other.prompt_cached,
            self.completion - other.completion,
        )


class Sampling(Struct, frozen=True, omit_defaults=True):
    """How tokens are drawn. `temperature` 0 is greedy; `top_p` 1 and `top_k` -1 switch those filters off."""

    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = -1


class Prompt(Struct, frozen=True):
    """A problem as the policy sees it: the exact ids that every path starts with, and the problem as typed."""

    problem: str
    ids: tuple[int, ...]


class Claim:
    """Says whether somebody needs the result of a speculative request, which may be decided while it waits or runs.

    Attributes:
        made: Somebody needs it: from now on it is a request like any other.
        started: It is under way, and no longer waits for leave to be sent.
    """

    __slots__ = ("_listeners", "made", "started")

    def __init__(self) -> None:
        self.made = self.started = False
        self._listeners: list[Callable[[], None]] = []

    def make(self) -> None:
        """Tells everyone who waits with the request that it is needed now. Safe to call twice."""
        self.made = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    @contextmanager
    def told(self, listener: Callable[[], None]) -> Iterator[None]:
        """Has `listener` called if the claim is made inside the context."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            if listener in self._listeners:
                self._listeners.remove(listener)


class StepRequest(Struct, frozen=True):
    """One continuation of one path.

    Attributes:
        ids: Prompt and path, exactly as they were sampled.
        sampling: How tokens are drawn.
        max_tokens: Most tokens to sample.
        separator: Text that ends a step.
        rollout: False stops after the first step end; True goes on to the end of the answer, marking every step end.
        seed: Seeds this request's own random numbers; equal seeds give equal draws from equal logits.
        session: Requests of one search carry the same session, so that a router can keep them on one cache.
        claim: The claim to a request that is made before anybody needs it; None if it is needed from the beginning.
        late: Told, at most once and before the stream is closed, what was sampled and is in no chunk: a server goes on
            for a moment after it was told to stop.
    """

    ids: tuple[int, ...]
    sampling: Sampling
    max_tokens: int
    separator: str = SEPARATOR
    rollout: bool = False
    seed: int = 0
    session: str = ""
    claim: Claim | None = None
    late: Callable[[Usage], None] | None = None

    @property
    def ahead(self) -> bool:
        """Whether nobody needs it so far: it goes after all that is needed."""
        return self.claim is not None and not self.claim.made


class Chunk(Struct, frozen=True):
    """Some tokens of a stream, in order.

    A chunk never spans the end of a step: the token that completes the separator ends its chunk.

    Attributes:
        ids: New token ids. End-of-text ids are included: they were sampled, and are counted.
        text: What they add to the text; may be empty inside a multi-byte character. Special tokens add none.
        step_end: The separator is complete with this chunk.
        finish: Set on the last chunk only: "step", "eos" or "length".
        usage: Counts since the previous chunk; the sum over a stream is its cost, also when it is abandoned.
    """

    ids: tuple[int, ...]
    text: str
    step_end: bool = False
    finish: Finish | None = None
    usage: Usage = Usage()


@runtime_checkable
class Policy(Protocol):
    """The language model that writes steps."""

    @property
    def info(self) -> ModelInfo:
        """What the model is; valid after `start`."""
        ...

    async def start(self) -> None:
        """Loads or connects; called once before anything else.

        Raises:
            BackendUnavailable: The model or server cannot be had; the message says what to do.
        """
        ...

    async def close(self) -> None:
        """Frees everything; no request runs on afterwards. Safe to call twice."""
        ...

    async def prompt(self, problem: str) -> Prompt:
        """Applies the model's chat template to `problem`, once."""
        ...

    def stream(self, request: StepRequest) -> AsyncGenerator[Chunk, None]:
        """Samples one continuation. Closing the generator stops the work.

        Raises:
            ContextExceeded: `request.ids` leave no room for a single token.
            BackendError: Anything else that failed.
        """
        ...


@runtime_checkable
class HasSpareCapacity(Protocol):
    """A policy that may have room to write steps ahead of their time; one that is not `HasSpareCapacity` has none."""

    @property
    def spare(self) -> int:
        """How many more streams could run now without making another one wait."""
        ...


@runtime_checkable
class EncodesText(Protocol):
    """A policy that takes steps in words, so that a person can write one."""

    async def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a step that is not the first of its path: `text` ends with the separator, or ends the answer.

        Raises:
            BackendError: It cannot be turned into ids.
        """
        ...


class PromptEncoding(Struct, frozen=True):
    """What a policy made of a prompt.

    Attributes:
        state: The mean of its last hidden states over the problem and what the template has behind it, `[width]`, the
            length being 1; empty where it cannot be had.
        usage: What reading cost.
    """

    hidden_state: tuple[float, ...] = ()
    usage: Usage = Usage()


@runtime_checkable
class ExposesHiddenStates(Protocol):
    """A policy that shows its hidden states: they tell more of how hard a problem is for it than the text does."""

    async def encode_prompt(self, prompt: Prompt, late: Callable[[Usage], None] | None = None) -> PromptEncoding:
        """Reads a prompt. Its tokens pass the model once: what is sampled from it afterwards finds them in the cache.

        Args:
            prompt: The prompt.
            late: Told, at most once, what was spent on a reading that failed or was cancelled.

        Raises:
            BackendError: It failed.
        """
        ...


class ScoreRequest(Struct, frozen=True):
    """One step to score, with all that came before it.

    Attributes:
        prompt: The policy's prompt.
        steps: Texts of the path's steps, the last one being the step to score. None is blank.
        step_ids: The policy's ids of the same steps (separators and end-of-text ids included). Together they follow
            `prompt.ids` directly, so blank pieces between steps belong to the step before.
    """

    prompt: Prompt
    steps: tuple[str, ...]
    step_ids: tuple[tuple[int, ...], ...]


class StepScore(Struct, frozen=True):
    """The score of one step in [0, 1].

    Attributes:
        score: The score.
        computed: Tokens that the reward model computed for it.
        cached: Tokens that it reused.
        unseen: How many steps of the path it was not shown, or not as a whole, because its context is too short.
    """

    score: float
    computed: int = 0
    cached: int = 0
    unseen: int = 0


@runtime_checkable
class RewardModel(Protocol):
    """Gives every step a score in [0, 1]."""

    @property
    def info(self) -> ModelInfo:
        """What the model is; valid after `start`."""
        ...

    async def start(self) -> None:
        """Loads or connects; called once, after the policy's `start`."""
        ...

    async def close(self) -> None:
        """Frees everything. Safe to call twice."""
        ...

    async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
        """Scores the last step of each request, in order; a batch may mix problems.

        Raises:
            BackendError: Some of the batch failed, or all of it; `scores` holds what did not. A score is never made up.
        """
        ...


@runtime_checkable
class Discoverable(Protocol):
    """A reward model that can be asked what it is before it is started, so that a plan can suit it."""

    @property
    def profile(self) -> str:
        """Name of its profile; empty as long as that is not known."""
        ...

    async def discover(self) -> None:
        """Finds out.

        Raises:
            BackendError: It does not answer.
        """
        ...
