"""Implementation of `tts-tui doctor URL`: checks what a server can do for a search and what is missing.

Abilities are tried out instead of read from its settings: a prompt is sent twice, a stream is started and aborted. No
request can crash a server: token ids are the server's own, no text is empty, and a reward model never generates text.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from time import monotonic
from typing import Any

from msgspec import Struct

from tts_tui.backends.remote.http import Http, UnexpectedReply
from tts_tui.backends.remote.replies import (
    Embeddings,
    Generated,
    Loads,
    Model,
    ServerSettings,
    TokenIds,
    WorkerList,
    Workers,
)
from tts_tui.backends.remote.untrusted import ServerText
from tts_tui.backends.sglang.server import RESERVED, ROUTING, SGLangServer, look
from tts_tui.backends.sglang.stream import Meta
from tts_tui.cli.doctor import ADVICE, BAD, OK, Finding
from tts_tui.errors import BackendError, RequestRefused, WrongServer
from tts_tui.formatting import one_line, plural
from tts_tui.protocols import TokenId

STALL_SECONDS = 30.0
"""Read timeout of one check; a large model on a CPU may need some seconds for 64 tokens."""
END_SECONDS = 5.0
"""Maximum time between an abort and its effect."""
LONG_STREAM = 1000
"""Token limit of the stream that is aborted, high enough that it does not finish before."""
OLDEST = (0, 5)
MOST_NUMBERS = 3
"""Maximum length of a reward: two logits, and the number of computed tokens."""

Check = Callable[[], AsyncIterator[Finding]]


class Streamed(Struct):
    """The fields of a stream event that the checks look at."""

    meta_info: Meta
    output_ids: list[TokenId] | None = None


def report(url: str, api_key: str | None = None) -> int:
    """Print all findings about the server at `url`; return 0 if nothing is missing, else 3.

    Raises:
        UsageError: `url` is not a valid address, or the key cannot be sent in a header.
    """
    return asyncio.run(_report(Http(url, api_key=api_key, stall=STALL_SECONDS)))


async def _report(http: Http) -> int:
    missing = 0
    await http.open()
    try:
        checkup = Checkup(http)
        async for state, sentence in checkup.findings():
            missing += state == BAD
            print(f"{state:<8} {one_line(sentence, 1000)}", flush=True)
    finally:
        await http.close()
    print(_summary(http.url, missing, checkup.rewards))
    return 3 if missing else 0


def _summary(url: str, missing: int, rewards: bool) -> str:
    if missing:
        problems = "problem" if missing == 1 else f"{missing} problems"
        return f"Fix the {problems} above before running searches on this server."
    if rewards:
        return "This server can score the steps of tts-tui's searches."
    return f"This server can run tts-tui's searches: tts-tui solve --policy sglang:{url} ..."


class Checkup:
    """Runs all checks of one server.

    Args:
        http: A connection to the server, opened.

    Attributes:
        rewards: Whether it serves a reward model, as far as is known.
    """

    def __init__(self, http: Http) -> None:
        self.rewards = False
        self._http = http
        self._model: ServerText | None = None
        self._server = ServerSettings()
        self._routed = False
        self._longest = 0
        # A router sends requests with the same key to the same worker.
        self._headers = {ROUTING: uuid.uuid4().hex}

    async def findings(self) -> AsyncIterator[Finding]:
        """Run all checks and yield their findings. A check that fails is a finding, too."""
        try:
            async for finding in self._reach():
                yield finding
        except BackendError as error:
            yield BAD, str(error)
            return
        for check in self._checks():
            name = check.__name__[1:].replace("_", " ")
            try:
                async for finding in check():
                    yield finding
            except UnexpectedReply as error:
                yield BAD, f"the check of {name} failed: {error}"
            except BackendError as error:
                yield BAD, f"the check of {name} failed: {error}"
                if not await self._lives():
                    yield BAD, "the server stopped answering, and the other checks were skipped: see its log"
                    return

    def _checks(self) -> Iterator[Check]:
        yield from (self._router, self._version, self._metrics)
        # Only known after the checks above. Asking a reward model for text would crash its server.
        if self.rewards:
            yield from (self._reward, self._requests_at_once)
            return
        yield from (self._chat_template, self._context, self._radix_cache, self._streaming, self._abort, self._logprobs)
        yield self._requests_at_once

    async def _lives(self) -> bool:
        try:
            await self._http.read("GET", "/health")
        except BackendError:
            return False
        return True

    # -- what it is --------------------------------------------------------------------------------------------------

    async def _reach(self) -> AsyncIterator[Finding]:
        model = await look(self._http, Model, "/model_info", "/get_model_info")
        self._model = model.model_path
        yield OK, f"{self._http.url} answers"
        self.rewards = model.is_generation is False
        kind = "reward or embedding model" if self.rewards else "language model"
        yield OK, f"{kind} {self._model}"

    async def _router(self) -> AsyncIterator[Finding]:
        found = await self._worker_states()
        if found is not None:
            self._routed = True
            healthy = sum(state is not False for state in found)
            yield (
                OK if healthy else BAD,
                f"a router with {plural(len(found), 'worker')}, {healthy} of them healthy",
            )

    async def _worker_states(self) -> list[bool | None] | None:
        """Return the health of each worker of a router, None for those unknown; None if it is not a router."""
        with suppress(BackendError):
            return [worker.is_healthy for worker in (await self._http.get("/workers", Workers)).workers]
        with suppress(BackendError):  # older routers
            return [None for _ in (await self._http.get("/list_workers", WorkerList)).urls]
        return None

    async def _version(self) -> AsyncIterator[Finding]:
        try:
            self._server = await look(self._http, ServerSettings, "/server_info", "/get_server_info")
        except WrongServer:
            self._server = ServerSettings()
        self.rewards = self.rewards or self._server.is_embedding is True
        version = str(self._server.version or "")
        if not version:
            yield ADVICE, "the version of SGLang is unknown" + (" through the router" if self._routed else "")
        elif (numbers := tuple(map(int, re.findall(r"\d+", version)[:2]))) < OLDEST:
            yield ADVICE, f"SGLang {version}: tts-tui was made for {'.'.join(map(str, OLDEST))} and newer, update it"
        else:
            assert numbers
            yield OK, f"SGLang {version}"

    async def _metrics(self) -> AsyncIterator[Finding]:
        try:
            await self._http.read("GET", "/metrics")
        except RequestRefused:
            yield ADVICE, "metrics are off: start it with --enable-metrics to monitor it"
        else:
            yield OK, "metrics are on"

    async def _requests_at_once(self) -> AsyncIterator[Finding]:
        most = self._server.max_running_requests or 0
        if most > 0:
            yield OK, f"it runs up to {plural(most, 'request')} at once"
        else:
            yield ADVICE, "the maximum number of running requests is unknown: tts-tui measures how many to send"

    # -- a policy ----------------------------------------------------------------------------------------------------

    async def _chat_template(self) -> AsyncIterator[Finding]:
        server = SGLangServer(self._http.other(self._http.url))
        try:
            await server.start()
            ids, self._longest = await server.tokenize([{"role": "user", "content": "Hello"}])
        except (RequestRefused, WrongServer) as error:
            yield BAD, str(error)
            return
        finally:
            await server.close()
        said = f"a chat template: one word is {plural(len(ids), 'token')} in it"
        yield OK, said + (", by the tokenizer on this machine, for the server applies none" if server.is_old else "")

    async def _context(self) -> AsyncIterator[Finding]:
        longest = self._server.context_length or self._longest
        if not longest:
            yield ADVICE, "the context length is unknown: tts-tui assumes 4096 tokens"
            return
        self._longest = longest
        yield OK, f"a context of {self._longest:,} tokens, of which a search may use {self._longest - RESERVED:,}"
        room = self._server.max_total_num_tokens
        if room is not None and room < self._longest:
            yield ADVICE, f"its cache has room for {room:,} tokens only: a longer path will fail"

    async def _radix_cache(self) -> AsyncIterator[Finding]:
        page = max(self._server.page_size or 1, 1)
        ids = await self._random_ids(max(64, 2 * page + 1))
        body = {"input_ids": ids, "sampling_params": {"max_new_tokens": 1}}
        await self._generate(body)
        meta = (await self._generate(body)).meta_info
        cached, tokens = meta.cached_tokens, meta.prompt_tokens
        if not tokens:
            raise UnexpectedReply(f"{self._http.url} does not count tokens, which makes no sense")
        said = f"of two equal prompts the second one reuses {cached} of {tokens} tokens"
        if 2 * cached < tokens:
            yield BAD, f"{said}: start it without --disable-radix-cache, or every step computes its whole path again"
        elif page > 1:
            yield ADVICE, f"{said}, whole pages of {page} only: --page-size 1 reuses more where SGLang allows it"
        else:
            yield OK, said

    async def _streaming(self) -> AsyncIterator[Finding]:
        seen = [wire async for wire in self._stream(await self._body(max_new_tokens=8, ignore_eos=True))]
        if not seen:
            raise UnexpectedReply(f"{self._http.url} sent an empty stream, which makes no sense")
        last = seen[-1]
        if len(seen) == 1:
            yield ADVICE, "it streams everything in one event: a step is not shown before it is finished"
        elif len(last.output_ids or ()) == last.meta_info.completion_tokens:
            yield (
                ADVICE,
                "it streams all text so far with every token: avoid that with --incremental-streaming-output",
            )
        else:
            yield OK, "it streams token by token, new ones only"

    async def _abort(self) -> AsyncIterator[Finding]:
        before = await self._running()
        room = self._longest - RESERVED - 64 if self._longest else LONG_STREAM
        body = await self._body(max_new_tokens=max(16, min(LONG_STREAM, room)), ignore_eos=True)
        begun = asyncio.Event()
        task = asyncio.create_task(self._last_word(body, begun))
        starting = asyncio.create_task(begun.wait())
        try:
            await asyncio.wait([task, starting], return_when=asyncio.FIRST_COMPLETED)
            try:
                await self._http.read("POST", "/abort_request", {"rid": body["rid"]})
            except RequestRefused:
                yield ADVICE, "it takes no aborts: tokens sampled after a step is cancelled are not counted"
                return
            await asyncio.wait([task], timeout=END_SECONDS)
            if not task.done():
                yield BAD, f"a stream goes on {END_SECONDS:g} s after its abort: update SGLang"
                return
            if task.result() in ("length", "stop"):
                yield ADVICE, "the stream finished before its abort arrived: whether aborts work is unknown"
                return
            if task.result() != "abort":
                yield BAD, "an aborted stream ends without a final event, so its tokens cannot be counted"
                return
        finally:
            for one in (task, starting):
                one.cancel()
            await asyncio.gather(task, starting, return_exceptions=True)
        yield await self._after_abort(before)

    async def _after_abort(self, before: int | None) -> Finding:
        end = monotonic() + END_SECONDS
        now = await self._running()
        while before is not None and now is not None and now > before and monotonic() < end:
            await asyncio.sleep(0.1)
            now = await self._running()
        if before is None or now is None:
            return OK, "an aborted stream ends with a final event (the number of running requests is unknown)"
        running = f"{plural(now, 'request')} running"
        if now > before:
            return ADVICE, f"{running} after an abort, {before} before it: from other clients, or aborts have no effect"
        return OK, f"an aborted stream ends with a final event, and leaves {running}"

    async def _logprobs(self) -> AsyncIterator[Finding]:
        ids = await self._random_ids(8)
        asked = {"return_logprob": True, "logprob_start_len": -1, "token_ids_logprob": ids[:2]}
        try:
            reply = await self._generate({"input_ids": ids, "sampling_params": {"max_new_tokens": 1}, **asked})
            rows = reply.meta_info.output_token_ids_logprobs
            numbers = [row[0] for row in rows[0]] if rows else []
        except (RequestRefused, UnexpectedReply):
            numbers = []
        if numbers and all(map(math.isfinite, numbers)):
            yield OK, "it returns log probabilities of tokens, which reward models that are language models need"
        else:
            yield ADVICE, "it returns no log probabilities of tokens: it can serve a policy, but not a reward model"

    # -- a reward model ----------------------------------------------------------------------------------------------

    async def _reward(self) -> AsyncIterator[Finding]:
        ids = await self._ids("two and two are four")
        body = {"model": self._model, "input": ids}
        found = (await self._http.post("/v1/embeddings", body, Embeddings, self._headers)).data
        numbers = found[0].embedding if found else []
        if not 1 <= len(numbers) <= MOST_NUMBERS:
            yield BAD, f"it returns {len(numbers)} numbers for a text, unlike any reward model: serve another model"
        else:
            yield OK, "a reward model server: it returns numbers for a text"

    # -- asking ------------------------------------------------------------------------------------------------------

    async def _ids(self, text: str) -> list[int]:
        """Return the server's token ids of `text`; ids outside its vocabulary would crash it."""
        try:
            ids = (await self._http.post("/tokenize", {"model": self._model, "prompt": text}, TokenIds)).tokens
        except RequestRefused:
            return [5, 6, 7, 8]  # in every vocabulary
        if not ids:
            raise UnexpectedReply(f"{self._http.url} makes no tokens of a text, which makes no sense")
        return ids

    async def _random_ids(self, count: int) -> list[int]:
        """Return `count` token ids in an order that no cache can contain."""
        ids = await self._ids(" ".join("".join(random.choices("abcdefghijklmnop", k=4)) for _ in range(count)))
        return ids[:count]

    async def _body(self, **drawing: Any) -> dict[str, Any]:
        ids = await self._random_ids(8)
        return {"input_ids": ids, "sampling_params": drawing, "rid": uuid.uuid4().hex, "stream": True}

    async def _generate(self, body: dict[str, Any]) -> Generated:
        return await self._http.post("/generate", body, Generated, self._headers)

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[Streamed]:
        async with aclosing(self._http.events("/generate", body, Streamed, self._headers)) as events:
            async for event in events:
                if event.output_ids is None:
                    raise RequestRefused(f"{self._http.url} streams no token ids")
                yield event

    async def _last_word(self, body: dict[str, Any], begun: asyncio.Event) -> str:
        """Return the finish reason in the last event of a stream."""
        kind = ""
        async for event in self._stream(body):
            begun.set()
            reason = event.meta_info.finish_reason
            kind = str(reason.type or "") if reason else ""
        return kind

    async def _running(self) -> int | None:
        """Return the number of requests running on the server, from all clients; None if unknown."""
        try:
            return sum(load.num_running_reqs for load in (await self._http.get("/v1/loads", Loads)).loads)
        except BackendError:
            return None
