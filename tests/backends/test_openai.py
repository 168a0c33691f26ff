"""A policy on OpenAI-compatible servers: exact texts without ids of theirs, honest counts, and every failure told."""

from __future__ import annotations

import asyncio
import re
from array import array
from contextlib import aclosing
from itertools import cycle
from time import monotonic

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import ScriptedPRM
from tts_tui import Plan, Sampling, Solver, StepRequest, Usage
from tts_tui.backends.openai import STREAM_OPTIONS, OpenAIPolicy
from tts_tui.backends.openai_stream import END, pack, unpack
from tts_tui.errors import (
    BackendBadResponse,
    BackendError,
    BackendOverloaded,
    BackendTimeout,
    BackendUnavailable,
    ContextExceeded,
    RequestRefused,
    UsageError,
    WrongServer,
)
from tts_tui.events import StepFailed, StepFinished

STEPS = ("Step 1: 3 + 4 = 7\n\n", "Step 2: nothing é€😀 is left.\n\n", "The answer is \\boxed{7}")
SOLUTION = "".join(STEPS)
PROBLEM = "What is 3 + 4?"
TOKENS = re.compile(r"<s>|\n\n| ?[^ \n<]+|.", re.DOTALL)
"""A token of the fake server."""


OPENAI = {"model", "prompt", "max_tokens", "stream", "stream_options", "temperature", "top_p", "seed"}
OPENAI |= {"presence_penalty", "frequency_penalty"}
"""Fields of a request that are OpenAI's own, as far as they are used here."""


def tokens(text: str) -> list[str]:
    return TOKENS.findall(text)


