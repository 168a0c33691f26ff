"""The contracts of policies and reward models, and the values that they exchange with a search.

This module holds no behaviour. Backends and strategies depend on it, and it depends on neither.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal, Protocol, runtime_checkable

from msgspec import Meta, Struct

Finish = Literal["step", "eos", "boxed", "length"]
"""How a step ended: "step" at the separator (the path can continue), "eos" at the end of the answer, "boxed" with a box
where the plan's variant takes that as the end, or "length" when cut off at its token limit."""

SEPARATOR = "\n\n"

MOST_TOKEN_IDS = 2**31
"""Exclusive upper bound of token ids: the tree stores them as signed 32-bit integers."""
TokenId = Annotated[int, Meta(ge=0, lt=MOST_TOKEN_IDS)]
"""A token id. Its range is checked when it is decoded."""


Count = Annotated[int, Meta(ge=-(2**48), le=2**48)]
"""A number of tokens or weights, or a (possibly negative) correction of one.

Its range is checked when it is read from a file, because counts enter sums (`Total`) and products (floats)."""

TokenCount = Annotated[int, Meta(ge=0, le=2**48)]
"""A number of tokens as reported by a server, never negative."""

Total = Annotated[int, Meta(ge=-(2**62), le=2**62)]
"""A sum of token counts."""


class ModelInfo(Struct, frozen=True):
    """A description of a loaded model.

    Attributes:
        name: The name shown to users.
        parameters: Number of weights that each token passes through; FLOPs = 2 x parameters x tokens.
        context: Maximum sequence length in tokens, prompt and answer together.
        family: Prompt family, a key of `tts_tui.profiles.prompts.FAMILIES`.
    """

    name: str
    parameters: Count
    context: int
    family: str = "default"


class Usage(Struct, frozen=True, omit_defaults=True):
    """Policy tokens, as counted by the backend.

    Attributes:
        prompt_computed: Prompt tokens that were run through the model.
        prompt_cached: Prompt tokens whose keys and values were reused from a cache.
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
    """Sampling parameters. `temperature` 0 is greedy; `top_p` 1 and `top_k` -1 disable those filters."""

    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = -1


class Prompt(Struct, frozen=True):
    """A problem as the policy sees it: the problem as typed, and the exact token ids that every path starts with."""

    problem: str
    ids: tuple[int, ...]


class Claim:
    """A flag that turns a speculative request into a required one, possibly while it is queued or running.

    Attributes:
        made: True once the result is needed: from then on the request is like any other.
        started: True once the request is under way and no longer waits for permission to be sent.
    """

    __slots__ = ("_listeners", "made", "started")

    def __init__(self) -> None:
        self.made = self.started = False
        self._listeners: list[Callable[[], None]] = []

    def make(self) -> None:
        """Mark the request as needed and notify all listeners. Safe to call twice."""
        self.made = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    @contextmanager
    def told(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` if the claim is made inside the context."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            if listener in self._listeners:
                self._listeners.remove(listener)


class StepRequest(Struct, frozen=True):
    """A request for one continuation of one path.

    Attributes:
        ids: Token ids of prompt and path, exactly as they were sampled.
        sampling: The sampling parameters.
        max_tokens: Maximum number of tokens to sample.
        separator: Text that ends a step.
        rollout: False stops after the first step end; True continues to the end of the answer, marking every step end.
        seed: Seed of this request's own random numbers; equal seeds give equal draws from equal logits.
        session: An id shared by all requests of one search, so that a router can send them to the same cache.
        claim: The claim of a speculative request; None if the result is needed from the beginning.
        late: Callback for the usage of tokens that were sampled but are in no chunk, because a server continues for a
            moment after it is asked to stop. Called at most once, before the stream is closed.
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
        """True while the request is speculative: it is scheduled after all requests whose result is needed."""
        return self.claim is not None and not self.claim.made


class Chunk(Struct, frozen=True):
    """A piece of a stream: some tokens, in order.

    A chunk never spans the end of a step: the token that completes the separator ends its chunk.

    Attributes:
        ids: New token ids. End-of-text ids are included: they were sampled, and are counted.
        text: Text that the tokens add; may be empty inside a multi-byte character. Special tokens add none.
        step_end: True if this chunk completes the separator.
        finish: How the stream ended: "step", "eos" or "length". Set on the last chunk only.
        usage: Usage since the previous chunk; the sum over a stream is its cost, also when the stream is abandoned.
    """

    ids: tuple[int, ...]
    text: str
    step_end: bool = False
    finish: Finish | None = None
    usage: Usage = Usage()


