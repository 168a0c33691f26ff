"""Whatever a network or a server does, a search ends, says in one sentence what happened, and counts right."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from time import monotonic

import pytest
from aiohttp import web

from tests.fake_sglang import FakeSGLang
from tests.proxy import PAGE, Fault, Proxy
from tests.scripted import ScriptedPRM
from tests.servers import Server, free_port
from tts_tui import Budget, Plan, Sampling, Solver, StepRequest, Usage, load
from tts_tui.backends.remote.http import Http
from tts_tui.backends.remote.replies import Generated, Model
from tts_tui.backends.sglang.policy import SGLangPolicy
from tts_tui.backends.sglang.stream import SSEPayload
from tts_tui.errors import BackendBadResponse, BackendError, SolverClosed, WrongServer
from tts_tui.tree.events import StepFailed

BAD_JSON = Fault(200, '{"hello": 1}')
NO_EVENT = Fault(200, 'data: {"hello": 1}\n\n', kind="text/event-stream")
BROKEN = "broke the connection off"

FAULTS = {
    "late": (Fault(wait=0.3), None),
    "reset at once": (Fault(then="reset"), BROKEN),
    "reset in mid-stream": (Fault(then="reset", after=5), BROKEN),
    "ended early": (Fault(then="end", after=5), "ended its answer in the middle"),
    "damaged": (Fault(then="damage", after=5), "sent an event that is damaged"),
    "silent": (Fault(then="hang"), "has sent nothing for 1 s: see its log, or stop and restart it"),
    "silent in mid-stream": (Fault(then="hang", after=5), "has sent nothing for 1 s"),
    "500": (Fault(500, '{"error": {"message": "out of memory"}}'), "failed with status 500: out of memory"),
    "502 with a page": (Fault(502, "<html>", kind="text/html"), "does not reach the server behind it"),
    "503": (Fault(503), None),
    "503 with a time": (Fault(503, headers={"Retry-After": "0.1"}), None),
    "429": (Fault(429, headers={"Retry-After": "0"}), None),
    "a page": (PAGE, "answers with a web page: another program is behind that address, or a proxy in between"),
    "other JSON": (BAD_JSON, "sent an answer that is damaged or no JSON"),
    "other events": (NO_EVENT, "failed: without a reason"),
}
FOR_GOOD = ("a page",)
"""What is not tried again."""


class Searched:
    """A search behind a proxy, and what it left behind."""

    def __init__(self, strategy: str, **settings) -> None:
        self.plan = Plan(strategy=strategy, n=4, m=2, **settings)
        self.events = []

    @property
    def failures(self) -> list[StepFailed]:
        return [event for event in self.events if isinstance(event, StepFailed)]

    async def run(self, url: str, problem: str = "What is 3 + 4?", *, record=None, **settings):
        """Runs it to its end, and checks what must hold whatever happens."""
        policy = SGLangPolicy(url, **{"stall": 30.0, "patience": 2.0, **settings})
        prm = ScriptedPRM(lambda steps: 1 / len(steps))
        async with Solver(policy, prm) as solver:
            result = await solver.solve(problem, self.plan, record=record, sinks=[self.events.append])
        counts = result.finished.tokens.policy
        assert Usage(counts.prompt_computed, counts.prompt_cached, counts.completion) == policy.total
        assert policy.dispatch.running == 0
        await until(lambda: not left_over())
        for failure in self.failures:
            assert "\n" not in failure.error and "Traceback" not in failure.error
        return result


def left_over() -> list[str]:
    """Tasks of the package: those of a test and its servers are not."""
    names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
    return [name for name in names if not name.startswith(("RequestHandler.", "Searched.", "test_"))]


async def until(true, seconds: float = 5.0) -> None:
    end = monotonic() + seconds
    while not true():
        assert monotonic() < end, f"it never came: {left_over()}"
        await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    """Waits as short as tests want them."""
    monkeypatch.setattr("tts_tui.search.search.BACKOFF", 0.01)
    monkeypatch.setattr("tts_tui.backends.remote.dispatcher.FIRST_WAIT", 0.05)


@pytest.mark.parametrize("strategy", ["best-of-n", "beam"])
@pytest.mark.parametrize("name", FAULTS)
async def test_a_search_survives(strategy, name):
    fault, sentence = FAULTS[name]
    search = Searched(strategy)
    async with FakeSGLang() as server, Proxy(server.url, None, fault, fault) as proxy:
        result = await search.run(proxy.url, stall=1.0 if "silent" in name else 30.0)
        await until(lambda: server.running == proxy.open == 0)
    assert (result.reason, result.answer) == ("solved", "7")
    assert len(search.failures) == (0 if sentence is None else 2)
    for failure in search.failures:
        assert sentence in failure.error
        assert failure.retry == (name not in FOR_GOOD)


async def test_an_overload_is_no_failure_and_is_waited_for_once():
    search = Searched("best-of-n")
    overload = Fault(503, headers={"Retry-After": "0.2"})
    async with FakeSGLang() as server, Proxy(server.url, None, overload, overload, overload) as proxy:
        began = monotonic()
        await search.run(proxy.url)
        assert proxy.count == 4 + 3
        assert len(server.bodies("/generate")) == 4
        assert monotonic() - began >= 0.2


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault(then="reset", after=5), BROKEN),
        (Fault(500), "failed with status 500"),
        (Fault(503), "is overloaded or still loading"),
        (Fault(400, '{"error": {"message": "no"}}'), "refused the request: no"),
        (PAGE, "answers with a web page"),
    ],
)
async def test_a_server_that_does_nothing_right_ends_the_search_as_failed(fault, sentence, monkeypatch):
    monkeypatch.setattr("tts_tui.backends.remote.dispatcher.LONGEST_WAIT", 0.05)
    monkeypatch.setattr("tts_tui.backends.remote.retry.OVERLOADS", 2)
    search = Searched("best-of-n")
    async with FakeSGLang() as server, Proxy(server.url) as proxy:
        proxy.forever = fault
        result = await search.run(proxy.url)
    assert result.reason == "failed"
    assert sentence in result.finished.detail
    assert result.answer is None


async def test_a_server_that_comes_back_is_waited_for():
    search = Searched("beam")
    async with FakeSGLang() as server, Proxy(server.url, None, None, Fault(then="die", after=3)) as proxy:

        async def come_back():
            await until(lambda: proxy.always)
            await asyncio.sleep(0.3)
            proxy.come_back()

        result, _ = await asyncio.gather(search.run(proxy.url, patience=30.0), come_back())
    assert (result.reason, result.answer) == ("solved", "7")
    assert all(BROKEN in failure.error and failure.retry for failure in search.failures)


async def test_a_server_that_stays_dead_ends_the_search_and_it_can_be_resumed(tmp_path):
    record = tmp_path / "run.jsonl"
    search = Searched("best-of-n")
    async with FakeSGLang() as server:
        server.pace = 0.005
        async with Proxy(server.url, Fault(then="die", after=30)) as proxy:
            result = await search.run(proxy.url, record=record, patience=0.2)
        assert (result.reason, result.answer) == ("failed", None)
        assert BROKEN in result.finished.detail
        whole = [node.text for node in load(record).nodes[1:] if node.state == "done"]
        assert set(whole) == {"Step 1: 3 + 4 = 7\n\n"}
        asked = len(server.bodies("/generate"))
        async with Solver(SGLangPolicy(server.url), ScriptedPRM(lambda steps: 0.5)) as solver:
            resumed = await solver.resume(record)
        # What was whole is not asked for again: those requests go on behind it.
        longer = [
            body
            for body in server.bodies("/generate")[asked:]
            if len(body["input_ids"]) > len(resumed.tree.start.prompt_ids)
        ]
        assert len(longer) == len(whole)
    assert (resumed.reason, resumed.answer) == ("solved", "7")
    firsts = [node.text for node in load(record).nodes if node.depth == 1 and node.state == "done"]
    assert firsts == ["Step 1: 3 + 4 = 7\n\n"] * 4


async def test_a_search_that_is_cancelled_leaves_nothing_running():
    async with FakeSGLang() as server:
        server.pace = 0.02
        search = Searched("best-of-n")
        task = asyncio.create_task(search.run(server.url))
        await until(lambda: server.running == 4)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert left_over() == []
        await until(lambda: server.running == 0)
        assert len(server.aborted) == 4


async def test_a_solver_that_is_closed_leaves_nothing_running_on_the_server():
    async with FakeSGLang() as server:
        server.pace = 0.02
        async with Solver(SGLangPolicy(server.url), None) as solver:
            search = asyncio.create_task(solver.solve("What is 3 + 4?", solver.plan("majority", n=4)))
            await until(lambda: server.running == 4)
        with pytest.raises(SolverClosed):
            await search
        assert left_over() == []
        await until(lambda: server.running == 0)
        assert len(server.aborted) == 4


async def test_a_path_that_fills_the_context_ends_there():
    context = len("P") + 1000
    async with FakeSGLang("So it goes on, " * 200, server={"context_length": context}) as server:
        search = Searched("best-of-n", step_tokens=64)
        result = await search.run(server.url, messages=lambda problem: [{"role": "user", "content": "P"}])
    assert (result.reason, result.answer) == ("unsolved", None)
    assert "0 solutions" not in result.finished.detail
    assert {
        len(body["input_ids"]) + body["sampling_params"]["max_new_tokens"] for body in server.bodies("/generate")
    } == {context - 6}


# -- token ids that are none -------------------------------------------------------------------------------------------


class Damaging(FakeSGLang):
    """Sends a number that is no token id in place of the third token of some streams.

    Args:
        number: The number.
        streams: How many streams are damaged, those that come first.
    """

    def __init__(self, number, streams: int, **settings) -> None:
        super().__init__(**settings)
        self.number, self.streams = number, streams

    async def _events(self, body):
        damaged = bool(body.get("stream")) and self.streams > 0
        self.streams -= damaged
        async for event in super()._events(body):
            if damaged and event["meta_info"]["completion_tokens"] == 3:
                event["output_ids"][-1] = self.number
            yield event


@pytest.mark.parametrize("number", [-1, 2**31, 2**63, 2**80])
@pytest.mark.parametrize("incremental", [True, False])
@pytest.mark.parametrize("strategy", ["best-of-n", "beam", "dvts", "auto"])
async def test_an_event_with_a_number_that_is_no_token_id_is_tried_again(strategy, incremental, number, tmp_path):
    search, record = Searched(strategy), tmp_path / "run.jsonl"
    async with Damaging(number, 2, incremental=incremental) as server:
        result = await search.run(server.url, record=record)
    assert (result.reason, result.answer) == ("solved", "7")
    assert len(search.failures) == 2 and all(failure.retry for failure in search.failures)
    tree = load(record)
    assert not [node for node in tree.nodes if node.state == "writing"]
    assert all(token >= 0 for node in tree.nodes for token in node.ids or ())


async def test_an_id_outside_the_vocabulary_is_never_sent_back(tmp_path):
    (tmp_path / "config.json").write_text('{"vocab_size": 70000}')
    search = Searched("beam")
    async with Damaging(70000, 2, model={"model_path": str(tmp_path)}) as server:
        result = await search.run(server.url)
        assert all(max(body["input_ids"]) < 70000 for body in server.bodies("/generate"))
    assert (result.reason, result.answer, len(search.failures)) == ("solved", "7", 2)


@pytest.mark.parametrize("number", [-1, 2**31])
async def test_a_prompt_with_a_number_that_is_no_token_id_is_a_bad_response(number):
    async def answer(request):
        return web.json_response({"tokens": [1, number], "max_model_len": 4096})

    async with FakeSGLang() as server:
        policy = SGLangPolicy(server.url)
        await policy.start()
        server.answers["/tokenize"] = answer
        for ask in (policy.prompt, policy.encode):
            with pytest.raises(BackendBadResponse):
                await ask("What is 3 + 4?")
        await policy.close()


# -- tokens that were read and are in no chunk -------------------------------------------------------------------------


class Bursts(FakeSGLang):
    """Sends all that it writes in two events, so that steps end inside of an event."""

    async def _events(self, body):
        events = [event async for event in super()._events(body)]
        for event in (events[len(events) // 2], events[-1]):
            yield event


def whole(late, prompt):
    return StepRequest(prompt.ids, Sampling(), max_tokens=200, rollout=True, late=late.append)


async def refuse_to_detokenize(request):
    return web.Response(status=500)


async def test_tokens_that_cannot_be_cut_into_steps_count(monkeypatch):
    search = Searched("best-of-n")
    async with Bursts(incremental=False) as server:
        server.answers["/detokenize"] = refuse_to_detokenize
        result = await search.run(server.url)  # which compares the counts
    assert result.reason == "failed" and len(search.failures) == 4 * 3
    assert result.tree.counts.completion > 0


@pytest.mark.parametrize("failing", [True, False])
async def test_a_stream_that_is_left_between_two_chunks_of_an_event_tells_of_the_others(failing):
    late, got = [], []
    async with Bursts(incremental=False) as server:
        policy = SGLangPolicy(server.url)
        await policy.start()
        async with aclosing(policy.stream(whole(late, await policy.prompt("What is 3 + 4?")))) as chunks:
            async for chunk in chunks:
                got.append(chunk.usage)
                if not failing:
                    break
                server.answers["/detokenize"] = refuse_to_detokenize
                with pytest.raises(BackendError):
                    while True:
                        got.append((await anext(chunks)).usage)
        await policy.close()
    assert len(late) == 1 and late[0].completion > 0
    assert sum(got, Usage()) + late[0] == policy.total


async def test_a_stream_that_is_cancelled_while_an_event_is_cut_tells_of_its_tokens():
    late, asked = [], asyncio.Event()

    async def never(request):
        asked.set()
        await asyncio.Event().wait()

    async with Bursts(incremental=False) as server:
        server.answers["/detokenize"] = never
        policy = SGLangPolicy(server.url)
        await policy.start()
        stream = policy.stream(whole(late, await policy.prompt("What is 3 + 4?")))
        task = asyncio.create_task(anext(stream))
        await asked.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await policy.close()
    assert late == [policy.total] and policy.total.completion > 0


# -- what is said of a failure -----------------------------------------------------------------------------------------

KEY = "a-key-to-find"


@pytest.mark.parametrize(
    ("fault", "kind", "sentence"),
    [
        (Fault(401), WrongServer, "does not accept this API key"),
        (Fault(403), WrongServer, "does not accept this API key"),
        (Fault(400, '{"error": "the key a-key-to-find may not"}'), BackendError, "the key *** may not"),
        (Fault(500, '{"error": "the key a-key-to-find may not"}'), BackendError, "the key *** may not"),
        (Fault(302, headers={"Location": "https://log.in/?key=a-key-to-find"}), WrongServer, "to https://log.in: name"),
        (Fault(302, headers={"Location": "/login"}), WrongServer, "sends its callers elsewhere"),
        (PAGE, WrongServer, "a proxy in between"),
        (Fault(407, "<html>", kind="text/html"), WrongServer, "a proxy in between"),
        (Fault(504), BackendError, "does not reach the server behind it"),
        (Fault(then="reset"), BackendError, BROKEN),
    ],
)
@pytest.mark.parametrize("way", ["get", "post", "events"])
async def test_no_sentence_holds_the_key(fault, kind, sentence, way):
    http = Http("http://127.0.0.1:1", api_key=KEY)
    async with Proxy("http://127.0.0.1:1", always=fault) as proxy:
        http.url = proxy.url
        await http.open()
        try:
            with pytest.raises(kind) as raised:
                if way == "events":
                    async for _ in http.events("/generate", {}, SSEPayload):
                        pass
                else:
                    await (http.get("/model_info", Model) if way == "get" else http.post("/generate", {}, Generated))
        finally:
            await http.close()
    said = str(raised.value)
    assert sentence in said and KEY not in said and "\n" not in said


def saying(value, status: int = 200):
    async def answer(request):
        return web.json_response(value, status=status)

    return answer


@pytest.mark.parametrize(
    "finish",
    [
        {"type": "abort", "message": f"no quota for {KEY}"},
        {"type": KEY},
        {"type": "abort", "message": {"key": KEY}},
    ],
)
async def test_what_a_stream_says_of_its_end_holds_no_key(finish, tmp_path):
    class Aborting(FakeSGLang):
        async def _events(self, body):
            async for event in super()._events(body):
                yield {**event, "meta_info": {**event["meta_info"], "finish_reason": finish}}
                return

    record, search = tmp_path / "run.jsonl", Searched("beam")
    async with Aborting(key=KEY, model={"model_path": f"a/{KEY}", "tokenizer_path": f"/{KEY}"}) as server:
        result = await search.run(server.url, record=record, api_key=KEY, patience=0.1)
    assert result.reason == "failed" and search.failures
    assert KEY not in record.read_text() + result.finished.detail


@pytest.mark.parametrize("reply", [{"tokens": [KEY]}, {"tokens": KEY}, {"max_model_len": KEY, "tokens": [1]}, KEY])
@pytest.mark.parametrize("where", ["/tokenize", "/model_info", "/server_info", "/workers", "/v1/loads"])
async def test_no_reply_at_the_start_tells_the_key(where, reply):
    async with FakeSGLang() as server:
        server.answers[where] = saying(reply)
        policy = SGLangPolicy(server.url, api_key=KEY)
        try:
            await policy.start()
            assert KEY not in repr((policy.info, policy.version, policy.notes))
        except BackendError as error:
            assert KEY not in str(error) and error.__cause__ is None
        finally:
            await policy.close()


async def test_a_redirection_takes_the_key_nowhere():
    async with FakeSGLang() as elsewhere, Proxy("", always=Fault(307, headers={"Location": elsewhere.url})) as proxy:
        policy = SGLangPolicy(proxy.url, api_key=KEY)
        with pytest.raises(WrongServer, match="sends its callers to http://127"):
            await policy.start()
        await policy.close()
        assert elsewhere.asked == []


# -- real servers ------------------------------------------------------------------------------------------------------

SHORT = {"step_tokens": 40, "total_tokens": 200}
REAL = ["reset at once", "reset in mid-stream", "ended early", "damaged", "503 with a time", "a page"]
"""Those in which the server itself has a part."""


def idle(server: Server) -> bool:
    return sum(load["num_running_reqs"] for load in server.ask("/v1/loads")["loads"]) == 0


@pytest.mark.sglang
@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", ["best-of-n", "beam"])
@pytest.mark.parametrize("name", REAL)
async def test_a_search_on_a_real_server_survives(strategy, name, tiny_server: Server):
    fault, sentence = FAULTS[name]
    search = Searched(strategy, **SHORT)
    async with Proxy(tiny_server.url, None, fault, fault) as proxy:
        result = await search.run(proxy.url)
    # Its model is a random one: it writes to the limit, and mostly answers nothing. Where it does not, a step that was
    # given up for good may be why.
    assert result.answer is not None or result.reason == ("failed" if name in FOR_GOOD else "unsolved")
    assert len(result.tree.solutions) + len([node for node in result.tree.nodes if node.finish == "length"]) >= 2
    assert len(search.failures) == (0 if sentence is None else 2)
    assert all(sentence in failure.error for failure in search.failures)
    await until(lambda: idle(tiny_server))


@pytest.mark.sglang
@pytest.mark.timeout(600)
async def test_a_search_on_a_real_server_that_is_ended_leaves_it_idle(tiny_server: Server):
    search = Searched("best-of-n", budget=Budget(tokens=600))
    result = await search.run(tiny_server.url)
    assert result.reason == "budget"
    await until(lambda: idle(tiny_server))


@pytest.mark.sglang
@pytest.mark.timeout(900)
async def test_a_real_server_that_is_killed_and_comes_back(tiny_model):
    port = free_port()
    servers = [await asyncio.to_thread(Server.start, tiny_model, port=port)]
    search = Searched("best-of-n", total_tokens=1500)
    try:

        async def kill_and_start():
            await until(lambda: len(search.events) > 100, 60)
            await asyncio.to_thread(servers[0].kill)
            servers.append(await asyncio.to_thread(Server.start, tiny_model, port=port))

        result, _ = await asyncio.gather(search.run(servers[0].url, patience=600.0), kill_and_start())
        assert result.reason in ("unsolved", "solved")
        assert search.failures and all(failure.retry for failure in search.failures)
        assert not [node for node in result.tree.nodes if node.state == "writing"]
        await until(lambda: idle(servers[1]))
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)
