"""What is at an address that a policy or a reward model was given: an SGLang server, or its router in front of several.

The router passes `/generate` and `/v1/embeddings` on, and keeps requests with one routing key on one worker. It has no
chat templates and ends no requests, so for these its workers are asked themselves: they must be within reach.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from tts_tui.backends.http import Http
from tts_tui.backends.ollama import refuse_ollama
from tts_tui.backends.own_tokenizer import OwnTokenizer
from tts_tui.backends.weights import count_parameters
from tts_tui.concurrency import concurrently
from tts_tui.errors import BackendBadResponse, BackendError, BackendUnavailable, RequestRefused, WrongServer

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

Chat = Sequence[dict[str, str]]


class SGLangServer:
    """The server, and if it is a router, its workers.

    Args:
        http: The connection to the address.

    Attributes:
        http: As given.
        model: What is served, as the server names it.
        kind: Its `model_type`.
        writes: Whether it is served as a model that writes text.
        architecture: The class that its configuration names; empty if the server does not say.
        tokenizer_path: Where the server took its tokenizer from.
        workers: Connections to the servers that do the work; just `http` where that is one.
    """

    def __init__(self, http: Http) -> None:
        self.http = http
        self.model = self.kind = self.architecture = self.tokenizer_path = ""
        self.writes = True
        self.workers: list[Http] = [http]
        self._own: OwnTokenizer | None = None

    async def start(self) -> None:
        """Connects, and looks at what is there.

        Raises:
            BackendUnavailable: Nothing answers, or something else.
        """
        await self.close()  # what an earlier start found
        self.workers = [self.http]
        await self.http.open()
        await self._look(self.http)
        with suppress(BackendError):  # only a router has them
            self.workers = [self.http.other(url) for url in await self._listed()] or self.workers
        for worker in self.workers:
            await worker.open()
        if self.is_router and not self.architecture:
            with suppress(BackendError):  # a router of some versions says less than its workers
                await self._look(self.workers[0])

    async def _look(self, http: Http) -> None:
        said = await look(http, "/model_info", "/get_model_info")
        if not isinstance(said, dict) or "model_path" not in said:
            raise not_sglang(http)
        self.model, self.kind = str(said["model_path"]), str(said.get("model_type", ""))
        self.tokenizer_path, self._own = str(said.get("tokenizer_path") or self.model), None
        self.architecture = str((said.get("architectures") or [""])[0])
        self.writes = said.get("is_generation") is not False

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
            await self.http.text("/health")
            return
        healthy = await self._listed()
        if not healthy:
            raise BackendUnavailable(f"no worker behind {self.http.url} is healthy: start one")
        await concurrently(worker.text("/health") for worker in self.workers if worker.url in healthy)

    async def _listed(self) -> list[str]:
        """Addresses of the workers that a router takes for healthy."""
        found = await self.http.get("/workers")
        try:
            return [str(worker["url"]).rstrip("/") for worker in found["workers"] if worker.get("is_healthy", True)]
        except (TypeError, KeyError, AttributeError):
            raise BackendBadResponse(f"{self.http.url} lists its workers in a way of its own") from None

    @property
    def is_router(self) -> bool:
        """Whether requests are passed on to others."""
        return self.workers != [self.http]

    async def settings(self) -> dict[str, Any]:
        """How the first worker that says so was started; empty if none does."""
        with suppress(BackendError):
            found = await self._ask_any("GET", ("/server_info", "/get_server_info"), None)
            return found if isinstance(found, dict) else {}
        return {}

    async def tokenize(self, chat: Chat) -> tuple[tuple[int, ...], int]:
        """Ids of a chat that the model is to answer, and the longest sequence that the server takes, 0 if unknown.

        Raises:
            WrongServer: The model has no chat template, or it cannot be applied there nor here.
        """
        if self._own is None:
            try:
                reply = await self._ask_any("POST", ("/tokenize",), {"model": self.model, "messages": list(chat)})
            except RequestRefused as refused:
                await self._load_own(refused)
            else:
                ids = reply.get("tokens") if isinstance(reply, dict) else None
                if not isinstance(ids, list) or not ids:
                    raise not_sglang(self.http)
                return tuple(ids), int(reply.get("max_model_len") or 0)
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
        reply = await self._ask_any("POST", ("/tokenize",), body)
        ids = reply.get("tokens") if isinstance(reply, dict) else None
        if not isinstance(ids, list) or not ids:
            raise BackendBadResponse(f"{self.http.url} could not turn a text into tokens")
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
            self._own = await asyncio.to_thread(OwnTokenizer, self.tokenizer_path)
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
        reply = await self._ask_any("POST", ("/detokenize",), {"tokens": [list(ids) for ids in prefixes]})
        texts = reply.get("text") if isinstance(reply, dict) else None
        if not isinstance(texts, list) or len(texts) != len(prefixes):
            raise BackendBadResponse(f"{self.http.url} could not turn tokens into text")
        return texts

    async def abort(self, rid: str) -> None:
        """Ends a request; a router does not say which of its workers has it, and the others do not mind."""
        asked = (worker.post("/abort_request", {"rid": rid}) for worker in self.workers)
        await asyncio.gather(*asked, return_exceptions=True)

    async def parameters(self, settings: dict[str, Any], *, scores: bool = False) -> int:
        """Number of weights that each token passes: by its files, its name, or the memory that they take, else 0.

        Args:
            settings: How the server was started.
            scores: Whether it is asked for scores and not for text.
        """
        if counted := await asyncio.to_thread(count_parameters, self.model, scores=scores):
            return counted
        # About right where they are not quantized.
        size = {"float32": 4, "float16": 2, "bfloat16": 2}.get(str(settings.get("dtype")).removeprefix("torch."), 2)
        with suppress(BackendError, LookupError, TypeError):
            loads = await self._ask_any("GET", ("/v1/loads",), None)
            return int(float(loads["loads"][0]["memory"]["weight_gb"]) * 2**30 / size)
        return 0

    async def _ask_any(self, method: str, paths: tuple[str, ...], body: Any) -> Any:
        """The answer of the first worker within reach, and of the first path that it knows."""
        last: BackendError = BackendUnavailable(f"{self.http.url} has no workers: start one")
        for worker in self.workers:
            for path in paths:
                try:
                    return await (worker.get(path) if method == "GET" else worker.post(path, body))
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


def version_of(settings: Mapping[str, Any]) -> tuple[int, ...]:
    """The first three numbers of SGLang's version, by how a server was started; empty if that does not say."""
    return tuple(map(int, re.findall(r"\d+", str(settings.get("version", "")))[:3]))


async def look(http: Http, *paths: str) -> Any:
    """The first of `paths` that the server knows: names have changed between versions.

    Raises:
        WrongServer: It knows none.
    """
    for path in paths:
        try:
            found = await http.get(path)
        except RequestRefused:
            continue
        if found is not None:
            return found
    await refuse_ollama(http)
    raise not_sglang(http)


def not_sglang(http: Http) -> WrongServer:
    """What to say when something answers that is no SGLang server."""
    other = f", or use --policy openai:{http.url}#MODEL if it speaks OpenAI's protocol"
    advice = f"check the address{other if http.serves == 'policy' else ''}"
    return WrongServer(f"{http.url} answers, but is no SGLang server: {advice}")
