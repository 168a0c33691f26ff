"""What is at an address that a policy was given: one SGLang server, or SGLang's router in front of several.

The router passes `/generate` on, and keeps requests with one routing key on one worker. It has no chat templates and
ends no requests, so for these its workers are asked themselves: they must be within reach.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tts_tui.backends.http import Http
from tts_tui.backends.own_tokenizer import OwnTokenizer
from tts_tui.errors import BackendBadResponse, BackendError, BackendUnavailable, RequestRefused, WrongServer

Chat = Sequence[dict[str, str]]


class SGLangServer:
    """The server, and if it is a router, its workers.

    Args:
        http: The connection to the address.

    Attributes:
        http: As given.
        model: What is served, as the server names it.
        kind: Its `model_type`.
        workers: Connections to the servers that do the work; just `http` where that is one.
    """

    def __init__(self, http: Http) -> None:
        self.http = http
        self.model = self.kind = ""
        self.workers: list[Http] = [http]
        self._tokenizer_path = ""
        self._own: OwnTokenizer | None = None

    async def start(self) -> None:
        """Connects, and looks at what is there.

        Raises:
            BackendUnavailable: Nothing answers, or something else, or it serves no policy.
        """
        await self.close()  # what an earlier start found
        self.workers = [self.http]
        await self.http.open()
        model = await look(self.http, "/model_info", "/get_model_info")
        if not isinstance(model, dict) or "model_path" not in model:
            raise not_sglang(self.http.url)
        self.model, self.kind = str(model["model_path"]), str(model.get("model_type", ""))
        self._tokenizer_path, self._own = str(model.get("tokenizer_path") or self.model), None
        if model.get("is_generation") is False:
            raise WrongServer(
                f"{self.http.url} serves {self.model} as a reward model, which writes nothing: name the server of "
                "the policy, or start it without --is-embedding"
            )
        with suppress(BackendError):  # only a router has them
            self.workers = [self.http.other(url) for url in await self._listed()] or self.workers
        for worker in self.workers:
            await worker.open()

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
        await asyncio.gather(*(worker.text("/health") for worker in self.workers if worker.url in healthy))

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
                    raise not_sglang(self.http.url)
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
            self._own = await asyncio.to_thread(OwnTokenizer, self._tokenizer_path)
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

    async def weights_gb(self) -> float:
        """Memory that the weights take; 0 if that is not told."""
        with suppress(BackendError, KeyError, IndexError, TypeError):
            loads = await self._ask_any("GET", ("/v1/loads",), None)
            return float(loads["loads"][0]["memory"]["weight_gb"])
        return 0.0

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
    raise not_sglang(http.url)


def not_sglang(url: str) -> WrongServer:
    """What to say when something answers that is no SGLang server."""
    return WrongServer(
        f"{url} answers, but is no SGLang server: check the address, or use --policy openai:{url}#MODEL if it speaks "
        "OpenAI's protocol"
    )