@runtime_checkable
class Policy(Protocol):
    """The language model that generates steps."""

    @property
    def info(self) -> ModelInfo:
        """The description of the model; valid after `start`."""
        ...

    async def start(self) -> None:
        """Load the model or connect to its server. Called once, before anything else.

        Raises:
            BackendUnavailable: The model cannot be loaded or the server cannot be reached; the message tells the user
                how to fix it.
        """
        ...

    async def close(self) -> None:
        """Release all resources; no request keeps running afterwards. Safe to call twice."""
        ...

    async def prompt(self, problem: str) -> Prompt:
        """Apply the model's chat template to `problem`. Called once per search."""
        ...

    def stream(self, request: StepRequest) -> AsyncGenerator[Chunk, None]:
        """Sample one continuation. Closing the generator stops the generation.

        Raises:
            ContextExceeded: `request.ids` leave no room for a single token.
            BackendError: The request failed in any other way.
        """
        ...


@runtime_checkable
class HasSpareCapacity(Protocol):
    """A policy that may have capacity to generate steps speculatively.

    A policy without this protocol is taken to have no spare capacity.
    """

    @property
    def spare(self) -> int:
        """Number of additional streams that could run now without delaying another one."""
        ...


@runtime_checkable
class EncodesText(Protocol):
    """A policy that can tokenize the text of a step, so that a person can write one."""

    async def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a step's text.

        Args:
            text: The text of a step that is not the first of its path; it ends with the separator, or ends the answer.

        Raises:
            BackendError: The text cannot be tokenized.
        """
        ...


class PromptEncoding(Struct, frozen=True):
    """A policy's encoding of a prompt.

    Attributes:
        hidden_state: The mean of the last layer's hidden states over the problem and the template text after it, of
            shape `[width]`, normalized to length 1; empty if it is not available.
        usage: Token usage of the encoding.
    """

    hidden_state: tuple[float, ...] = ()
    usage: Usage = Usage()


@runtime_checkable
class ExposesHiddenStates(Protocol):
    """A policy that exposes its hidden states.

    They predict how hard a problem is for the policy better than the problem's text does.
    """

    async def encode_prompt(self, prompt: Prompt, late: Callable[[Usage], None] | None = None) -> PromptEncoding:
        """Encode a prompt. Its tokens pass the model once; requests that start with it then find them in the cache.

        Args:
            prompt: The prompt.
            late: Callback for the usage of an encoding that failed or was cancelled. Called at most once.

        Raises:
            BackendError: The encoding failed.
        """
        ...


class ScoreRequest(Struct, frozen=True):
    """A request to score one step, given all steps before it.

    Attributes:
        prompt: The policy's prompt.
        steps: Texts of the path's steps, none of them blank; the last one is the step to score.
        step_ids: The policy's token ids of the same steps (separators and end-of-text ids included). Concatenated, they
            follow `prompt.ids` directly, so blank pieces between steps belong to the step before.
    """

    prompt: Prompt
    steps: tuple[str, ...]
    step_ids: tuple[tuple[int, ...], ...]


class StepScore(Struct, frozen=True):
    """The score of one step in [0, 1].

    Attributes:
        score: The score.
        computed: Tokens that the reward model computed for it.
        cached: Tokens that the reward model reused from a cache.
        unseen: Number of steps of the path that the reward model was not shown in full, because its context is too
            short.
    """

    score: float
    computed: int = 0
    cached: int = 0
    unseen: int = 0


@runtime_checkable
class RewardModel(Protocol):
    """A process reward model (PRM), which gives every step a score in [0, 1]."""

    @property
    def info(self) -> ModelInfo:
        """The description of the model; valid after `start`."""
        ...

    async def start(self) -> None:
        """Load the model or connect to its server. Called once, after the policy's `start`."""
        ...

    async def close(self) -> None:
        """Release all resources. Safe to call twice."""
        ...

    async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
        """Score the last step of each request and return the scores in the same order. A batch may mix problems.

        Raises:
            BackendError: All or part of the batch failed; the error's `scores` holds the scores that were computed.
                Missing scores are never made up.
        """
        ...


@runtime_checkable
class Discoverable(Protocol):
    """A reward model that can be identified before it is started, so that a plan can be fitted to it."""

    @property
    def profile(self) -> str:
        """The name of the model's profile; empty until it is known."""
        ...

    async def discover(self) -> None:
        """Determine which model the server has, so that `profile` is known.

        Raises:
            BackendError: The server does not answer.
        """
        ...