class FakeOpenAI:
    """A server that speaks the protocol as the recorded ones do. Use as an asynchronous context manager.

    Args:
        kind: Whose extras it has: "sglang", "vllm", "llama.cpp", "mlx", "ollama", or "hosted", which has none and
            refuses what it does not know.
        models: What it lists.
        prefix: Where its routes are.
        key: The API key that it wants.
        context: Longest sequence.
        batch: Tokens in one event; 0 for one character an event.
        cached: It says what it had cached.
        usage: It counts.
        wraps: How many tokens it puts around each text.

    Attributes:
        asked: Bodies of the completions that were asked for, without the first one of `start`.
        answers: Makes answers by path, instead of its own.
        faults: What happens to the next completions: an answer, or an event to send, or None to break off, after two
            events.
        running: Streams that are open.
    """

    def __init__(self, kind="vllm", *, models=("a/fake-7B",), prefix="/v1", key="", context=4096, batch=1, **more):
        self.kind, self.models, self.prefix, self.key = kind, models, prefix, key
        self.context, self.batch = context, batch
        self.cached, self.usage = more.pop("cached", False), more.pop("usage", True)
        self.bos, self.wraps = more.pop("bos", False), more.pop("wraps", 0)
        assert not more
        self.asked, self.answers, self.faults, self.running, self.url, self.pace = [], {}, [], 0, "", 0.0

    async def __aenter__(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._any)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    def render(self, messages) -> str:
        chat = "".join(f"<|{message['role']}|>{message['content']}" for message in messages) + "<|assistant|>"
        return "<s>" + chat if self.bos else chat

    async def _any(self, request):
        data = await request.read()
        body = msgspec.json.decode(data) if data else None
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "Unauthorized"}}, status=401)
        if request.path in self.answers:
            return self.answers[request.path]()
        if request.path == "/" and self.kind == "ollama":
            return web.Response(text="Ollama is running")
        if request.path == self.prefix + "/models":
            return web.json_response({"object": "list", "data": [self.describe(name) for name in self.models]})
        if request.path == self.prefix + "/completions":
            return await self.complete(request, body)
        own = getattr(self, "on_" + request.path.strip("/").replace("-", "_").replace("/", "_"), None)
        reply = own(body) if own else None
        return web.json_response(reply or {"detail": "Not Found"}, status=200 if reply else 404)

    def describe(self, name):
        return {
            "sglang": {"id": name, "object": "model", "owned_by": "sglang", "max_model_len": self.context},
            "vllm": {"id": name, "object": "model", "owned_by": "vllm", "root": name, "max_model_len": self.context},
            "llama.cpp": {"id": name, "object": "model", "meta": {"n_vocab": 9, "n_ctx_train": self.context}},
        }.get(self.kind, {"id": name, "object": "model"})

    def on_api_version(self, body):
        return {"version": "0.12.0"} if self.kind == "ollama" else None

    def on_tokenize(self, body):
        if self.kind == "llama.cpp":
            return {"tokens": []} if "content" not in body else None
        if self.kind not in ("sglang", "vllm"):
            return None
        mark = [ord(char) for char in "<s>"] if self.bos else []
        text = self.render(body["messages"]) if "messages" in body else body["prompt"]
        ids = [0] * bool(mark and "prompt" in body) + [0] * text.startswith("<s>")
        return {"tokens": ids + [ord(char) for char in text.removeprefix("<s>")], "max_model_len": self.context}

    def on_detokenize(self, body):
        if self.kind not in ("sglang", "vllm"):
            return None
        text = "".join(chr(id) if id else "<s>" for id in body["tokens"])
        return {"text" if self.kind == "sglang" else "prompt": text}

    def on_apply_template(self, body):
        return {"prompt": self.render(body["messages"])} if self.kind == "llama.cpp" else None

    # -- completions -------------------------------------------------------------------------------------------------

    def refuse(self, body):
        options = body.get("stream_options") or {}
        if self.kind == "hosted" and "continuous_usage_stats" in options:
            return {"error": {"message": "Unknown parameter: 'stream_options.continuous_usage_stats'."}}
        if self.kind == "hosted" and (unknown := body.keys() - OPENAI):
            return {"error": {"message": f"Unrecognized request argument supplied: {min(unknown)}"}}
        if self.kind == "mlx" and body.get("top_k", 0) < 0:
            return {"error": {"message": "top_k must be at least 0"}}
        size = len(tokens(body["prompt"]))
        if self.kind == "llama.cpp":
            if size >= self.context:
                said = "the request exceeds the available context size, try increasing it"
                return {"error": {"code": 400, "message": said, "type": "exceed_context_size_error"}}
        elif size + body["max_tokens"] > self.context:
            said = f"This model's maximum context length is {self.context} tokens. Please reduce the length."
            return (
                {"error": {"message": said, "code": 400}} if self.kind != "sglang" else {"message": said, "code": 400}
            )
        return None

    async def complete(self, request, body):
        refusal = self.refuse(body)
        if refusal:
            return web.json_response(refusal, status=400)
        probe = body["prompt"] == "Hello"
        if not probe:
            self.asked.append(body)
        fault = self.faults.pop(0) if self.faults and not probe else 0
        if isinstance(fault, web.Response):
            return fault
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self.running += 1
        try:
            await reply.prepare(request)
            for place, event in enumerate(self.events(body)):
                if fault != 0 and place == 2:
                    if fault is None:
                        request.transport.abort()
                        return reply
                    event = fault
                await reply.write(b"data: " + msgspec.json.encode(event) + b"\n\n")
                await asyncio.sleep(self.pace)
            await reply.write(b"data: [DONE]\n\n")
        finally:
            self.running -= 1
        return reply

    def events(self, body):
        prompt, options = body["prompt"], body.get("stream_options") or {}
        written = next(end for end in range(len(SOLUTION), -1, -1) if prompt.endswith(SOLUTION[:end]))
        out = [*tokens(SOLUTION[written:]), ""][: body["max_tokens"]]
        reason = "length" if out[-1] else "stop"
        continuous = options.get("continuous_usage_stats") and self.kind in ("sglang", "vllm")
        groups = [out[at : at + (self.batch or 1)] for at in range(0, len(out), self.batch or 1)]
        if self.batch == 0:
            groups = [[char] for char in "".join(out)] + [[""]]
        done = 0
        for place, group in enumerate(groups):
            done += len(group)
            last = place == len(groups) - 1
            event = {"object": "text_completion", "usage": None}
            if continuous:
                event["usage"] = self.counts(prompt, done)
            if last and self.kind == "llama.cpp" and "".join(group):  # its last event has no text
                yield event | {"choices": [{"index": 0, "text": "".join(group), "finish_reason": None}]}
                group = [""]
            yield event | {"choices": [{"index": 0, "text": "".join(group), "finish_reason": reason if last else None}]}
        if options.get("include_usage") and self.usage:
            yield {"object": "text_completion", "choices": [], "usage": self.counts(prompt, len(out))}

    def counts(self, prompt, completion):
        size = len(tokens(prompt)) + self.wraps
        details = {"cached_tokens": size - 1} if self.cached else None
        return {"prompt_tokens": size, "completion_tokens": completion, "prompt_tokens_details": details}


async def until(true, seconds: float = 5.0) -> None:
    end = monotonic() + seconds
    while not true():
        assert monotonic() < end, "it never came"
        await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    """Waits as short as tests want them."""
    monkeypatch.setattr("tts_tui.search.BACKOFF", 0.01)
    monkeypatch.setattr("tts_tui.backends.dispatch.FIRST_WAIT", 0.05)
    monkeypatch.setattr("tts_tui.backends.patience.AGAIN_SECONDS", 0.05)


class Started:
    """A started policy on a server, closed at the end."""

    def __init__(self, server, spec="{url}", **settings):
        self.policy = OpenAIPolicy(spec.format(url=server.url), **{"stall": 1.0, "patience": 1.0, **settings})

    async def __aenter__(self):
        await self.policy.start()
        return self.policy

    async def __aexit__(self, *_):
        await self.policy.close()


def asks(prompt, path=(), **settings):
    return StepRequest((*prompt.ids, *path), Sampling(), **{"max_tokens": 100, "session": "s", **settings})


