"""A policy on any server that speaks OpenAI's protocol: vLLM, llama.cpp, hosted models, SGLang's own routes.

This backend is less exact than the others, because the protocol exchanges text where SGLang's exchanges token ids. Each
continuation is one streamed request to `/v1/completions`, whose prompt is the text of the complete path. The
consequences:

- **Ids are synthetic.** An id holds up to three bytes of UTF-8: `length << 24 | bytes`; 0 is the end of a text. So ids
  can be converted back to the exact text of a path without any state, also from a recording in another process. A token
  takes 1.2 to 2 ids, and the limit on the length of a path (`total_tokens`) counts ids: paths are shorter by this
  factor.
- **Text is tokenized again** with each request, and not always into the tokens that were sampled.
- **Steps are split here.** The protocol does not report whether a stop text or the end of the completion was reached,
  so no stop text is requested: the stream is closed at the separator, text after it in the same event is dropped, and
  tokens that the server samples until it notices are not counted.
- **Sampling follows the plan**: every parameter is sent, so that no server fills in its own
  (`tts_tui.backends.openai.sampling`). Special tokens are requested as text, because a path without them would not be
  the one that was sampled; llama.cpp returns them only if it was started with `--special`.
- **The server must continue text.** A server that wraps it in a chat template is refused at the start.
- **Counts are the server's** if it sends them: with every event (vLLM, SGLang), or at the end of a stream. Otherwise
  one event with text counts as one token, and a prompt as many tokens as its text has ids; for streams that are closed
  early, this estimate is final. If a server does not report how much of the prompt was cached, all prompt tokens count
  as computed. `OpenAIPolicy.notes` reports which of this applies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from tts_tui.backends.openai.chat_template import NO_TEMPLATE, Template, find_template, plain
from tts_tui.backends.openai.sampling import Fields, Parameters
from tts_tui.backends.openai.stream import (
    CompletionEvent,
    TextStepSplitter,
    check,
    context_exceeded,
    context_refused,
    pack,
    unpack,
)
from tts_tui.backends.remote.concurrency import ConcurrencyLimit
from tts_tui.backends.remote.dispatcher import Dispatcher
from tts_tui.backends.remote.http import Http, UnexpectedReply, check_url
from tts_tui.backends.remote.ollama import refuse_ollama
from tts_tui.backends.remote.parameter_count import count_parameters
from tts_tui.backends.remote.prefix_lock import PrefixLock
from tts_tui.backends.remote.replies import Listed, Named, Served, ServedMeta
from tts_tui.backends.remote.retry import ReconnectPolicy
from tts_tui.backends.remote.untrusted import ServerText
from tts_tui.backends.sglang.policy import default_messages
from tts_tui.errors import BackendBadResponse, BackendError, ContextExceeded, RequestRefused, UsageError, WrongServer
from tts_tui.profiles.prompts import family_of
from tts_tui.protocols import Chunk, ModelInfo, Prompt, Sampling, StepRequest, Usage

CONTEXT = 4096
"""Context length in tokens that is assumed for a server that does not report its own."""
LEAST_ROOM = 32
"""Minimum number of tokens to request, even if by our estimate there is no room: the server knows the exact number."""
USELESS_ROOM = 8
"""Number of tokens at or below which a refused request is not shortened further."""
MOST_LISTED = 10

PROBE = "Hello"
MOST_READ = len(PROBE) + 2
"""Maximum number of prompt tokens of the probe: one per character, and tokens for the beginning of the text. A server
that counts more adds text of its own."""

STREAM_OPTIONS: tuple[dict[str, Any], ...] = (
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"stream_options": {"include_usage": True}},
    {},
)
"""Alternative fields that request token counts; the first that a server accepts is used."""


class OpenAIPolicy:
    """A policy on an OpenAI-compatible server.

    It does not implement `HasSpareCapacity`: unused speculative tokens may be billed by the server, so steps are
    generated speculatively only on request.

    Args:
        spec: The server and model as `URL#MODEL`, such as `http://127.0.0.1:8000/v1#NAME`; `/v1` may be left out, and
            MODEL if the server has only one.
        api_key: The server's API key; by default the value of the environment variable TTS_TUI_API_KEY.
        concurrency: Maximum number of requests in flight; by default a limit that adapts to the measured throughput.
        max_rps: Maximum number of requests that begin per second; None for no limit.
        stall: Maximum seconds between two events of a stream before it counts as dead.
        patience: Maximum seconds to wait for a server that was reachable before to come back.

    Attributes:
        http: The connection to the server.
        dispatch: The dispatcher that orders and limits the requests.
        total: All tokens that this policy has used so far.
        notes: Limitations of this server that users should know of, a sentence each; complete after `start`.
    """

    def __init__(
        self,
        spec: str,
        *,
        api_key: str | None = None,
        concurrency: int | None = None,
        max_rps: float | None = None,
        stall: float = 120.0,
        patience: float = 60.0,
    ) -> None:
        url, _, self._named = spec.partition("#")
        self._model: ServerText | str = self._named
        url = check_url(url)
        # Endpoints outside the protocol, such as /tokenize, are next to /v1 and not below it.
        self._prefixes = ("/v1",) if url.endswith("/v1") else ("/v1", "")
        self._prefix = self._prefixes[0]
        self.http = Http(url.removesuffix("/v1"), api_key=api_key, stall=stall)
        knee = (
            ConcurrencyLimit()
            if concurrency is None
            else ConcurrencyLimit(concurrency, least=concurrency, most=concurrency)
        )
        self.dispatch = Dispatcher(knee, rate=max_rps)
        self.total = Usage()
        self.notes: tuple[str, ...] = ()
        self._patience = ReconnectPolicy(
            self.dispatch, lambda: self.http.read("GET", self._prefix + "/models"), patience
        )
        self._warm = PrefixLock()
        self._info: ModelInfo | None = None
        self._context: int | None = None
        self._template: Template | None = None
        self._options: dict[str, Any] = STREAM_OPTIONS[0]
        self._parameters = Parameters(self.http.url)

    @property
    def info(self) -> ModelInfo:
        """Name, size, context and prompt family of the served model; valid after `start`.

        Raises:
            BackendError: The policy has not been started.
        """
        if self._info is None:
            raise BackendError("the policy has not been started")
        return self._info

    async def start(self) -> None:
        """Connect, find out what is served, and generate one token to check that it works.

        Raises:
            UsageError: The server does not have the model, or has several and none is named.
            BackendUnavailable: No server answers, or another program does; the message says what to do.
        """
        await self.http.open()
        served = self._choose(await self._models())
        await refuse_ollama(self.http)
        self._model = self._named if served is None else served.id
        model, root = str(self._model), str((served and served.root) or "")
        counts = [await asyncio.to_thread(count_parameters, name) for name in (model, root)]
        self._context = _context_of(served)
        name = model.rstrip("/").rpartition("/")[2]
        family = family_of(f"{name} {root}")
        self._info = ModelInfo(name, counts[0] or counts[1], self._context or CONTEXT, family)
        self._template = await find_template(self.http, self._model)
        self.notes = (*self._notes(), *await self._try())

    async def close(self) -> None:
        """Close the connection, which ends all requests. Safe to call twice."""
        await self._patience.close()
        await self.dispatch.close()
        await self.http.close()

    async def prompt(self, problem: str) -> Prompt:
        """Return the prompt for `problem`: under the chat template if the server can apply it, or else as plain text.

        Raises:
            BackendBadResponse: The server can apply the chat template, but did not for this problem.
        """
        if self._template is None:
            return Prompt(problem, pack(plain(problem, self.info.family)))
        text = await self._template(self.http, self._model, list(default_messages(problem, self.info)))
        if not text:
            raise BackendBadResponse(f"{self.http.url} did not apply its chat template to this problem")
        return Prompt(problem, pack(text))

    async def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a step's text; see `EncodesText.encode`."""
        return pack(text)

    async def stream(self, request: StepRequest) -> AsyncGenerator[Chunk, None]:
        """Generate one continuation; see `Policy.stream`."""
        text = unpack(request.ids)
        if not text:
            raise BackendError("there is nothing to go on from: the token ids are empty")
        room = request.max_tokens
        if self._context is not None:  # servers refuse requests for more tokens than they have room for
            room = min(room, max(self._context - len(request.ids), LEAST_ROOM))
        begun = False
        while True:
            try:
                async with aclosing(self._patience.stream(partial(self._send, request, text, room))) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except ContextExceeded:  # the prompt is longer than estimated
                if begun or room <= USELESS_ROOM:
                    raise
                room //= 2

    # -- one request -------------------------------------------------------------------------------------------------

    async def _send(self, request: StepRequest, text: str, room: int) -> AsyncGenerator[Chunk, None]:
        cutter = TextStepSplitter(request)
        async with (
            self._warm.acquire(request.session, request.ids, request.claim) as began,
            self.dispatch.slot(request.session, request.claim),
        ):
            try:
                async with aclosing(self._events(self._body(request, text, room))) as events:
                    async for event in events:
                        began()
                        for chunk in cutter.add(event):
                            if chunk.step_end:
                                self._warm.add(request.session, (*request.ids, *cutter.ids))
                            yield self._count(chunk)
                        if cutter.done:
                            break
                last = cutter.last(self.http.url)
                self._warm.add(request.session, (*request.ids, *cutter.ids))
                yield self._count(last)
            finally:
                if not cutter.settled:
                    late = cutter.rest()
                    self.total += late
                    if request.late is not None and late != Usage():
                        request.late(late)

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[CompletionEvent, None]:
        url = self.http.url
        try:
            async with aclosing(self.http.events(self._prefix + "/completions", body, CompletionEvent)) as events:
                async for event in events:
                    yield check(url, event)
        except RequestRefused as error:
            if context_refused(error):
                raise context_exceeded(error) from error
            raise

    def _count(self, chunk: Chunk) -> Chunk:
        self.total += chunk.usage
        self.dispatch.on_tokens(max(0, chunk.usage.completion))
        return chunk

    def _body(self, request: StepRequest, text: str, room: int) -> dict[str, Any]:
        return {
            "model": self._model,
            "prompt": text,
            "max_tokens": room,
            "stream": True,
            **self._parameters.fields(request.sampling, request.seed),
            **self._options,
        }

    # -- the server --------------------------------------------------------------------------------------------------

    async def _models(self) -> list[Served]:
        """Return the models that the server lists, and set the prefix of its paths.

        Raises:
            WrongServer: The server has no list of models, and no model was named.
        """
        for prefix in self._prefixes:
            try:
                listed = await self.http.get(prefix + "/models", Listed)
            except (RequestRefused, UnexpectedReply):
                continue
            self._prefix = prefix
            models = []
            for entry in listed.data:
                with suppress(UnexpectedReply):
                    models.append(self._served(bytes(entry)))
            return models
        if self._named:
            return []  # some gateways list nothing
        raise WrongServer(
            f"{self.http.url} answers, but speaks no OpenAI protocol: check the address, or use --policy sglang:URL"
        )

    def _served(self, entry: bytes) -> Served:
        """Decode a listed model; if that fails, as with gateways' own fields, only its id."""
        try:
            return self.http.decode(entry, Served)
        except UnexpectedReply:
            return Served(self.http.decode(entry, Named).id)

    def _choose(self, models: list[Served]) -> Served | None:
        """Return the model to use; None if one was named and the server lists none at all.

        Raises:
            UsageError: The named model is not listed, or none was named and there is not exactly one.
        """
        names = sorted(str(model.id) for model in models)
        if not models and self._named:
            return None
        if len(models) == 1 and not self._named:
            return models[0]
        for model in models:
            if model.id == self._named:
                return model
        listed = ", ".join(names[:MOST_LISTED]) + (f" and {len(names) - MOST_LISTED} more" * (len(names) > MOST_LISTED))
        what = f"serves no {self._named}" if self._named else "wants to know which model"
        raise UsageError(f"{self.http.url} {what}: write openai:URL#MODEL with one of {listed or 'its models'}")

    def _notes(self) -> list[str]:
        """Return notes about the server's chat template, context and number of weights."""
        notes = []
        if self._template is None:
            notes.append(NO_TEMPLATE.format(url=self.http.url))
        if self._context is None:
            notes.append(f"{self.http.url} does not say how long its context is: {CONTEXT} tokens are assumed")
        if not self.info.parameters:
            notes.append(f"how many weights {self.info.name} has is not known: FLOPs count as 0")
        return notes

    async def _try(self) -> list[str]:
        """Generate one token, with all parameters or else with those that the server accepts; return notes about it.

        Raises:
            BackendError: The server does not generate, or does not continue text.
        """
        everything = self._parameters.fields(Sampling(), 0)
        try:
            return self._judge(await self._probe({**everything, **self._options}))
        except RequestRefused:
            pass
        # Try parameters one by one: a refusal does not reliably name the parameter it is for.
        await self._find_options()
        await self._parameters.find(lambda fields: self._probe({**fields, **self._options}))
        events = await self._probe({**self._parameters.fields(Sampling(), 0), **self._options})
        notes = [self._parameters.note] if self._parameters.note else []
        return notes + self._judge(events)

    async def _find_options(self) -> None:
        for self._options in STREAM_OPTIONS:
            try:
                await self._probe(self._options)
                return
            except RequestRefused as error:
                if error.status in (404, 405):
                    raise WrongServer(
                        f"{self.http.url} does not complete plain texts (no {self._prefix}/completions for "
                        f"{self._model}): a search needs that, chats alone are not enough"
                    ) from error
                if not self._options:
                    raise

    async def _probe(self, fields: Fields) -> list[CompletionEvent]:
        """Return the events of a request for one token; retries while the server is overloaded."""
        body = {"model": self._model, "prompt": PROBE, "max_tokens": 1, "stream": True, **fields}
        async with aclosing(self._patience.stream(partial(self._events, body))) as events:
            return [event async for event in events]

    def _judge(self, events: list[CompletionEvent]) -> list[str]:
        counts = [event.usage for event in events if event.usage is not None]
        url = self.http.url
        if not counts:
            return [f"{url} counts no tokens: all counts of tokens are guesses"]
        if (read := max(count.prompt_tokens for count in counts)) > MOST_READ:
            raise WrongServer(
                f"{url} does not continue texts as they are: it read {read} tokens where one word was sent, as servers "
                "do that put texts into a chat template; use llama.cpp's server, vLLM or SGLang for this model"
            )
        notes = []
        if any(event.choices and event.usage is None for event in events):
            notes.append(f"{url} counts tokens at the end of a text only: counts of steps that end before are guesses")
        details = [count.prompt_tokens_details for count in counts]
        if not any(detail is not None and detail.cached_tokens is not None for detail in details):
            notes.append(f"{url} does not say what it had cached: all prompt tokens count as computed")
        return notes


def _context_of(served: Served | None) -> int | None:
    """Return the longest sequence in tokens, as vLLM and SGLang, llama.cpp or gateways report it; None if none does."""
    if served is None:
        return None
    meta = served.meta or ServedMeta()
    found = (served.max_model_len, meta.n_ctx, meta.n_ctx_train, served.context_length)
    return next((length for length in found if length is not None and length > 0), None)
