"""A policy on an SGLang server (0.5 or newer), or on SGLang's own router in front of several.

Token ids go out and token ids come back. The server's radix cache holds every path of the tree, so a request computes
one token of its prompt: the last one, which no server keeps. This relies on the following:

- The first request for a prompt goes ahead, and its siblings follow once it has its first token. Concurrent requests
  would each compute the prompt.
- Each continuation is a separate request, so that each can be ended alone. Ending one means aborting it and reading its
  last event, which has the count of the tokens that were sampled in the meantime.
- A rollout is one stream over all its steps; it is split into steps here.

Each request carries its seed. SGLang uses it only if it was started with `--enable-deterministic-inference`: then it
draws each token from the seed and the token's position, independently of the rest of the batch, and uses one and the
same seed for all requests that have none. Otherwise it draws its own random numbers.

The text of a step has no special tokens (`skip_special_tokens`), as with all backends; its ids include them.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

from tts_tui.backends.local import download
from tts_tui.backends.remote.concurrency import ConcurrencyLimit
from tts_tui.backends.remote.dispatcher import Dispatcher
from tts_tui.backends.remote.http import Http
from tts_tui.backends.remote.prefix_lock import PrefixLock
from tts_tui.backends.remote.replies import Generated
from tts_tui.backends.remote.retry import ReconnectPolicy
from tts_tui.backends.sglang import hidden_states
from tts_tui.backends.sglang.server import NEUTRAL, RESERVED, ROUTING, SGLangServer, version_of
from tts_tui.backends.sglang.stream import StepSplitter, Stream
from tts_tui.errors import BackendError, BackendTimeout, BackendUnavailable, ContextExceeded, WrongServer
from tts_tui.profiles.prompts import family_of, messages
from tts_tui.protocols import Chunk, ModelInfo, Prompt, PromptEncoding, StepRequest, Usage

SEEDS = 2**31
"""Upper bound of seeds: SGLang used signed 32-bit seeds before it used 64 bits, and crashes on larger ones. About one
in two billion pairs of samples shares a seed."""
FIRST_SEEDED = (0, 5, 3)
"""The oldest version of SGLang that accepts seeds; older ones fail on them."""
ABORT_DRAIN_SECONDS = 3.0
"""Maximum seconds to wait for the final token count of an aborted stream; a busy server takes over a second."""

T = TypeVar("T")
Messages = Callable[[str], Sequence[dict[str, str]]]


class SGLangPolicy:
    """A policy on the SGLang server or router at `url`.

    Args:
        url: The address, such as `http://127.0.0.1:30000`.
        api_key: The server's API key; by default the value of the environment variable TTS_TUI_API_KEY.
        messages: Returns the chat messages for a problem; by default those of the model's prompt family.
        concurrency: Maximum number of requests in flight; by default a limit that adapts to the measured throughput.
        max_rps: Maximum number of requests that begin per second; None for no limit.
        stall: Maximum seconds between two events of a stream before it counts as dead.
        patience: Maximum seconds to wait for a server that was reachable before to come back.
        parameters: Number of weights, for FLOPs; by default determined from the model's files, its name or its memory
            usage.

    Attributes:
        server: The server or router at the address.
        http: The connection to the address.
        dispatch: The dispatcher that orders and limits the requests.
        total: All tokens that this policy has used so far.
        version: The version of SGLang, valid after `start`; empty if the server does not report it.
        notes: Limitations of this server that users should know of, a sentence each.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        messages: Messages | None = None,
        concurrency: int | None = None,
        max_rps: float | None = None,
        stall: float = 120.0,
        patience: float = 60.0,
        parameters: int | None = None,
    ) -> None:
        self.server = SGLangServer(Http(url, api_key=api_key, stall=stall))
        self.http = self.server.http
        knee = (
            ConcurrencyLimit()
            if concurrency is None
            else ConcurrencyLimit(concurrency, least=concurrency, most=concurrency)
        )
        self.dispatch = Dispatcher(knee, rate=max_rps)
        self.total = Usage()
        self.version = ""
        self.notes: tuple[str, ...] = ()
        self._messages = messages
        self._patience = ReconnectPolicy(self.dispatch, self.server.alive, patience)
        self._parameters = parameters
        self._fixed = concurrency is not None
        self._shows = False
        self._seeded = True
        self._info: ModelInfo | None = None
        self._warm = PrefixLock()
        # New routing keys of searches whose worker has failed.
        self._routes: dict[str, str] = {}
        self._streams: set[asyncio.Task[Any]] = set()

    @property
    def info(self) -> ModelInfo:
        """Name, size, context and prompt family of the served model; valid after `start`.

        Raises:
            BackendError: The policy has not been started.
        """
        if self._info is None:
            raise BackendError("the policy has not been started")
        return self._info

    @property
    def spare(self) -> int:
        """Number of further streams that the server could run without making another one wait or slowing it down."""
        return self.dispatch.spare

    async def start(self) -> None:
        """Connect, and find out what is served.

        Raises:
            BackendUnavailable: No server answers, or another program does; the message says what to do.
            WrongServer: The server serves a reward model, or a model without a usable chat template.
        """
        await self.server.start()
        model = self.server.model
        if not self.server.writes:
            raise WrongServer(
                f"{self.http.url} serves {model} as a reward model, which writes nothing: name the server of the "
                "policy, or start it without --is-embedding"
            )
        settings = await self.server.settings()
        self.version = str(settings.version or "")
        self._shows = hidden_states.shows_states(settings)
        # A version of zeros is a build that does not know its own version.
        self._seeded = not (0, 0, 0) < version_of(settings) < FIRST_SEEDED
        if settings.disable_radix_cache:
            self.notes = (
                f"{self.http.url} runs without its radix cache, so every step computes its whole path again: start it "
                "without --disable-radix-cache",
            )
        if not self._fixed and (most := settings.max_running_requests) and most > 0:
            self.dispatch.knee = ConcurrencyLimit(most=most * len(self.server.workers))
        _, longest = await self.server.tokenize([{"role": "user", "content": "Hello"}])
        name = str(model).rstrip("/").rpartition("/")[2]
        if name == download.EMBEDDED.folder:  # same model as the local one, so its profile applies
            name = download.EMBEDDED.title
        self._info = ModelInfo(
            name=name,
            parameters=self._parameters or await self.server.parameters(settings),
            context=(settings.context_length or longest or 4096) - RESERVED,
            family=family_of(f"{name} {self.server.kind}"),
        )

    async def close(self) -> None:
        """End all requests and close the connection. Safe to call twice."""
        await self._patience.close()
        tasks = list(self._streams)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.dispatch.close()
        await self.server.close()

    async def prompt(self, problem: str) -> Prompt:
        """Return the prompt for `problem`: the served model's chat template, applied by the server's own tokenizer."""
        ids, _ = await self.server.tokenize(self._chat(problem))
        return Prompt(problem, ids)

    async def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a step's text by the server's own tokenizer; see `EncodesText.encode`."""
        return await self.server.encode(text)

    async def encode_prompt(self, prompt: Prompt, late: Callable[[Usage], None] | None = None) -> PromptEncoding:
        """Return the mean hidden state over the problem; see `ExposesHiddenStates.encode_prompt`.

        The state is empty unless the server was started to return hidden states. Behind a router, the worker that
        encodes the prompt may be another one than the one that generates steps.
        """
        if not self._shows:
            return PromptEncoding()
        self._room(prompt.ids, 1)
        changed = hidden_states.another(self._chat(prompt.problem), prompt.problem)
        ids, _ = await self.server.tokenize(changed) if changed else ((), 0)
        start = min(hidden_states.common(prompt.ids, ids), len(prompt.ids) - 1)
        ask = partial(self._ask, {ROUTING: uuid.uuid4().hex})
        return await hidden_states.read(prompt.ids, start, ask, self.http.url, late)

    async def stream(self, request: StepRequest) -> AsyncGenerator[Chunk, None]:
        """Generate one continuation; see `Policy.stream`."""
        room = self._room(request.ids, request.max_tokens)
        async with aclosing(self._patience.stream(partial(self._send, request, room))) as chunks:
            async for chunk in chunks:
                yield chunk

    # -- one request -------------------------------------------------------------------------------------------------

    def _chat(self, problem: str) -> Sequence[dict[str, str]]:
        return self._messages(problem) if self._messages else default_messages(problem, self.info)

    async def _ask(self, headers: dict[str, str], body: dict[str, Any]) -> Generated:
        """Send a request that is not a stream to `/generate`, and return its reply."""

        async def send() -> Generated:
            async with self.dispatch.slot():
                return await self.http.post("/generate", body, Generated, headers)

        reply = await self._patience.ask(send)
        self.total += hidden_states.usage_of(reply)
        return reply

    def _room(self, ids: Sequence[int], most: int) -> int:
        """Return how many tokens may be sampled, at most `most`; the server would silently shorten longer requests.

        Raises:
            BackendError: The ids are empty or invalid.
            ContextExceeded: The ids leave no room in the context.
        """
        if not ids or min(ids) < 0:  # invalid ids crash an SGLang server
            raise BackendError("there is nothing to go on from: the token ids are empty or negative")
        room = self.info.context - len(ids)
        if room < 1:
            raise ContextExceeded(
                f"{len(ids)} tokens leave no room in the context of {self.info.context}: use a shorter prompt "
                "or fewer, shorter steps, or start the server with a larger --context-length"
            )
        return min(room, most)

    async def _send(self, request: StepRequest, room: int) -> AsyncGenerator[Chunk, None]:
        async with (
            self._warm.acquire(request.session, request.ids, request.claim) as began,
            self.dispatch.slot(request.session, request.claim),
        ):
            key = self._routes.get(request.session, request.session)
            headers = {ROUTING: key} if key else {}
            stream = Stream(
                self.http, body(request, room, seeded=self._seeded), headers, self.server.abort, self.server.vocabulary
            )
            self._keep(stream.pump)  # it reads the end of the stream after the last event
            cutter = StepSplitter(request, self.server.texts)
            owed = Usage()
            try:
                async for event in stream.events():
                    began()
                    self.dispatch.on_tokens(event.usage.completion)
                    self.total += event.usage
                    owed = event.usage  # until it is in a chunk: splitting may fail, and the caller may leave
                    for chunk in await cutter.chunks(event):
                        owed -= chunk.usage
                        if chunk.step_end or chunk.finish:
                            self._warm.add(request.session, (*request.ids, *cutter.ids))
                        yield chunk
            except (BackendUnavailable, BackendTimeout):
                if self.server.is_router and self._routes.get(request.session, request.session) == key:
                    self._routes[request.session] = uuid.uuid4().hex  # another worker may do better
                raise
            finally:
                if not stream.done:
                    await self._drain_after_abort(stream, request, owed)
                else:
                    _tell_late(request, owed)

    async def _drain_after_abort(self, stream: Stream, request: StepRequest, owed: Usage) -> None:
        """Abort `stream`, and count the tokens that it sampled after the last event read, even if cancelled meanwhile.

        Args:
            stream: The stream.
            request: The request that the stream answers.
            owed: Usage that was read, but is not in any chunk.
        """
        task = self._keep(asyncio.create_task(stream.abort(ABORT_DRAIN_SECONDS)))
        hurried = False
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                hurried = True
        if not task.cancelled():
            late = task.result()
            self.total += late
            owed += late
        _tell_late(request, owed)
        if hurried:
            raise asyncio.CancelledError

    def _keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Register `task` to be cancelled by `close` if it is still running then; return it."""
        self._streams.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._streams.discard(task)
        if not task.cancelled():
            task.exception()  # mark as retrieved: the error was raised where the task was awaited