async def chunks_of(policy, request):
    async with aclosing(policy.stream(request)) as stream:
        return [chunk async for chunk in stream]


def total(chunks):
    return sum((chunk.usage for chunk in chunks), Usage())


# -- ids ---------------------------------------------------------------------------------------------------------------


@given(st.lists(st.text()))
def test_ids_give_back_the_exact_text_in_whatever_pieces_it_came(pieces):
    ids = [id for piece in pieces for id in (*pack(piece), END)]
    assert unpack(ids) == "".join(pieces)
    assert array("i", ids).tolist() == ids  # as the tree keeps them
    assert END not in pack("".join(pieces))


@pytest.mark.parametrize("ids", [(5, 17, 49151), (4 << 24,), (-1,), (1 << 24 | 256,), (*pack("é"), 1 << 24 | 0xC3)])
def test_ids_of_another_policy_are_told(ids):
    with pytest.raises(BackendError, match="token ids of another policy"):
        unpack(ids)


# -- searches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sglang", "vllm", "llama.cpp", "hosted"])
@pytest.mark.parametrize("strategy", ["cot", "best-of-n", "beam", "dvts"])
async def test_searches_on_every_kind_of_server(kind, strategy):
    events = []
    async with FakeOpenAI(kind) as server:
        policy = OpenAIPolicy(server.url)
        async with Solver(policy, ScriptedPRM(lambda steps: 1 / len(steps))) as solver:
            result = await solver.solve(PROBLEM, Plan(strategy=strategy, n=4, m=2), sinks=[events.append])
            start = unpack((await policy.prompt(PROBLEM)).ids)
        await until(lambda: not server.running)
    assert (result.answer, result.reason) == ("7", "solved")
    counts = result.finished.tokens.policy
    assert Usage(counts.prompt_computed, counts.prompt_cached, counts.completion) == policy.total
    assert policy.dispatch.running == 0
    assert not [event for event in events if isinstance(event, StepFailed)]
    steps = [event for event in events if isinstance(event, StepFinished)]
    assert {step.text for step in steps} == set(STEPS)
    assert all(unpack(step.ids) == step.text for step in steps)
    assert {step.finish for step in steps} == {"step", "eos"}
    assert {body["prompt"] for body in server.asked} <= {start, start + STEPS[0], start + STEPS[0] + STEPS[1]}
    assert all("stop" not in body and body["stream"] for body in server.asked)


async def test_a_path_goes_on_in_another_process_with_its_ids_alone():
    async with FakeOpenAI() as server:
        async with Started(server) as policy:
            prompt = await policy.prompt(PROBLEM)
            (step,) = [chunk for chunk in await chunks_of(policy, asks(prompt)) if chunk.step_end]
            path = [id for chunk in [step] for id in chunk.ids]
            written = await chunks_of(policy, asks(prompt))
            path = [id for chunk in written for id in chunk.ids]
        async with Started(server) as policy:
            assert "".join(chunk.text for chunk in await chunks_of(policy, asks(prompt, path))) == STEPS[1]
    assert server.asked[-1]["prompt"] == server.asked[0]["prompt"] + STEPS[0]


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sglang", "vllm", "llama.cpp"])
async def test_the_servers_own_chat_template_is_applied(kind):
    async with FakeOpenAI(kind) as server, Started(server) as policy:
        text = unpack((await policy.prompt(PROBLEM)).ids)
    assert text.startswith("<|system|>Please reason") and text.endswith(f"<|user|>{PROBLEM}<|assistant|>")


@pytest.mark.parametrize("kind", ["sglang", "vllm"])
async def test_no_text_begins_twice(kind):
    async with FakeOpenAI(kind, bos=True) as server, Started(server) as policy:
        assert unpack((await policy.prompt(PROBLEM)).ids).startswith("<|system|>")


async def test_without_a_template_problems_are_plain_texts_and_users_are_told():
    async with FakeOpenAI("hosted") as server, Started(server) as policy:
        text = unpack((await policy.prompt(PROBLEM)).ids)
    assert text.startswith(f"Problem: {PROBLEM}\n\nPlease reason") and text.endswith("\n\nSolution:")
    (note,) = [note for note in policy.notes if "chat template" in note]
    assert "problems are asked as plain text" in note


@pytest.mark.parametrize("kind", ["sglang", "llama.cpp"])
async def test_what_is_known_of_the_model(kind):
    async with FakeOpenAI(kind, context=2048) as server, Started(server) as policy:
        assert (policy.info.name, policy.info.parameters, policy.info.context) == ("fake-7B", 7_000_000_000, 2048)
    async with FakeOpenAI("hosted", models=["qwen2.5-math"]) as server, Started(server) as policy:
        assert (policy.info.family, policy.info.parameters, policy.info.context) == ("qwen", 0, 4096)
        assert "4096 tokens are assumed" in " ".join(policy.notes) and "FLOPs count as 0" in " ".join(policy.notes)


