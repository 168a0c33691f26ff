"""Client for an SGLang server, or for SGLang's router in front of several, as used by policies and reward models.

The router forwards `/generate` and `/v1/embeddings`, and keeps requests with the same routing key on one worker. It
neither applies chat templates nor aborts requests, so for these its workers are asked directly: they must be reachable
from here.
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
from tts_tui.backends.remote.replies import Loads, Model, ServerSettings, Texts, TokenIds, Workers
from tts_tui.backends.remote.untrusted import ServerText
from tts_tui.backends.sglang.stream import check_vocabulary
from tts_tui.backends.sglang.tokenizer import LocalTokenizer
from tts_tui.concurrency import concurrently
from tts_tui.errors import BackendBadResponse, BackendError, BackendUnavailable, RequestRefused, UsageError, WrongServer

RESERVED = 6
"""Number of tokens of the context that SGLang reserves for itself."""
ROUTING = "X-SMG-Routing-Key"
"""Header by which SGLang's router assigns requests to one worker."""

NEUTRAL: dict[str, float] = {
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Neutral sampling parameters, which leave the distribution unchanged. They are always sent, because a server that was
started with `--preferred-sampling-params` uses those for all parameters that a request leaves out."""

LONGEST_PATH = 4096
"""Maximum number of characters of a path or address that a server reports."""

T = TypeVar("T")
Chat = Sequence[dict[str, str]]


class SGLangServer:
    """An SGLang server, or a router with its workers.

    Args:
        http: The connection to the address.

    Attributes:
        http: The connection to the address.
        model: The served model, as the server names it.
        path: The served model as text: a path or a hub id.
        kind: The model's `model_type`.
        writes: True if the model is served for generating text, and not as an embedding or reward model.
        architecture: The class that the model's configuration names; empty if the server does not report it.
        tokenizer_path: The path or hub id from which the server loaded its tokenizer.
        vocabulary: Number of token ids of the model; 0 if it is not known.
        workers: Connections to the servers that run the model; only `http` if that is not a router.
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
        """Connect, and find out what is served.

        Raises:
            BackendUnavailable: No server answers, or another program does.
        """
        await self.close()  # connections of an earlier start
        self.workers = [self.http]
        await self.http.open()
        await self._look(self.http)
        with suppress(BackendError, UsageError):  # only a router has workers, and some addresses are not HTTP
            self.workers = [self.http.other(url) for url in await self._listed()] or self.workers
        for worker in self.workers:
            await worker.open()
        if self.is_router and not self.architecture:
            with suppress(BackendError):  # some versions of the router report less than its workers
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
        """Close all connections. Safe to call twice."""
        for http in (*self.workers, self.http):
            await http.close()

    @property
    def is_old(self) -> bool:
        """True if the chat template is applied in this process, because the server cannot apply it."""
        return self._own is not None

    async def alive(self) -> None:
        """Check that the server can be asked again, and return if so.

        Raises:
            BackendError: The server does not answer, or it is a router without a healthy worker, or one that takes a
                dead worker for a healthy one.
        """
        if not self.is_router:
            await self.http.read("GET", "/health")
            return
        healthy = await self._listed()
        if not healthy:
            raise BackendUnavailable(f"no worker behind {self.http.url} is healthy: start one")
        await concurrently(worker.read("GET", "/health") for worker in self.workers if worker.url in healthy)

    async def _listed(self) -> list[str]:
        """Return the addresses of the workers that a router reports as healthy."""
        found = await self.http.get("/workers", Workers)
        healthy = [worker.url for worker in found.workers if worker.is_healthy is not False]
        return [url.line(LONGEST_PATH).rstrip("/") for url in healthy if url]

    @property
    def is_router(self) -> bool:
        """True if the server is a router, which forwards requests to workers."""
        return self.workers != [self.http]

    async def settings(self) -> ServerSettings:
        """Return the settings of the first worker that reports them; empty settings if none does."""
        with suppress(BackendError):
            return await self._ask_any("GET", ("/server_info", "/get_server_info"), None, ServerSettings)
        return ServerSettings()

    async def tokenize(self, chat: Chat) -> tuple[tuple[int, ...], int]:
        """Apply the chat template to `chat`.

        Returns:
            The token ids, up to where the model's answer begins, and the longest sequence that the server accepts, 0 if
            unknown.

        Raises:
            WrongServer: The model has no chat template, or it can be applied neither by the server nor here.
        """
        if self._own is None:
            try:
                body = {"model": self.model, "messages": list(chat)}
                reply = await self._ask_any("POST", ("/tokenize",), body, TokenIds)
            except RequestRefused as refused:
                await self._load_own(refused)
            else:
                if not reply.tokens:
                    raise not_sglang(self.http)
                return self._known(reply.tokens), reply.max_model_len or 0
        assert self._own is not None
        return await asyncio.to_thread(self._own.ids, chat), 0

    async def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a plain text, without special tokens.

        Raises:
            BackendError: The server cannot be reached, or returns no ids.
        """
        if self._own is not None:
            return self._own.plain(text)
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        reply = await self._ask_any("POST", ("/tokenize",), body, TokenIds)
        if not reply.tokens:
            raise BackendBadResponse(f"{self.http.url} could not turn a text into tokens")
        return self._known(reply.tokens)

    def _known(self, ids: list[int]) -> tuple[int, ...]:
        """Return `ids` after checking that all are in the vocabulary: others would crash the server."""
        check_vocabulary(ids, self.vocabulary, self.http.url)
        return tuple(ids)

    async def _load_own(self, refused: RequestRefused) -> None:
        """Load the tokenizer locally, because the server refused to apply a chat template.

        Either the server is too old to apply one, or the model has none.

        Args:
            refused: The server's refusal.

        Raises:
            WrongServer: The model has no chat template, or its tokenizer cannot be loaded here.
        """
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
        """Return the text of each sequence of ids.

        Raises:
            BackendError: The server cannot be reached, or does not return one text per sequence.
        """
        if self._own is not None:
            return self._own.texts(prefixes)
        reply = await self._ask_any("POST", ("/detokenize",), {"tokens": [list(ids) for ids in prefixes]}, Texts)
        if len(reply.text) != len(prefixes):
            raise BackendBadResponse(f"{self.http.url} could not turn tokens into text")
        return reply.text

    async def abort(self, rid: str) -> None:
        """Abort the request with the id `rid`; errors are ignored.

        All workers of a router are asked, because it does not report which one runs the request; the others ignore it.
        """
        asked = (worker.read("POST", "/abort_request", {"rid": rid}) for worker in self.workers)
        await asyncio.gather(*asked, return_exceptions=True)

    async def parameters(self, settings: ServerSettings, *, scores: bool = False) -> int:
        """Return the number of weights that are active for each token.

        It is taken from the model's files, its name, or the memory that the weights take; 0 if none of these is known.

        Args:
            settings: The settings of the server.
            scores: True if the model is asked for scores and not for text.
        """
        if counted := await asyncio.to_thread(count_parameters, self.path, scores=scores):
            return counted
        # Approximately right for weights that are not quantized.
        size = {"float32": 4, "float16": 2, "bfloat16": 2}.get(str(settings.dtype).removeprefix("torch."), 2)
        with suppress(BackendError):
            found = await self._ask_any("GET", ("/v1/loads",), None, Loads)
            memory = found.loads[0].memory if found.loads else None
            return int((memory.weight_gb or 0.0) * 2**30 / size) if memory else 0
        return 0

    async def _ask_any(self, method: str, paths: tuple[str, ...], body: Any, kind: type[T]) -> T:
        """Return the reply of the first reachable worker to the first of `paths` that it knows."""
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


def version_of(settings: ServerSettings) -> tuple[int, ...]:
    """Return the first three numbers of SGLang's version; empty if the server does not report it."""
    return tuple(map(int, re.findall(r"\d+", str(settings.version or ""))[:3]))


async def look(http: Http, kind: type[T], *paths: str) -> T:
    """Return the JSON at the first of `paths` that the server knows: paths have changed between versions.

    Raises:
        WrongServer: The server knows none of them.
    """
    for path in paths:
        with suppress(RequestRefused, UnexpectedReply):
            return await http.get(path, kind)
    await refuse_ollama(http)
    raise not_sglang(http)


def not_sglang(http: Http) -> WrongServer:
    """Return the error for an address at which something answers that is not an SGLang server."""
    other = f", or use --policy openai:{http.url}#MODEL if it speaks OpenAI's protocol"
    advice = f"check the address{other if http.serves == 'policy' else ''}"
    return WrongServer(f"{http.url} answers, but is no SGLang server: {advice}")