def _tell_late(request: StepRequest, usage: Usage) -> None:
    if usage != Usage() and request.late is not None:
        request.late(usage)


def body(request: StepRequest, room: int, *, seeded: bool = True) -> dict[str, Any]:
    """Return the body of a request to `/generate`; it sets every sampling parameter, so that no server default applies.

    Args:
        request: The continuation to generate.
        room: Maximum number of tokens to sample.
        seeded: True to include the seed, which old versions of SGLang fail on.
    """
    sampling = request.sampling
    drawing: dict[str, Any] = {
        **NEUTRAL,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k if sampling.top_k > 0 else NEUTRAL["top_k"],
        "max_new_tokens": room,
        "stop": [] if request.rollout else [request.separator],
        "no_stop_trim": True,
        "skip_special_tokens": True,
    }
    if seeded:
        drawing["sampling_seed"] = request.seed % SEEDS
    # All ids have one length: SGLang aborts every request whose id begins with the given one.
    return {"input_ids": request.ids, "sampling_params": drawing, "stream": True, "rid": uuid.uuid4().hex}


def default_messages(problem: str, info: ModelInfo) -> Sequence[dict[str, str]]:
    """Return the chat messages for `problem`.

    The embedded model gets few-shot examples, as when it runs in this process; any other its prompt family's messages.
    """
    if re.search("smollm2-135m", info.name, re.IGNORECASE):
        from tts_tui.backends.local import few_shot

        return few_shot.messages(problem)
    return messages(problem, info.family)