# -- steps and counts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [0, 1, 2, 3, 7, 1000])
@pytest.mark.parametrize("kind", ["vllm", "llama.cpp"])
async def test_steps_end_at_the_separator_however_the_text_comes(kind, batch):
    async with FakeOpenAI(kind, batch=batch) as server, Started(server) as policy:
        prompt = await policy.prompt(PROBLEM)
        rolled = await chunks_of(policy, asks(prompt, rollout=True))
        step = await chunks_of(policy, asks(prompt))
        await until(lambda: not server.running)
    assert [chunk.step_end for chunk in rolled].count(True) == 2
    assert "".join(chunk.text for chunk in rolled) == SOLUTION == unpack([id for chunk in rolled for id in chunk.ids])
    assert all(chunk.text.endswith("\n") for chunk in rolled if chunk.step_end)
    assert rolled[-1].finish == "eos" and rolled[-1].ids[-1] == END
    assert "".join(chunk.text for chunk in step) == STEPS[0]
    assert step[-1].finish == "step" and step[-1].step_end and not any(chunk.step_end for chunk in step[:-1])
    assert total(rolled) + total(step) == policy.total
    size = len(tokens(server.asked[0]["prompt"]))
    assert total(rolled).prompt_computed == size
    if batch:
        assert total(rolled) == Usage(size, 0, len(tokens(SOLUTION)) + 1)
        assert min(chunk.usage.completion for chunk in rolled + step) >= 0


async def test_a_text_that_is_cut_off():
    async with FakeOpenAI() as server, Started(server) as policy:
        (*_, last) = await chunks_of(policy, asks(await policy.prompt(PROBLEM), max_tokens=3))
        assert (last.finish, last.step_end) == ("length", False)
        (*_, last) = await chunks_of(policy, asks(await policy.prompt(PROBLEM), max_tokens=8, rollout=True))
        assert (last.finish, last.step_end, last.text) == ("length", True, "\n\n")  # no blank step behind it


async def test_counts_of_steps_are_exact_where_the_server_counts_every_event():
    async with FakeOpenAI("vllm", batch=3, cached=True) as server, Started(server) as policy:
        prompt = await policy.prompt(PROBLEM)
        step = await chunks_of(policy, asks(prompt))
    size = len(tokens(server.asked[0]["prompt"]))
    assert total(step) == Usage(1, size - 1, 9)  # three events of three, the last one dropped in part
    assert step[0].usage.prompt_cached == size - 1
    assert policy.notes == ()


@pytest.mark.parametrize("usage", [True, False])
async def test_counts_of_steps_are_guessed_where_it_does_not(usage):
    async with FakeOpenAI("llama.cpp", usage=usage) as server, Started(server) as policy:
        prompt = await policy.prompt(PROBLEM)
        step = await chunks_of(policy, asks(prompt))
        whole = await chunks_of(policy, asks(prompt, rollout=True))
    size = len(tokens(server.asked[0]["prompt"])) if usage else len(prompt.ids)
    assert total(step) == Usage(len(prompt.ids), 0, len(tokens(STEPS[0])))
    assert total(whole) == Usage(size, 0, len(tokens(SOLUTION)) + usage)
    said = " ".join(policy.notes)
    assert ("at the end of a text only" in said) == usage
    assert ("all counts of tokens are guesses" in said) != usage


async def test_a_correction_takes_nothing_back_from_steps_that_are_settled():
    async with FakeOpenAI("llama.cpp", batch=0) as server, Started(server) as policy:
        rolled = await chunks_of(policy, asks(await policy.prompt(PROBLEM), rollout=True))
    steps, now = [], 0
    for chunk in rolled:
        now += chunk.usage.completion
        if chunk.step_end or chunk.finish:
            steps.append(now)
            now = 0
    assert steps == [len(STEPS[0]), len(STEPS[1]), 0]


@pytest.mark.parametrize("kind", ["vllm", "llama.cpp"])
async def test_a_stream_that_is_closed_early_tells_the_rest_once(kind):
    late = []
    async with FakeOpenAI(kind) as server, Started(server) as policy:
        server.pace = 0.02
        prompt = await policy.prompt(PROBLEM)
        stream = policy.stream(asks(prompt, rollout=True, late=late.append))
        first = await anext(stream)
        await stream.aclose()
        await until(lambda: not server.running)
    assert first.usage.completion == 1
    assert first.usage + sum(late, Usage()) == policy.total
    assert len(late) == (kind == "llama.cpp")
    assert policy.total.prompt_computed > 0 and policy.dispatch.running == 0


# -- failures ----------------------------------------------------------------------------------------------------------


async def refused(server, spec="{url}", **settings):
    """How `start` fails."""
    policy = OpenAIPolicy(spec.format(url=server.url), stall=0.5, **settings)
    try:
        with pytest.raises((BackendError, UsageError)) as raised:
            await policy.start()
    finally:
        await policy.close()
    assert "\n" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("spec", ["{url}", "{url}/v1", "{url}/", "{url}/v1/#a/fake-7B"])
