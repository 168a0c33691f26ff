"""What is at an address that a policy or a reward model was given: an SGLang server, or its router in front of several.

The router passes `/generate` and `/v1/embeddings` on, and keeps requests with one routing key on one worker. It has no
chat templates and ends no requests, so for these its workers are asked themselves: they must be within reach.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

from tts_tui.backends.remote.http import Http, UnexpectedReply
from tts_tui.backends.remote.ollama import refuse_ollama
from tts_tui.backends.remote.parameter_count import count_parameters, vocabulary_of
from tts_tui.backends.remote.replies import Loads, Model, Settings, Texts, Tokens, Workers
from tts_tui.backends.remote.untrusted import ServerText
from tts_tui.backends.sglang.stream import check_vocabulary
from tts_tui.backends.sglang.tokenizer import LocalTokenizer
from tts_tui.concurrency import concurrently
from tts_tui.errors import BackendBadResponse, BackendError, BackendUnavailable, RequestRefused, UsageError, WrongServer

RESERVED = 6
"""Tokens of the context that SGLang keeps for itself."""
ROUTING = "X-SMG-Routing-Key"
"""Header by which SGLang's router keeps requests on one worker."""

NEUTRAL: dict[str, float] = {
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Sampling parameters that change nothing. They are always sent: a server that was started with
`--preferred-sampling-params` uses those for whatever a request leaves out."""

LONGEST_PATH = 4096
"""Most characters of a path that a server names."""

T = TypeVar("T")
Chat = Sequence[dict[str, str]]


class SGLangServer:
    """The server, and if it is a router, its workers.

    Args:
        http: The connection to the address.

    Attributes:
        http: As given.
        model: What is served, as the server names it; `path` is the same as text.
        kind: Its `model_type`.
        writes: Whether it is served as a model that writes text.
        architecture: The class that its configuration names; empty if the server does not say.
        tokenizer_path: Where the server took its tokenizer from.
        vocabulary: How many token ids it has; 0 if that is not known.
        workers: Connections to the servers that do the work; just `http` where that is one.
    """

    def __init__(self, http: Http) -> None:
        self.http = http
        self.model: ServerText | str = ""
        self.path = self.kind = self.architecture = self.tokenizer_path = ""
        self.writes = True
        self.vocabulary = 0
        self.workers: list[Http] = [http]
        self._own: LocalTokenizer | None = None

    async def start(self) -> None:
        """Connects, and looks at what is there.

        Raises:
            BackendUnavailable: Nothing answers, or something else.
        """
        await self.close()  # what an earlier start found
        self.workers = [self.http]
        await self.http.open()
        await self._look(self.http)
        with suppress(BackendError, UsageError):  # only a router has them, and some have addresses of another kind
            self.workers = [self.http.other(url) for url in await self._listed()] or self.workers
        for worker in self.workers:
            await worker.open()
        if self.is_router and not self.architecture:
            with suppress(BackendError):  # a router of some versions says less than its workers
                await self._look(self.workers[0])

    async def _look(self, http: Http) -> None:
        said = await look(http, Model, "/model_info", "/get_model_info")
        self.model, self.kind = said.model_path, str(said.model_type or "")
        self.path = said.model_path.line(LONGEST_PATH)
        self.tokenizer_path, self._own = (said.tokenizer_path or said.model_path).line(LONGEST_PATH), None
        self.architecture = str(said.architectures[0]) if said.architectures else ""
        self.writes = said.is_generation is not False
        self.vocabulary = await asyncio.to_thread(vocabulary_of, self.path)

    async def close(self) -> None:
        """Closes all connections. Safe to call twice."""
        for http in (*self.workers, self.http):
            await http.close()

    @property
    def is_old(self) -> bool:
        """Whether the chat template is applied here, for the server cannot."""
        return self._own is not None

    async def alive(self) -> None:
        """Returns if it can be asked again.

        Raises:
            BackendError: It does not answer, or it is a router that takes a dead worker for a healthy one.
        """
        if not self.is_router:
            await self.http.read("GET", "/health")
            return
        healthy = await self._listed()
        if not healthy:
            raise BackendUnavailable(f"no worker behind {self.http.url} is healthy: start one")
        await concurrently(worker.read("GET", "/health") for worker in self.workers if worker.url in healthy)

    async def _listed(self) -> list[str]:
        """Addresses of the workers that a router takes for healthy."""
        found = await self.http.get("/workers", Workers)
        healthy = [worker.url for worker in found.workers if worker.is_healthy is not False]
        return [url.line(LONGEST_PATH).rstrip("/") for url in healthy if url]

    @property
    def is_router(self) -> bool:
        """Whether requests are passed on to others."""
        return self.workers != [self.http]

    async def settings(self) -> Settings:
        """How the first worker that says so was started; empty if none does."""
        with suppress(BackendError):
            return await self._ask_any("GET", ("/server_info", "/get_server_info"), None, Settings)
        return Settings()

    async def tokenize(self, chat: Chat) -> tuple[tuple[int, ...], int]:
        """Ids of a chat that the model is to answer, and the longest sequence that the server takes, 0 if unknown.

        Raises:
            WrongServer: The model has no chat template, or it cannot be applied there nor here.
        """
        if self._own is None:
            try:
                body = {"model": self.model, "messages": list(chat)}
                reply = await self._ask_any("POST", ("/tokenize",), body, Tokens)
            except RequestRefused as refused:
                await self._load_own(refused)
            else:
                if not reply.tokens:
                    raise not_sglang(self.http)
                return self._known(reply.tokens), reply.max_model_len or 0
        assert self._own is not None
        return await asyncio.to_thread(self._own.ids, chat), 0

    async def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a plain text.

        Raises:
            BackendError: The server cannot be reached, or does not say.
        """
        if self._own is not None:
            return self._own.plain(text)
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        reply = await self._ask_any("POST", ("/tokenize",), body, Tokens)
        if not reply.tokens:
            raise BackendBadResponse(f"{self.http.url} could not turn a text into tokens")
        return self._known(reply.tokens)

    def _known(self, ids: list[int]) -> tuple[int, ...]:
        """Return `ids`, all of which are in the vocabulary: others would bring the server down."""
        check_vocabulary(ids, self.vocabulary, self.http.url)
        return tuple(ids)

    async def _load_own(self, refused: RequestRefused) -> None:
        """The server cannot apply a chat template: it is too old for that, or the model has none."""
        none = WrongServer(
            f"{self.model} has no chat template that can be used: serve an instruction-tuned model, or start the "
            f"server with --chat-template ({refused})"
        )
        if "template" in str(refused):  # it is new enough to look for one
            raise none from refused
        try:
            self._own = await asyncio.to_thread(LocalTokenizer, self.tokenizer_path)
        except WrongServer:
            raise none from refused
        except BackendUnavailable as error:
            raise WrongServer(
                f"{self.http.url} cannot apply a chat template, and {error}: update that SGLang to 0.5.23 or newer, or "
                f"copy the tokenizer to this machine ({refused})"
            ) from error

    async def texts(self, prefixes: Sequence[Sequence[int]]) -> list[str]:
        """Texts of many sequences of ids."""
        if self._own is not None:
            return self._own.texts(prefixes)
        reply = await self._ask_any("POST", ("/detokenize",), {"tokens": [list(ids) for ids in prefixes]}, Texts)
        if len(reply.text) != len(prefixes):
            raise BackendBadResponse(f"{self.http.url} could not turn tokens into text")
        return reply.text

    async def abort(self, rid: str) -> None:
        """Ends a request; a router does not say which of its workers has it, and the others do not mind."""
        asked = (worker.read("POST", "/abort_request", {"rid": rid}) for worker in self.workers)
        await asyncio.gather(*asked, return_exceptions=True)

    async def parameters(self, settings: Settings, *, scores: bool = False) -> int:
        """Number of weights that each token passes: by its files, its name, or the memory that they take, else 0.

        Args:
            settings: How the server was started.
            scores: Whether it is asked for scores and not for text.
        """
        if counted := await asyncio.to_thread(count_parameters, self.path, scores=scores):
            return counted
        # About right where they are not quantized.
        size = {"float32": 4, "float16": 2, "bfloat16": 2}.get(str(settings.dtype).removeprefix("torch."), 2)
        with suppress(BackendError):
            found = await self._ask_any("GET", ("/v1/loads",), None, Loads)
            memory = found.loads[0].memory if found.loads else None
            return int((memory.weight_gb or 0.0) * 2**30 / size) if memory else 0
        return 0

    async def _ask_any(self, method: str, paths: tuple[str, ...], body: Any, kind: type[T]) -> T:
        """The answer of the first worker within reach, and of the first path that it knows."""
        last: BackendError = BackendUnavailable(f"{self.http.url} has no workers: start one")
        for worker in self.workers:
            for path in paths:
                try:
                    return await (worker.get(path, kind) if method == "GET" else worker.post(path, body, kind))
                except RequestRefused as error:
                    last = error
                except BackendUnavailable as error:
                    last = error
                    break
        if self.is_router and isinstance(last, BackendUnavailable):
            raise BackendUnavailable(
                f"none of the {len(self.workers)} workers behind {self.http.url} can be reached from here, and a "
                f"router applies no chat template ({last})"
            )
        raise last


def version_of(settings: Settings) -> tuple[int, ...]:
    """Return the first three numbers of SGLang's version; empty if the server does not say."""
    return tuple(map(int, re.findall(r"\d+", str(settings.version or ""))[:3]))


async def look(http: Http, kind: type[T], *paths: str) -> T:
    """The first of `paths` that the server knows: names have changed between versions.

    Raises:
        WrongServer: It knows none.
    """
    for path in paths:
        with suppress(RequestRefused, UnexpectedReply):
            return await http.get(path, kind)
    await refuse_ollama(http)
    raise not_sglang(http)


def not_sglang(http: Http) -> WrongServer:
    """What to say when something answers that is no SGLang server."""
    other = f", or use --policy openai:{http.url}#MODEL if it speaks OpenAI's protocol"
    advice = f"check the address{other if http.serves == 'policy' else ''}"
    return WrongServer(f"{http.url} answers, but is no SGLang server: {advice}")
