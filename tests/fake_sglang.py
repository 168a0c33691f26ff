"""A small server with SGLang's recorded wire format. One character is one token, as in `scripted`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import msgspec
from aiohttp import web

from tests.scripted import EOS, SEPARATOR, decode, encode

Answer = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""A function that answers in place of the server; None leaves the answer to the server."""

SOLUTION = "Step 1: 3 + 4 = 7" + SEPARATOR + "Step 2: nothing is left to do." + SEPARATOR + "The answer is \\boxed{7}"


class FakeSGLang:
    """A fake SGLang server, used as an asynchronous context manager.

    Args:
        solution: The model's answer to every prompt.
        incremental: True if events contain only new tokens.
        missing: The paths that it does not serve.
        model: Changes to its reply about the model.
        server: Changes to its reply about the server.
        rewards: True if it serves a reward model, for which a request to generate text is fatal.
        cache: True if it caches prompts.
        key: The API key that it requires.

    Attributes:
        url: The server's address.
        asked: All requests, each with its path and body.
        aborted: The ids of the aborted requests.
        running: The number of open streams.
        answers: Answers by path, in place of the server's own.
        pace: The seconds between two tokens.
        logits: A function that returns a reward model's logits for token ids.
        broken: The number of next texts that end at their third token because of NaN logits.
        states: A function that returns the hidden states of all tokens of a prompt; if it was started to return
            hidden states, the server returns those that are not cached.
    """

    def __init__(
        self,
        solution: str = SOLUTION,
        *,
        incremental: bool = True,
        missing: Collection[str] = (),
        model: dict[str, Any] | None = None,
        server: dict[str, Any] | None = None,
        rewards: bool = False,
        cache: bool = True,
        key: str = "",
    ) -> None:
        self.solution, self.incremental, self.missing, self.cache, self.key = solution, incremental, missing, cache, key
        self.rewards = rewards
        self.model = {"model_path": "a/fake", "is_generation": not rewards, "model_type": "llama"} | (model or {})
        self.server = {"version": "0.5.23", "max_running_requests": 64, "context_length": 4096} | (server or {})
        self.url = ""
        self.asked: list[tuple[str, Any]] = []
        self.aborted: set[str] = set()
        self.running = 0
        self.answers: dict[str, Answer] = {}
        self.pace = 0.0
        self.broken = 0
        self.logits: Callable[[tuple[int, ...]], list[float]] = lambda ids: [0.25]
        self.states: Callable[[tuple[int, ...]], list[Any]] = lambda ids: [[float(one), 1.0] for one in ids]
        self._kept: list[tuple[int, ...]] = []
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> FakeSGLang:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._any)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop the server. It is safe to call this twice."""
        if self._runner is not None:
            await self._runner.cleanup()

    def bodies(self, path: str) -> list[Any]:
        """Return the bodies of all requests to `path`."""
        return [body for asked, body in self.asked if asked == path]

    # -- answers -----------------------------------------------------------------------------------------------------

    async def _any(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        self.asked.append((request.path, msgspec.json.decode(data) if data else None))
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}" and request.path != "/health":
            return web.json_response({"error": "Unauthorized"}, status=401)
        if request.path in self.answers:
            answer = await self.answers[request.path](request)
            if answer is not None:
                return answer
        own = getattr(self, "on_" + request.path.strip("/").replace("/", "_"), None)
        if own is None or request.path in self.missing:
            return web.json_response({"detail": "Not Found"}, status=404)
        reply: web.StreamResponse = await own(request, self.asked[-1][1])
        return reply

    async def on_health(self, request: web.Request, body: Any) -> web.Response:
        return web.Response()

    async def on_metrics(self, request: web.Request, body: Any) -> web.Response:
        return web.Response(text="# HELP\n")

    async def on_model_info(self, request: web.Request, body: Any) -> web.Response:
        return web.json_response(self.model)

    async def on_server_info(self, request: web.Request, body: Any) -> web.Response:
        return web.json_response(self.server)

    async def on_v1_loads(self, request: web.Request, body: Any) -> web.Response:
        return web.json_response({"loads": [{"num_running_reqs": self.running, "memory": {"weight_gb": 0.5}}]})

    async def on_tokenize(self, request: web.Request, body: Any) -> web.Response:
        text = body["prompt"] if "prompt" in body else "".join(message["content"] for message in body["messages"])
        ids = encode(text)
        return web.json_response({"tokens": ids, "count": len(ids), "max_model_len": 4096})

    async def on_detokenize(self, request: web.Request, body: Any) -> web.Response:
        return web.json_response({"text": [decode(ids) for ids in body["tokens"]]})

    async def on_v1_embeddings(self, request: web.Request, body: Any) -> web.Response:
        ids = tuple(body["input"])
        numbers = [*self.logits(ids), len(ids) - self._cached(ids)]
        data = [{"object": "embedding", "index": 0, "embedding": numbers}]
        return web.json_response({"object": "list", "data": data, "usage": {"prompt_tokens": len(ids)}})

    async def on_abort_request(self, request: web.Request, body: Any) -> web.Response:
        self.aborted.add(body["rid"])
        return web.Response()

    async def on_generate(self, request: web.Request, body: Any) -> web.StreamResponse:
        assert not self.rewards, "a text that is asked of a reward model kills the server"
        if body["sampling_params"].get("max_new_tokens") == 0:
            return web.json_response(self._scored(body))
        events, ids = self._events(body), tuple(body["input_ids"])
        if not body.get("stream"):
            whole = [event async for event in events][-1]
            if body.get("return_hidden_states"):
                assert self.server.get("enable_return_hidden_states"), "it was not started to return hidden states"
                whole["meta_info"]["hidden_states"] = [self.states(ids)[whole["meta_info"]["cached_tokens"] :]]
            elif body.get("return_logprob"):
                rows = [[-0.5, token, None] for token in body["token_ids_logprob"]]
                whole["meta_info"]["output_token_ids_logprobs"] = [rows]
            return web.json_response(whole)
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self.running += 1
        try:
            await reply.prepare(request)
            async for event in events:
                await reply.write(b"data: " + msgspec.json.encode(event) + b"\n\n")
                # A stream that only an abort ends leaves time for the abort to arrive, even on a busy machine.
                await asyncio.sleep(self.pace or 0.002 * bool(body["sampling_params"].get("ignore_eos")))
            await reply.write(b"data: [DONE]\n\n")
        finally:
            self.running -= 1
        return reply

    def _scored(self, body: Any) -> dict[str, Any]:
        """Reply without sampling a token: the requested tokens have `logits`."""
        ids = tuple(body["input_ids"])
        asked = body.get("token_ids_logprob")
        rows = [[logit, token, None] for logit, token in zip(self.logits(ids), asked, strict=True)] if asked else []
        counts = {"prompt_tokens": len(ids), "cached_tokens": self._cached(ids), "completion_tokens": 0}
        meta = {**counts, "finish_reason": {"type": "length", "length": 0}, "output_token_ids_logprobs": [rows]}
        return {"text": "", "output_ids": [], "meta_info": meta}

    def _cached(self, ids: tuple[int, ...]) -> int:
        most = 0
        for kept in self._kept if self.cache else ():
            same = next((at for at, (one, other) in enumerate(zip(ids, kept, strict=False)) if one != other), None)
            most = max(most, min(len(ids), len(kept)) if same is None else same)
        self._kept.append(ids)
        return min(most, len(ids) - 1)

    async def _events(self, body: Any) -> Any:
        ids, drawing = tuple(body["input_ids"]), body["sampling_params"]
        cached = self._cached(ids)
        if body.get("return_hidden_states"):  # tokens whose log-probabilities are requested are computed
            cached = min(cached, body.get("logprob_start_len", len(ids)))
        written = next((end for end in range(len(self.solution), -1, -1) if _ends(ids, self.solution[:end])), 0)
        text, most = self.solution[written:], drawing.get("max_new_tokens", 128)
        out: list[int] = [*encode(text), EOS]
        if drawing.get("ignore_eos"):
            out = encode(text or "x") * most
        out = out[:most]
        last = 3 if self.broken else 0
        self.broken = max(0, self.broken - 1)
        for end in range(1, len(out) + 1):
            so_far = decode(out[:end])
            reason: dict[str, Any] | None = None
            if body.get("rid") in self.aborted:
                reason = {"type": "abort", "message": "Abort in progress"}
            elif end == last:
                reason = {"type": "stop", "matched": "NaN happened"}
            elif any(so_far.endswith(stop) for stop in drawing.get("stop", [])):
                reason = {"type": "stop", "matched": next(filter(so_far.endswith, drawing["stop"]))}
            elif out[end - 1] == EOS:
                reason = {"type": "stop", "matched": EOS}
            elif end == len(out):
                reason = {"type": "length", "length": most}
            new = out[end - 1 : end] if self.incremental and body.get("stream") else out[:end]
            meta = {"prompt_tokens": len(ids), "cached_tokens": cached, "completion_tokens": end}
            yield {"text": decode(new), "output_ids": new, "meta_info": {**meta, "finish_reason": reason}}
            if reason:
                self._kept.append((*ids, *out[:end]))
                return


def _ends(ids: tuple[int, ...], text: str) -> bool:
    written = tuple(encode(text))
    return not written or ids[-len(written) :] == written