async def test_where_the_routes_are_is_found_out(spec):
    async with FakeOpenAI() as server, Started(server, spec) as policy:
        assert await chunks_of(policy, asks(await policy.prompt(PROBLEM)))
    async with FakeOpenAI("hosted", prefix="") as server, Started(server) as policy:
        assert await chunks_of(policy, asks(await policy.prompt(PROBLEM)))


async def test_which_model_is_asked_if_it_is_not_plain():
    async with FakeOpenAI(models=["b", "a"]) as server:
        error = await refused(server)
        assert isinstance(error, UsageError) and "wants to know which model" in str(error) and "a, b" in str(error)
        assert "serves no c: write" in str(await refused(server, "{url}#c"))
        async with Started(server, "{url}#b") as policy:
            await chunks_of(policy, asks(await policy.prompt(PROBLEM)))
    assert {body["model"] for body in server.asked} == {"b"}
    async with FakeOpenAI(models=[f"m{number:02}" for number in range(40)]) as server:
        assert "m09 and 30 more" in str(await refused(server))


async def test_a_list_of_models_with_entries_of_another_kind_is_read_as_far_as_it_can_be():
    listed = [None, 7, {"object": "model"}, {"id": "odd", "max_model_len": "long", "meta": "x"}, {"id": "even"}]
    async with FakeOpenAI() as server:
        server.answers = {"/v1/models": lambda: web.json_response({"data": listed})}
        assert "even, odd" in str(await refused(server))
        async with Started(server, "{url}#odd") as policy:
            assert policy.info.name == "odd" and await chunks_of(policy, asks(await policy.prompt(PROBLEM)))


async def test_keys():
    async with FakeOpenAI(key="a-key") as server:
        error = await refused(server)
        assert isinstance(error, WrongServer) and "wants an API key: set TTS_TUI_API_KEY" in str(error)
        error = await refused(server, api_key="wrong")
        assert isinstance(error, WrongServer) and "does not accept this API key" in str(error)
        async with Started(server, api_key="a-key") as policy:
            assert await chunks_of(policy, asks(await policy.prompt(PROBLEM)))


async def test_what_is_no_such_server():
    async with FakeOpenAI() as server:
        server.answers = {"/v1/models": lambda: web.Response(text="<html>", content_type="text/html")}
        assert "answers with a web page" in str(await refused(server))
    async with FakeOpenAI() as server:
        server.answers = {"/v1/models": lambda: web.json_response({}, status=404)}
        assert "speaks no OpenAI protocol" in str(await refused(server))
    async with FakeOpenAI() as server:
        server.answers = {"/v1/completions": lambda: web.json_response({}, status=404)}
        error = await refused(server)
        assert isinstance(error, WrongServer) and "does not complete plain texts" in str(error)
    async with FakeOpenAI() as server:
        server.answers = {"/v1/completions": lambda: web.json_response({"error": {"message": "no"}}, status=400)}
        error = await refused(server)
        assert isinstance(error, RequestRefused) and str(error).endswith("refused the request: no")


async def test_a_server_that_knows_no_usage_is_asked_for_none():
    async with FakeOpenAI("hosted", context=100_000) as server, Started(server) as policy:
        await chunks_of(policy, asks(await policy.prompt(PROBLEM)))
    assert server.asked[0]["stream_options"] == STREAM_OPTIONS[1]["stream_options"]


