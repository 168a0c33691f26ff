"""A process reward model on an SGLang server, or on SGLang's router in front of several.

One request scores one step: it sends the ids of the step's path, and the score is read at their last position. The
server's radix cache holds what was scored before, so only the new step is computed. This relies on the following:

- A step whose parent is being scored waits for it; of several steps whose parent may not be in the cache, one goes
  ahead.
- A language model returns the log-probabilities of two tokens and samples none. Any other reward model is served as an
  embedding model, by SGLang's own classes or by ours (`backends/served/tts_tui_prms`), and returns its logits.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from tts_tui import profiles
from tts_tui.backends.local.loading import name_of
from tts_tui.backends.prm.heads import Readout
from tts_tui.backends.prm.layouts import Ids, Layout, check_tokens, make_layout
from tts_tui.backends.prm.tokenizer import PRMTokenizer
from tts_tui.backends.prm.truncation import fitting
from tts_tui.backends.remote.concurrency import ConcurrencyLimit
from tts_tui.backends.remote.dispatcher import Dispatcher
from tts_tui.backends.remote.http import Http, UnexpectedReply
from tts_tui.backends.remote.prefix_lock import PrefixLock
from tts_tui.backends.remote.replies import Embeddings, Generated, ServerSettings
from tts_tui.backends.remote.retry import ReconnectPolicy
from tts_tui.backends.sglang.score_replies import Answer, answer_of
from tts_tui.backends.sglang.server import NEUTRAL, RESERVED, ROUTING, SGLangServer
from tts_tui.errors import (
    BackendBadResponse,
    BackendError,
    BackendOverloaded,
    BackendTimeout,
    BackendUnavailable,
    RequestRefused,
    WrongServer,
)
from tts_tui.profiles import specs
from tts_tui.protocols import ModelInfo, ScoreRequest, StepScore

KEPT = 2048
"""Maximum number of scores that are cached."""
_READOUTS: dict[str, Readout] = {"qwen": "softmax2", "trl": "softmax2", "skywork": "sigmoid", "outcome": "sigmoid"}
_QUESTION, _STEPS = "What is 3 + 4 - 2?", ("3 + 4 = 7.", "7 - 2 = 5.")
"""Problem and steps that are scored by `start`, to check that scoring works."""


class Input(Struct, frozen=True):
    """The input for the score of one step.

    Attributes:
        ids: The token ids of the path, up to the position at which its score is read.
        parent: The token ids of the path without its last step; empty for a first step.
        question: The problem that the path belongs to.
        unseen: Number of steps that were left out of `ids` to fit the context.
    """

    ids: Ids
    parent: Ids
    question: str
    unseen: int


class _Asked:
    """A request in flight, with the number of callers that wait for it."""

    def __init__(self, task: asyncio.Task[Answer]) -> None:
        self.task = task
        self.waiting = 0

    def leave(self) -> None:
        self.waiting -= 1
        if not self.waiting:
            self.task.cancel()


class SGLangPRM:
    """A `RewardModel` on the SGLang server or router at `url`.

    Args:
        url: The address, such as `http://127.0.0.1:30000`.
        name: The PRM's profile or adapter; by default recognised from the model that the server reports.
        layout: The layout of the PRM's input: `official`, `paper` or `sal`.
        tokenizer: Folder or hub id of the PRM's tokenizer; by default the one that the server names.
        api_key: The server's API key; by default the value of the environment variable TTS_TUI_API_KEY.
        concurrency: Maximum number of requests in flight; by default a limit that adapts to the measured throughput.
        patience: Maximum seconds to wait for a server that was reachable before to come back.
        stall: Maximum seconds that the reply to a request may take.

    Attributes:
        server: The server or router at the address.
        dispatch: The dispatcher that orders and limits the requests.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        layout: str | None = None,
        tokenizer: str | None = None,
        api_key: str | None = None,
        concurrency: int | None = None,
        patience: float = 60.0,
        stall: float = 120.0,
    ) -> None:
        self.server = SGLangServer(Http(url, api_key=api_key, stall=stall, serves="prm"))
        knee = (
            ConcurrencyLimit()
            if concurrency is None
            else ConcurrencyLimit(concurrency, least=concurrency, most=concurrency)
        )
        self.dispatch = Dispatcher(knee)
        self._fixed = concurrency is not None
        self._patience = ReconnectPolicy(self.dispatch, self.server.alive, patience)
        self._name, self._layout_name, self._tokenizer = name, layout or profiles.OFFICIAL, tokenizer
        self._profile = ""
        self._info: ModelInfo | None = None
        self._layout: Layout | None = None
        self._readout: Readout = "tokens"
        self._tokens: list[int] = []
        self._warm = PrefixLock()
        # Each answer keeps its cost until that has been reported to a caller.
        self._known: OrderedDict[Ids, Answer] = OrderedDict()
        self._asked: dict[Ids, _Asked] = {}
        # Number of worker failures for each question.
        self._routes: dict[str, int] = {}

    @property
    def info(self) -> ModelInfo:
        """Name, size, context and profile of the served model; valid after `start`.

        Raises:
            BackendError: The reward model has not been started.
        """
        if self._info is None:
            raise BackendError("the reward model has not been started")
        return self._info

    @property
    def profile(self) -> str:
        """Name of the PRM's profile; before `discover` and `start`, the one that was given, or else empty."""
        return self._profile or (profiles.resolve(self._name) if self._name else "")

    async def discover(self) -> None:
        """Ask the server which model it serves, so that `profile` is known before `start`.

        Raises:
            BackendUnavailable: No server answers, or another program does.
        """
        server = SGLangServer(self.server.http.other(self.server.http.url))
        try:
            await server.start()
            self._profile = profiles.choose(self._name, server.path, server.architecture) or ""
        finally:
            await server.close()

    async def start(self) -> None:
        """Connect, find out what is served, and score a step to check that scoring works.

        Raises:
            BackendUnavailable: No server answers, another program does, or the tokenizer cannot be loaded.
            WrongServer: The server serves another kind of model or another PRM than the one named.
            UsageError: The served checkpoint is not a known PRM.
        """
        server = self.server
        await server.start()
        chosen = profiles.choose(self._name, server.path, server.architecture)
        if chosen is None:
            raise specs.unknown_checkpoint(str(server.model), server.architecture)
        self._profile, known = chosen, profiles.profile(chosen)
        self._check_kind(known)
        settings = await server.settings()
        if not self._fixed and (most := settings.max_running_requests) and most > 0:
            self.dispatch.knee = ConcurrencyLimit(most=most * len(server.workers))
        self._layout = await asyncio.to_thread(self._load, known)
        self._tokens = list(known.get("head", {}).get("tokens", ()))
        self._readout = "tokens" if self._tokens else _READOUTS[known["adapter"]]
        name, family = name_of(server.path), profiles.full_name(chosen, self._layout_name)
        self._info = ModelInfo(name, await server.parameters(settings, scores=True), _context(settings, known), family)
        await self._try(known["title"])

    async def close(self) -> None:
        """End all requests and close the connection. Safe to call twice."""
        await self._patience.close()
        tasks = [asked.task for asked in self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.dispatch.close()
        await self.server.close()

    async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
        """Score the last step of each request, in order; a batch may mix problems.

        Raises:
            ContextExceeded: A question leaves no room for a step.
            BackendError: A step could not be scored; the error's `scores` hold those of the other steps.
        """
        inputs = await asyncio.to_thread(self._inputs, requests)
        answers = {one.ids: self._known[one.ids] for one in inputs if one.ids in self._known}
        # All begin at once, so that each finds its parent among them, wherever that is in the batch.
        fresh = {one.ids: one for one in inputs if one.ids not in answers}
        asked = {ids: self._ask(one) for ids, one in fresh.items()}
        tasks = {ids: this.task for ids, this in asked.items()}
        try:
            if tasks:
                await asyncio.wait(tasks.values())
        finally:
            for this in asked.values():
                this.leave()
        if any(task.cancelled() for task in tasks.values()):
            raise BackendError("the reward model was closed while it scored")
        errors = {ids: error for ids, task in tasks.items() if (error := task.exception()) is not None}
        answers |= {ids: task.result() for ids, task in tasks.items() if ids not in errors}
        scores = [self._tell(one, answers[one.ids]) if one.ids in answers else None for one in inputs]
        for error in errors.values():
            failed = copy(error)  # other callers may wait for the same request, with other scores
            if isinstance(failed, BackendError):
                failed.scores = scores
            raise failed from error
        return [score for score in scores if score is not None]

    def _tell(self, one: Input, answer: Answer) -> StepScore:
        """Return a score with its cost, which is reported to the first caller only."""
        answer = self._known.get(one.ids, answer)  # the cost may have been reported in the meantime
        self._remember(one.ids, Answer(answer.score, len(one.ids)))
        return StepScore(answer.score, len(one.ids) - answer.cached, answer.cached, one.unseen)

    # -- one step ----------------------------------------------------------------------------------------------------

    def _inputs(self, requests: Sequence[ScoreRequest]) -> list[Input]:
        layout, context = self._layout, self.info.context
        if layout is None or not all(request.steps for request in requests):
            raise BackendError("there is no step to score")
        result = []
        for request in requests:
            question, steps = request.prompt.problem, request.steps
            ids, unseen = fitting(layout, question, steps, context)
            parent = fitting(layout, question, steps[:-1], context)[0] if len(steps) > 1 else ()
            result.append(Input(ids, parent, question, unseen))
        return result

    def _remember(self, ids: Ids, answer: Answer) -> None:
        self._known[ids] = answer
        self._known.move_to_end(ids)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    def _ask(self, one: Input) -> _Asked:
        """Return the request in flight for these ids, or start a new one."""
        asked = self._asked.get(one.ids)
        if asked is None or asked.task.cancelling():
            asked = self._asked[one.ids] = _Asked(asyncio.create_task(self._in_turn(one)))
            asked.task.add_done_callback(partial(self._ended, one.ids))
        asked.waiting += 1
        return asked

    def _ended(self, ids: Ids, task: asyncio.Task[Answer]) -> None:
        if ids in self._asked and self._asked[ids].task is task:
            del self._asked[ids]
        if not task.cancelled() and task.exception() is None:  # retrieved even if no caller waits any more
            self._remember(ids, task.result())

    async def _in_turn(self, one: Input) -> Answer:
        before = self._asked.get(one.parent)
        # A parent that is not shorter was cut to fit the context, and might wait for this one.
        if before is not None and len(one.parent) < len(one.ids):
            await asyncio.wait([before.task])
        async with self._warm.acquire(one.question, one.parent) as began:
            answer = await self._patience.ask(partial(self._send, one))
            began()
        self._warm.add(one.question, one.ids)
        return answer

    async def _send(self, one: Input) -> Answer:
        """Send one request, and return its answer.

        Raises:
            BackendError: The request failed, or its reply holds no score.
        """
        tried = self._routes.get(one.question, 0)
        key = hashlib.blake2b(f"{tried} {one.question}".encode(errors="replace"), digest_size=16)
        async with self.dispatch.slot(one.question):
            try:
                answer = await self._answer(one.ids, {ROUTING: key.hexdigest()})
            except BackendOverloaded:
                raise
            except (BackendUnavailable, BackendTimeout):
                self._warm = PrefixLock()  # a server that restarts has an empty cache
                if self.server.is_router and self._routes.get(one.question, 0) == tried:
                    self._routes[one.question] = tried + 1  # another worker may do better
                raise
            self.dispatch.on_tokens(len(one.ids) - answer.cached)
        return answer

    async def _answer(self, ids: Ids, headers: dict[str, str]) -> Answer:
        """Request the score of `ids`, and return it.

        Raises:
            BackendBadResponse: The reply holds no score; a score is never made up.
        """
        http = self.server.http
        reply: Generated | Embeddings
        body: dict[str, Any]
        try:
            if self._tokens:
                # Penalties among a server's preferred sampling parameters would change the scores.
                drawing = {**NEUTRAL, "max_new_tokens": 0, "temperature": 1.0}
                asked = {"return_logprob": True, "logprob_start_len": -1, "token_ids_logprob": self._tokens}
                body = {"input_ids": ids, "sampling_params": drawing, **asked}
                reply = await http.post("/generate", body, Generated, headers)
            else:  # not /classify, which a router does not pass on
                body = {"model": self.server.model, "input": ids}
                reply = await http.post("/v1/embeddings", body, Embeddings, headers)
            return answer_of(reply, len(ids), self._readout, self._tokens)
        except UnexpectedReply:
            raise BackendBadResponse(f"{http.url} gave no score for a step") from None
        except ValueError as error:  # its message quotes only numbers
            raise BackendBadResponse(f"{http.url} gave no score for a step: {error}") from error

    # -- the start ---------------------------------------------------------------------------------------------------

    def _check_kind(self, known: dict[str, Any]) -> None:
        """Check that the server serves the kind of model that the profile `known` describes.

        Asking another kind may do harm: a request for text, for one, crashes an embedding server.

        Raises:
            WrongServer: The server serves something else.
        """
        server, title = self.server, known["title"]
        served = f"{server.http.url} serves {server.model}"
        how = f"start it with `tts-tui serve prm {server.model}`, or name the PRM that it is (see `tts-tui profiles`)"
        if "head" in known:
            if not server.writes:
                raise WrongServer(f"{served} as a model that embeds, and {title} is a language model: {how}")
            if server.architecture and not server.architecture.endswith("ForCausalLM"):
                raise WrongServer(f"{served}, a {server.architecture}, and {title} is a language model: {how}")
        elif server.writes:
            raise WrongServer(f"{served} as a language model, and {title} has a head of its own: {how}")
        owners = profiles.adapters_of(server.architecture)
        if owners and known["adapter"] not in owners:
            raise WrongServer(
                f"{served}, a {server.architecture}, and not {title}: leave the name out, or write @{owners[0]}"
            )

    def _load(self, known: dict[str, Any]) -> Layout:
        path = self._tokenizer or self.server.tokenizer_path
        table = profiles.layout(self._profile, self._layout_name)
        if not self._tokenizer and Path(path).is_absolute() and not Path(path).is_dir():
            raise WrongServer(
                f"{self.server.http.url} has its tokenizer in {path}, which is not on this machine: copy the files of "
                "the tokenizer here, or name the model at the hub, with --prm-tokenizer"
            )
        try:
            tokenizer = PRMTokenizer.load(path)
        except BackendUnavailable as error:
            raise BackendUnavailable(f"{error}; name its folder or another one's with --prm-tokenizer") from error
        if "head" in known:
            check_tokens(tokenizer, known["head"])
        return make_layout(table, tokenizer)

    async def _try(self, title: str) -> None:
        """Score a step, after checking that server and tokenizer map the same ids to the same text.

        Raises:
            WrongServer: The tokenizer is not that of the served model, or the server returns no score.
        """
        assert self._layout is not None
        ids = self._layout.ids(_QUESTION, _STEPS)
        url, model = self.server.http.url, self.server.model
        with suppress(RequestRefused):  # an old server cannot detokenize
            (text,) = await self.server.texts([ids])
            if _STEPS[-1] not in text:
                raise WrongServer(
                    f"the tokenizer {self._tokenizer or self.server.tokenizer_path} is not that of {model} at {url}: "
                    "name the right one with --prm-tokenizer"
                )
        try:
            await self._send(Input(ids, (), _QUESTION, 0))
        except (BackendBadResponse, RequestRefused) as error:
            raise WrongServer(
                f"{model} at {url} does not answer as {title} does, start it with `tts-tui serve prm {model}`, or name "
                f"the PRM that it is (see `tts-tui profiles`): {error}"
            ) from error


def _context(settings: ServerSettings, known: dict[str, Any]) -> int:
    """Return the maximum number of tokens of an input.

    This is one less than the server's limit, because a prompt that fills it is refused.
    """
    most = (settings.max_req_input_len or (settings.context_length or 4096) - RESERVED) - 1
    return min(most, known.get("context", most))
