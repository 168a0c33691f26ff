"""A policy on any server that speaks OpenAI's protocol: vLLM, llama.cpp, hosted models, SGLang's own routes.

It is a second-class engine, for the protocol has texts where SGLang's has token ids. Each continuation is one streamed
request to `/v1/completions`, whose prompt is the text of the whole path. What that means:

- **Ids are our own.** An id holds up to three bytes of UTF-8: `length << 24 | bytes`; 0 is the end of a text. Ids thus
  give back the exact text of a path without any state, also from a recording in another process. A token is 1.2 to
  2 of them, and the limit of a whole path (`total_tokens`) counts ids: such a path is that much shorter.
- **Texts are tokenized anew** with each request, and not always into the tokens that were sampled.
- **Steps are told apart here.** The protocol does not say whether a stop text or the end of the answer was met, so none
  is asked for: the stream is closed at the separator, what stands behind it in the same event is dropped, and what the
  server samples until it notices is in no count.
- **Sampling is the plan's**: every parameter is sent, so that no server fills in its own (`openai_sampling`). Special
  tokens are asked for as text, for a path without them would not be the one that was sampled; llama.cpp gives them only
  where it was started with `--special`.
- **The server must continue texts.** One that wraps them in a chat template is refused at the start.
- **Counts are the server's** where it sends them: with every event (vLLM, SGLang), or at the end of a stream. Without,
  one event with text is one token, and a prompt has as many tokens as its text has ids; of streams that are closed
  early this guess stands. A server that does not tell what it had cached has all prompt tokens counted as computed.
  `notes` say which of this holds.
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
"""Context of a server that does not say how long its own is."""
LEAST_ROOM = 32
"""Tokens that are asked for also where our guess leaves no room for them: the server knows better."""
USELESS_ROOM = 8
"""Tokens for which a refused request is not shortened further."""
MOST_LISTED = 10

PROBE = "Hello"
MOST_READ = len(PROBE) + 2
"""Most tokens of the probe: one a character, and marks of the beginning. Whoever reads more adds text of its own."""

STREAM_OPTIONS: tuple[dict[str, Any], ...] = (
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"stream_options": {"include_usage": True}},
    {},
)
"""How a server is asked for counts; the first that it takes."""


class OpenAIPolicy:
    """A policy on an OpenAI-compatible server.

    It is not `HasSpareCapacity`: what is written ahead in vain may be billed here, so that is done only where it is asked for.

    Args:
        spec: `URL#MODEL`, such as `http://127.0.0.1:8000/v1#NAME`; `/v1` may be left out, and MODEL where there is one.
        api_key: By default the environment variable TTS_TUI_API_KEY.
        concurrency: Most requests at once; by default as many as the server gains from, which is found out.
        max_rps: Limit on requests started per second.
        stall: Most seconds between two pieces of a stream before it counts as dead.
        patience: Seconds that a server which was there and is gone may take to come back.

    Attributes:
        http: The connection.
        dispatch: What goes when.
        total: All tokens of this policy so far.
        notes: What users should know of this server, a sentence each; complete after `start`.
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
        # Names of servers' own, such as /tokenize, stand beside /v1 and not below it.
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
        """What the model is; valid after `start`."""
        if self._info is None:
            raise BackendError("the policy has not been started")
        return self._info

    async def start(self) -> None:
        """Connects, looks at what is served, and has one token written to see that it works.

        Raises:
            UsageError: The model is not there, or has to be named.
            BackendUnavailable: Nothing answers, or something else; the message says what to do.
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
        """Ends the connection, and all requests with it. Safe to call twice."""
        await self._patience.close()
        await self.dispatch.close()
        await self.http.close()

    async def prompt(self, problem: str) -> Prompt:
        """The problem under the model's chat template, if the server can apply it; else as plain text."""
        if self._template is None:
            return Prompt(problem, pack(plain(problem, self.info.family)))
        text = await self._template(self.http, self._model, list(default_messages(problem, self.info)))
        if not text:
            raise BackendBadResponse(f"{self.http.url} did not apply its chat template to this problem")
        return Prompt(problem, pack(text))

    async def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a step in words; see `EncodesText.encode`."""
        return pack(text)

    async def stream(self, request: StepRequest) -> AsyncGenerator[Chunk, None]:
        """Samples one continuation; see `Policy.stream`."""
        text = unpack(request.ids)
        if not text:
            raise BackendError("there is nothing to go on from: the token ids are empty")
        room = request.max_tokens
        if self._context is not None:  # servers refuse to leave room that they do not have
            room = min(room, max(self._context - len(request.ids), LEAST_ROOM))
        begun = False
        while True:
            try:
                async with aclosing(self._patience.stream(partial(self._send, request, text, room))) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except ContextExceeded:  # by our guess the prompt was shorter than it is
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
        """What the server lists; finds out where."""
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
        """What is understood of a model in a list; gateways have fields of their own."""
        try:
            return self.http.decode(entry, Served)
        except UnexpectedReply:
            return Served(self.http.decode(entry, Named).id)

    def _choose(self, models: list[Served]) -> Served | None:
        """The model that is meant; None if it was named, and the server lists none at all."""
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
        """What the server's models and templates let one say."""
        notes = []
        if self._template is None:
            notes.append(NO_TEMPLATE.format(url=self.http.url))
        if self._context is None:
            notes.append(f"{self.http.url} does not say how long its context is: {CONTEXT} tokens are assumed")
        if not self.info.parameters:
            notes.append(f"how many weights {self.info.name} has is not known: FLOPs count as 0")
        return notes

    async def _try(self) -> list[str]:
        """Has one token written, asked for in full or with what the server takes; returns what is to be said of it.

        Raises:
            BackendError: The server does not write, or does not continue texts.
        """
        everything = self._parameters.fields(Sampling(), 0)
        try:
            return self._judge(await self._probe({**everything, **self._options}))
        except RequestRefused:
            pass
        # One after the other: a refusal does not reliably say what it is for.
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
        """The events of a request for one token; an overloaded server is given time."""
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
    """The longest sequence, as vLLM and SGLang, llama.cpp and gateways say it; None if none says."""
    if served is None:
        return None
    meta = served.meta or ServedMeta()
    found = (served.max_model_len, meta.n_ctx, meta.n_ctx_train, served.context_length)
    return next((length for length in found if length is not None and length > 0), None)