async def test_an_overloaded_server_is_given_the_time_that_it_wants():
    busy = [web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0.2"})]
    async with FakeOpenAI() as server, Started(server) as policy:
        server.faults = [*busy, web.json_response({}, status=503)]
        begun = monotonic()
        chunks = await chunks_of(policy, asks(await policy.prompt(PROBLEM)))
        assert "".join(chunk.text for chunk in chunks) == STEPS[0] and monotonic() - begun >= 0.2
        assert total(chunks) == policy.total
        server.faults = [web.json_response({}, status=429, headers={"Retry-After": "0"}) for _ in range(20)]
        with pytest.raises(BackendOverloaded):
            await chunks_of(policy, asks(await policy.prompt(PROBLEM)))


@pytest.mark.parametrize(
    ("fault", "kind", "sentence"),
    [
        (None, BackendUnavailable, "broke the connection off"),
        ({"error": {"message": "out of memory", "code": 500}}, BackendBadResponse, "failed: out of memory"),
        ({"object": "error", "message": "bad", "code": 400}, RequestRefused, "refused the request: bad"),
        ({"error": {"message": "busy", "code": 503}}, BackendOverloaded, "is overloaded: busy"),
        ({"error": {"message": "exceeds the available context size"}}, ContextExceeded, "no longer fits"),
        ({"choices": [{"text": "", "finish_reason": "abort"}]}, BackendUnavailable, "gave the request up: abort"),
        ({"choices": [{"text": "x", "finish_reason": "content_filter"}]}, BackendBadResponse, r"\(content_filter\)"),
        ({"choices": [{"text": "", "finish_reason": "error"}]}, BackendBadResponse, r"\(error\)"),
        (
            {"choices": [{"text": "", "finish_reason": "stop", "matched_stop": "NaN happened"}]},
            BackendBadResponse,
            r"\(NaN happened\)",
        ),
        ({"choices": [{"text": "", "finish_reason": "stop", "stop_reason": "###"}]}, BackendBadResponse, r"\(###\)"),
        ({"choices": 5}, BackendBadResponse, "an event that is damaged"),
    ],
)
async def test_a_stream_that_breaks(fault, kind, sentence):
    late = []
    async with FakeOpenAI("llama.cpp") as server, Started(server) as policy:
        server.faults = [fault]
        got = []
        with pytest.raises(kind, match=sentence):
            async for chunk in policy.stream(asks(await policy.prompt(PROBLEM), late=late.append)):
                got += [chunk]
        assert [chunk.text for chunk in got][:2] == ["Step", " 1:"] and len(server.asked) == 1
        assert not any(chunk.finish or chunk.step_end for chunk in got)
        assert total(got) + sum(late, Usage()) == policy.total
        assert policy.dispatch.running == 0


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("kind", ["vllm", "llama.cpp", "hosted"])
async def test_a_server_that_writes_on_beyond_what_was_asked_for_is_given_up(kind, counted):
    class Endless(FakeOpenAI):
        def events(self, body):
            for place, event in enumerate(cycle(list(super().events(body))[:1])):
                usage = {"usage": self.counts(body["prompt"], place + 1)} if counted else {}
                yield event | usage
                if body["prompt"] == "Hello":
                    return

    late, got = [], []
    async with Endless(kind) as server, Started(server) as policy:
        with pytest.raises(BackendBadResponse, match="beyond the 100 tokens"):
            async for chunk in policy.stream(asks(await policy.prompt(PROBLEM), rollout=True, late=late.append)):
                got += [chunk]
        assert total(got) + sum(late, Usage()) == policy.total
    assert len(got) < 1000


@pytest.mark.parametrize("counts", [{"prompt_tokens": -1}, {"completion_tokens": 2**63}, {"prompt_tokens": 10**30}])
async def test_counts_that_cannot_be_are_damage(counts):
    async with FakeOpenAI("vllm") as server, Started(server) as policy:
        server.faults = [{"choices": [], "usage": counts}]
        with pytest.raises(BackendBadResponse, match="damaged"):
            await chunks_of(policy, asks(await policy.prompt(PROBLEM)))


async def test_a_search_survives_broken_streams():
    events = []
    async with FakeOpenAI() as server:
        server.faults = [None, {"error": "out of memory"}]
        policy = OpenAIPolicy(server.url, patience=2.0)
        async with Solver(policy, ScriptedPRM(lambda steps: 1 / len(steps))) as solver:
            result = await solver.solve(PROBLEM, Plan(strategy="beam", n=4, m=2), sinks=[events.append])
    failures = [event for event in events if isinstance(event, StepFailed)]
    assert result.answer == "7" and len(failures) == 2 and all(failure.retry for failure in failures)
    counts = result.finished.tokens.policy
    assert Usage(counts.prompt_computed, counts.prompt_cached, counts.completion) == policy.total


KEY = "sk-0123456789abcdefghij"


@pytest.mark.parametrize(
    "fault",
    [
        {
            "error": {
                "message": f"Incorrect API key provided: {KEY}. You can find your key at",
                "code": "invalid_api_key",
            }
        },
        {"error": {"message": f"Bearer {KEY} is not known", "code": 401}},
        {"object": "error", "message": f"no such key: {KEY}", "code": 500},
        {"error": f"too busy for {KEY}", "code": 429},
        {"error": [f"{KEY}"]},
        {"choices": [{"text": "", "finish_reason": f"key {KEY} is over its limit"}]},
        {"choices": [{"text": [KEY]}]},
    ],
)
async def test_a_server_that_repeats_the_key_in_a_stream_gets_it_into_no_recording(fault, tmp_path, monkeypatch):
    monkeypatch.setattr("tts_tui.backends.patience.OVERLOADS", 1)
    record, events = tmp_path / "run.jsonl", []
    async with FakeOpenAI(key=KEY, models=[f"a/model-{KEY}-7B"]) as server:
        server.faults = [fault] * 50
        policy = OpenAIPolicy(server.url, api_key=KEY, patience=0.1)
        async with Solver(policy, ScriptedPRM(lambda steps: 1 / len(steps))) as solver:
            result = await solver.solve(PROBLEM, Plan(strategy="beam", n=2, m=2), record=record, sinks=[events.append])
        assert {body["model"] for body in server.asked} == {f"a/model-{KEY}-7B"}
    assert result.reason == "failed" and [event for event in events if isinstance(event, StepFailed)]
    assert KEY not in record.read_text() + result.finished.detail + policy.info.name + repr(events)
    assert policy.info.parameters == 7_000_000_000


async def test_a_server_that_lists_the_key_as_a_model_is_told_without_it():
    async with FakeOpenAI(key=KEY, models=[f"one-{KEY}", f"two-{KEY}"]) as server:
        error = await refused(server, api_key=KEY)
    assert isinstance(error, UsageError) and KEY not in str(error) and "one-***" in str(error)


async def test_silence():
    async with FakeOpenAI() as server, Started(server, stall=0.2) as policy:
        server.pace = 5.0
        with pytest.raises(BackendTimeout):
            await chunks_of(policy, asks(await policy.prompt(PROBLEM)))


@pytest.mark.parametrize("kind", ["sglang", "vllm", "llama.cpp"])
async def test_a_path_that_does_not_fit(kind):
    async with FakeOpenAI(kind, context=100) as server, Started(server) as policy:
        prompt = await policy.prompt("x " * 50)
        with pytest.raises(ContextExceeded, match="no longer fits the server's context"):
            await chunks_of(policy, asks(prompt, pack("y " * 60)))
        size = len(tokens(unpack(prompt.ids)))
        chunks = await chunks_of(policy, asks(prompt, pack("y " * (90 - size)), rollout=True))
        assert chunks[-1].finish == ("eos" if kind == "llama.cpp" else "length")


async def test_nothing_to_go_on_from():
    async with FakeOpenAI() as server, Started(server) as policy:
        with pytest.raises(BackendError, match="there is nothing to go on from"):
            await chunks_of(policy, StepRequest((), Sampling(), 5))


async def test_an_answer_without_an_end_is_no_answer():
    async with FakeOpenAI("vllm") as server, Started(server) as policy:
        events = server.events
        server.events = lambda body: (
            event | {"choices": [choice | {"finish_reason": None} for choice in event["choices"]]}
            for event in events(body)
        )
        with pytest.raises(BackendBadResponse, match="without saying why"):
            await chunks_of(policy, asks(await policy.prompt(PROBLEM), rollout=True))


@pytest.mark.parametrize("stop", [{"matched_stop": 2}, {"stop_reason": 2}, {"matched_stop": None, "stop_reason": None}])
async def test_the_token_of_the_end_and_empty_reasons_are_no_failures(stop):
    async with FakeOpenAI("vllm") as server, Started(server) as policy:
        events = server.events
        server.events = lambda body: (
            event
            | {"choices": [choice | stop | {"finish_reason": choice["finish_reason"] or ""} for choice in choices]}
            for event in events(body)
            for choices in [event["choices"]]
        )
        chunks = await chunks_of(policy, asks(await policy.prompt(PROBLEM), rollout=True))
    assert "".join(chunk.text for chunk in chunks) == SOLUTION and chunks[-1].finish == "eos"


# -- sampling ----------------------------------------------------------------------------------------------------------

NEUTRAL = {
    "temperature": 0.7,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "seed": 0,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
}


@pytest.mark.parametrize("kind", ["sglang", "vllm", "llama.cpp", "mlx"])
async def test_nothing_that_changes_a_draw_is_left_to_the_server(kind):
    off = {"top_k": 0} if kind == "mlx" else {}
    async with FakeOpenAI(kind) as server, Started(server) as policy:
        prompt = await policy.prompt(PROBLEM)
        await chunks_of(policy, asks(prompt))
        await chunks_of(policy, StepRequest(prompt.ids, Sampling(0.5, 0.9, 20), 5, seed=2**40 + 3))
    plain, other = ({name: body.get(name) for name in NEUTRAL} for body in server.asked)
    assert plain == NEUTRAL | off
    assert other == NEUTRAL | {"temperature": 0.5, "top_p": 0.9, "top_k": 20, "seed": 3}
    assert not any("does not take" in note for note in policy.notes)


async def test_a_server_that_refuses_parameters_is_asked_without_them_and_users_are_told():
    async with FakeOpenAI("hosted") as server, Started(server) as policy:
        prompt = await policy.prompt(PROBLEM)
        await chunks_of(policy, asks(prompt, seed=5))
        (body,) = server.asked
        assert body.keys() == OPENAI
        assert [body[name] for name in ("temperature", "top_p", "seed", "presence_penalty")] == [0.7, 1.0, 5, 0.0]
        (note,) = [note for note in policy.notes if "does not take" in note]
        assert all(name in note for name in ("top_k", "min_p", "repetition_penalty", "skip_special_tokens"))
        assert not any(name in note for name in ("presence_penalty", "seed", "temperature"))
        with pytest.raises(RequestRefused, match="does not take top_k") as raised:
            await chunks_of(policy, StepRequest(prompt.ids, Sampling(top_k=20), 5))
        assert not raised.value.retryable and len(server.asked) == 1


async def test_a_plan_that_needs_what_the_server_refuses_fails_with_a_sentence():
    plan, prm = Plan(n=2, m=1, sampling=Sampling(top_k=20)), ScriptedPRM(lambda steps: 0.5)
    async with FakeOpenAI("hosted") as server, Solver(OpenAIPolicy(server.url), prm) as solver:
        result = await solver.solve(PROBLEM, plan)
    assert result.reason == "failed" and "does not take top_k" in result.finished.detail


async def test_a_server_that_is_overloaded_while_it_is_tried_is_given_time():
    async with FakeOpenAI("hosted") as server:
        busy, complete = [web.json_response({}, status=429, headers={"Retry-After": "0"})], server.complete

        async def busy_once(request, body):
            return busy.pop() if busy else await complete(request, body)

        server.complete = busy_once
        async with Started(server) as policy:
            assert "does not take top_k" in " ".join(policy.notes)
        assert not busy


# -- servers that continue nothing -------------------------------------------------------------------------------------


async def test_ollama_is_refused_and_users_are_told_what_to_do():
    async with FakeOpenAI("ollama") as server:
        error = await refused(server)
        assert isinstance(error, WrongServer)
        assert "is Ollama" in str(error) and "llama-server" in str(error) and "hf:" in str(error)
        assert server.asked == []


@pytest.mark.parametrize(
    "answers",
    [
        {"/api/version": lambda: web.json_response({"version": "3.1.0"})},  # LocalAI
        {"/": lambda: web.Response(text="Ollama is running")},
        {"/api/version": lambda: web.json_response({"error": "Unexpected endpoint or method."})},  # LM Studio
        {"/api/version": lambda: web.Response(text="<html>", content_type="text/html")},
    ],
)
async def test_what_only_resembles_ollama_is_not_refused(answers):
    async with FakeOpenAI("llama.cpp") as server:
        server.answers = answers
        async with Started(server) as policy:
            assert await chunks_of(policy, asks(await policy.prompt(PROBLEM)))


@pytest.mark.parametrize("kind", ["vllm", "llama.cpp", "hosted"])
async def test_a_server_that_puts_texts_into_a_template_is_refused(kind):
    async with FakeOpenAI(kind, wraps=9) as server:  # as much as the shortest usual one
        error = await refused(server)
        assert isinstance(error, WrongServer) and "read 10 tokens where one word was sent" in str(error)
    async with FakeOpenAI(kind, wraps=2) as server, Started(server) as policy:  # marks of the beginning
        assert await chunks_of(policy, asks(await policy.prompt(PROBLEM)))


# -- a real server -----------------------------------------------------------------------------------------------------


@pytest.mark.sglang
@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", ["best-of-n", "beam"])
async def test_searches_on_a_real_server(smollm2_server, strategy):
    events = []
    policy = OpenAIPolicy(f"{smollm2_server.url}/v1")
    plan = Plan(strategy=strategy, n=4, m=2, step_tokens=48, total_tokens=400, max_depth=5)
    async with Solver(policy, ScriptedPRM(lambda steps: 1 / len(steps))) as solver:
        start = unpack((await policy.prompt(PROBLEM)).ids)
        result = await solver.solve(PROBLEM, plan, sinks=[events.append])
    steps = [event for event in events if isinstance(event, StepFinished)]
    assert result.reason == "solved" and result.answer
    assert "<|im_start|>" in start and start.endswith("<|im_start|>assistant\n")
    assert len({step.text for step in steps}) >= 2
    assert all(unpack(step.ids) == step.text for step in steps)
    assert not [event for event in events if isinstance(event, StepFailed)]
    counts = result.finished.tokens.policy
    assert Usage(counts.prompt_computed, counts.prompt_cached, counts.completion) == policy.total
    assert policy.total.completion > 0 and policy.dispatch.running == 0
    assert policy.notes == (
        f"{smollm2_server.url} does not say what it had cached: all prompt tokens count as computed",
    )


@pytest.mark.sglang
@pytest.mark.timeout(600)
async def test_counts_and_prompts_are_those_of_the_same_server_asked_by_ids(smollm2_server):
    from tts_tui.backends.sglang import SGLangPolicy

    byids, bytext = SGLangPolicy(smollm2_server.url), OpenAIPolicy(smollm2_server.url)
    try:
        await byids.start()
        await bytext.start()
        got = []
        for policy in (byids, bytext):
            prompt = await policy.prompt(PROBLEM)
            request = StepRequest(prompt.ids, Sampling(temperature=0.0), 60, rollout=True)
            chunks = await chunks_of(policy, request)
            cost = total(chunks)
            got.append(
                ("".join(chunk.text for chunk in chunks), cost.prompt_computed + cost.prompt_cached, cost.completion)
            )
        assert got[0] == got[1]
    finally:
        await byids.close()
        await bytext.close()
