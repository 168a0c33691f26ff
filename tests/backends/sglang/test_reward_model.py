"""A PRM on a server that is imitated: what is asked, how often, and what is made of the answers."""

from __future__ import annotations

import asyncio
import math
import random
import traceback
from functools import cache

import pytest
from aiohttp import web

from tests import real_tokenizers
from tests.backends.sglang.test_faults import until
from tests.fake_sglang import FakeSGLang
from tests.proxy import Fault, Proxy
from tts_tui.backends.prm.tokenizer import PRMTokenizer
from tts_tui.backends.sglang.reward_model import SGLangPRM
from tts_tui.backends.sglang.server import NEUTRAL
from tts_tui.errors import (
    BackendBadResponse,
    BackendError,
    BackendUnavailable,
    ContextExceeded,
    UsageError,
    WrongServer,
)
from tts_tui.protocols import Prompt, ScoreRequest

pytestmark = pytest.mark.tokenizers

QUESTION = "How many are 3 pens and 4 pens?"
PLUS, MINUS = 648, 387
MATH_SHEPHERD = {"architectures": ["MistralForCausalLM"], "model_path": "a/math-shepherd-mistral-7b-prm"}
TRL = {"architectures": ["Qwen2ForTokenClassification"], "model_path": "a/model", "is_generation": False}


class FakePRM(FakeSGLang):
    """With real ids; as a real server, it has in its cache what it has answered, not what it is still computing.

    Attributes:
        together: Most requests at once.
        headers: Of all requests for scores.
        hold: If set, answers wait for it.
    """

    def __init__(self, model, **settings):
        self.tokenizer = real_tokenizers.load("mistral")
        folder = str(real_tokenizers.folder("mistral"))
        server = {"max_req_input_len": 4090, "context_length": None} | settings.pop("server", {})
        super().__init__(model={"tokenizer_path": folder, **model}, server=server, **settings)
        self.rewards = model.get("is_generation") is False
        self.logits = lambda ids: [math.log(0.2 + 0.6 * random.Random(hash(ids)).random()) - 3, -3.0]
        self.together, self.headers, self.hold = 0, [], None

    def asked_ids(self):
        """Ids of all requests for scores, the one at the start left out."""
        found = [body.get("input_ids") or body["input"] for path, body in self.asked if path in SCORES]
        return [tuple(ids) for ids in found][1:]

    async def on_detokenize(self, request, body):
        return web.json_response({"text": [self.tokenizer.decode(ids) for ids in body["tokens"]]})

    async def on_v1_embeddings(self, request, body):
        return await self._slowly(request, tuple(body["input"]), super().on_v1_embeddings(request, body))

    async def on_generate(self, request, body):
        return await self._slowly(request, tuple(body["input_ids"]), super().on_generate(request, body))

    async def _slowly(self, request, ids, answer):
        self.headers.append(dict(request.headers))
        self.running += 1
        self.together = max(self.together, self.running)
        try:
            reply = await answer
            self._kept.remove(ids)
            if self.hold is not None:
                await self.hold.wait()
            await asyncio.sleep(0.002)
            self._kept.append(ids)
        finally:
            self.running -= 1
        return reply


load = cache(PRMTokenizer.load)


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch):
    monkeypatch.setattr(PRMTokenizer, "load", load)


SCORES = ("/generate", "/v1/embeddings")


def request(steps, question=QUESTION):
    return ScoreRequest(Prompt(question, (0,)), tuple(steps), ((0,),) * len(steps))


def path(length, seed=0):
    made = random.Random(seed)
    return [" ".join(str(made.randrange(1000)) for _ in range(made.randint(2, 9))) for _ in range(length)]


@pytest.fixture(params=[MATH_SHEPHERD, TRL], ids=["tokens", "head"])
async def server(request):
    async with FakePRM(request.param) as fake:
        yield fake


@pytest.fixture
async def prm(server):
    model = SGLangPRM(server.url, patience=2.0)
    await model.start()
    yield model
    await model.close()


# -- what is asked, and what is made of it -----------------------------------------------------------------------------


async def test_a_language_model_is_asked_for_two_tokens_and_samples_none():
    async with FakePRM(MATH_SHEPHERD) as server:
        server.logits = lambda ids: [-1.0, -2.0]
        prm = SGLangPRM(server.url)
        await prm.start()
        (score,) = await prm.score([request(["3 + 4 = 7."])])
        await prm.close()
        body = server.bodies("/generate")[-1]
    assert body.pop("input_ids")[-1] == 12902
    assert body == {
        "sampling_params": {**NEUTRAL, "max_new_tokens": 0, "temperature": 1.0},
        "return_logprob": True,
        "logprob_start_len": -1,
        "token_ids_logprob": [PLUS, MINUS],
    }
    assert score.score == pytest.approx(1 / (1 + math.exp(-1.0)))
    assert (prm.info.name, prm.info.family, prm.profile) == ("math-shepherd-mistral-7b-prm",) + ("math-shepherd",) * 2
    assert prm.info.parameters == 7e9 and prm.info.context == 4089


@pytest.mark.parametrize(
    ("model", "logits", "expected"),
    [
        (TRL, [1.0, 3.0], 1 / (1 + math.exp(-2.0))),
        ({**TRL, "architectures": ["Qwen2ForPrmModel"], "model_path": "a/skywork"}, [2.0], 1 / (1 + math.exp(-2.0))),
    ],
)
async def test_logits_of_a_head_are_turned_into_a_score_here(model, logits, expected):
    async with FakePRM(model) as server:
        server.logits = lambda ids: logits
        prm = SGLangPRM(server.url, name="trl" if len(logits) == 2 else None)
        if len(logits) == 1:  # its layout needs ids that this tokenizer has not
            with pytest.raises(BackendUnavailable, match="has another vocabulary than this PRM"):
                await prm.start()
        else:
            await prm.start()
            assert (await prm.score([request(["7"])]))[0].score == pytest.approx(expected)
        await prm.close()


async def test_a_server_that_does_not_tell_what_it_had_counts_as_having_had_nothing():
    async def answer(request):
        ids = (await request.json())["input"]
        return web.json_response({"data": [{"embedding": [0.5, 1.5]}], "usage": {"prompt_tokens": len(ids)}})

    async with FakePRM(TRL) as server:
        server.answers["/v1/embeddings"] = answer
        prm = SGLangPRM(server.url)
        await prm.start()
        (score,) = await prm.score([request(["3 + 4 = 7."])])
        assert score.computed > 10 and score.cached == 0
        await prm.close()


async def test_a_step_more_computes_that_step_alone(prm):
    steps, before = path(9), 0
    for end in range(1, 10):
        (score,) = await prm.score([request(steps[:end])])
        assert score.cached >= before - 1
        before = score.computed + score.cached


async def test_siblings_that_come_together_compute_the_question_once(prm, server):
    question = QUESTION * 20
    got = await prm.score([request([step], question) for step in path(16)])
    shared = min(score.computed + score.cached for score in got)
    assert sum(score.computed for score in got) < shared + 16 * 50
    assert len({score.score for score in got}) == 16 and server.together > 4


async def test_children_of_a_path_that_only_another_server_has_seen_compute_it_once(prm, server):
    steps = path(40)
    await prm.score([request(["7"])])
    got = await prm.score([request([*steps, str(i)]) for i in range(8)])
    shared = got[0].computed + got[0].cached
    assert sum(score.computed for score in got) < shared + 8 * 60


async def test_all_steps_of_a_path_in_any_order_compute_it_once(prm):
    steps = path(12)
    ends = list(range(1, 13))
    random.Random(1).shuffle(ends)
    got = await prm.score([request(steps[:end]) for end in ends])
    whole = max(score.computed + score.cached for score in got)
    assert sum(score.computed for score in got) <= whole + 12


async def test_what_was_scored_is_not_sent_again(prm, server):
    one, other = request(["7"]), request(["8"])
    first, second, third = await prm.score([one, other, one])
    assert len(server.asked_ids()) == 2
    assert (first.score, 0) == (third.score, third.computed) and third.cached == first.computed + first.cached
    again = await prm.score([other, one])
    assert [score.score for score in again] == [second.score, first.score]
    assert sum(score.computed for score in again) == 0 and len(server.asked_ids()) == 2


async def test_a_path_that_is_too_long_is_shown_in_part_even_if_its_steps_are_all_alike(prm, server):
    steps = ["and so on, " * 30] * 60
    async with asyncio.timeout(30):
        got = await prm.score([request(steps[:end]) for end in range(60, 0, -1)])
    assert got[0].unseen > got[-1].unseen == 0
    assert max(map(len, server.asked_ids())) <= prm.info.context
    with pytest.raises(ContextExceeded, match="the question leaves no room"):
        await prm.score([request(["7"], "why " * 5000)])


async def test_a_question_goes_to_one_worker(server):
    async def workers(request):
        return web.json_response({"workers": [{"url": server.url}, {"url": "http://127.0.0.1:1"}]})

    server.answers["/workers"] = workers
    async with Proxy(server.url) as router:
        router.path = "/generate" if not server.rewards else "/v1/embeddings"
        prm = SGLangPRM(router.url, patience=0.0)
        await prm.start()
        await prm.score([request([str(i)], q) for i in range(3) for q in (QUESTION, "another " * 40)])
        keys = [headers["X-SMG-Routing-Key"] for headers in server.headers][1:]
        assert len(keys) == 6 and len(set(keys)) == 2 and all(key.isalnum() for key in keys)
        router.faults = [Fault(then="reset")]
        with pytest.raises(BackendUnavailable):
            await prm.score([request(["a step"])])
        await prm.score([request(["a step"])])
        assert server.headers[-1]["X-SMG-Routing-Key"] not in keys  # another worker may do better
        await prm.close()


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def generated(rows=None, read=None):
    async def answer(request):
        read_ids = len((await request.json())["input_ids"]) if read is None else read
        meta = {"prompt_tokens": read_ids, "cached_tokens": 0, "output_token_ids_logprobs": rows}
        return web.json_response({"text": "", "meta_info": meta})

    return answer


def embedded(embedding, read=None):
    async def answer(request):
        read_ids = len((await request.json())["input"]) if read is None else read
        return web.json_response({"data": [{"embedding": embedding}], "usage": {"prompt_tokens": read_ids}})

    return answer


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (MATH_SHEPHERD, generated(None)),
        (MATH_SHEPHERD, generated([])),
        (MATH_SHEPHERD, generated([[[-1.0, PLUS, None]]])),
        (MATH_SHEPHERD, generated([[[None, PLUS, None], [-1.0, MINUS, None]]])),
        (MATH_SHEPHERD, generated([[[10**400, PLUS, None], [-1.0, MINUS, None]]])),
        (MATH_SHEPHERD, generated([[[-1.0, 1, None], [-1.0, 2, None]]])),
        (MATH_SHEPHERD, generated([[[-1.0, PLUS, None], [-1.0, MINUS, None]]], read=3)),
        (TRL, embedded([])),
        (TRL, embedded([1.0])),
        (TRL, embedded([None, 1.0])),
        (TRL, embedded([10**400, 1.0])),
        (TRL, embedded(["1", "2"])),
        (TRL, embedded([0.1] * 64)),
        (TRL, embedded([0.1, 0.2, 0.3])),
        (TRL, embedded([0.1, 0.2, 0.0])),
        (TRL, embedded([0.1, 0.2], read=3)),
        (TRL, embedded(7)),
    ],
)
async def test_no_score_is_ever_made_up(model, answer):
    async with FakePRM(model) as server:
        prm = SGLangPRM(server.url)
        await prm.start()
        for where in SCORES:
            server.answers[where] = answer
        with pytest.raises(BackendBadResponse, match="gave no score for a step"):
            await prm.score([request(["7"])])
        server.answers.clear()
        assert await prm.score([request(["7"])])
        await prm.close()
        with pytest.raises(WrongServer, match=r"does not answer as .* does"):
            server.answers = dict.fromkeys(SCORES, answer)
            await prm.start()
        await prm.close()


@pytest.mark.parametrize("model", [MATH_SHEPHERD, TRL])
@pytest.mark.parametrize("status", [200, 400, 500])
async def test_a_reply_that_repeats_the_key_is_told_without_it(model, status):
    key = "sk-0123456789abcdefghij"
    counts = {"prompt_tokens": key, "output_token_ids_logprobs": [[[key, key, key]]]}
    reply = {"error": {"message": f"no such key: {key}"}, "data": [{"embedding": [key]}], "meta_info": counts}

    async def answer(request):
        return web.json_response(reply, status=status)

    async with FakePRM(model, key=key) as server:
        prm = SGLangPRM(server.url, api_key=key)
        await prm.start()
        server.answers = dict.fromkeys(SCORES, answer)
        with pytest.raises(BackendError) as raised:
            await prm.score([request(["7"])])
        await prm.close()
    assert key not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("model", "name", "error", "sentence"),
    [
        ({**MATH_SHEPHERD, "is_generation": False}, None, WrongServer, "as a model that embeds, and Math-Shepherd"),
        ({**TRL, "is_generation": True}, None, WrongServer, "as a language model, and .* has a head of its own"),
        (
            {**TRL, "architectures": ["Qwen2ForProcessRewardModel"]},
            "trl",
            WrongServer,
            "leave the name out, or write @qwen",
        ),
        ({**TRL, "is_generation": True}, "math-shepherd", WrongServer, "a Qwen2ForTokenClassification, and Math-Sh"),
        ({"model_path": "a/policy", "architectures": ["Qwen2ForCausalLM"]}, "qwen", WrongServer, "tts-tui serve prm"),
        ({"model_path": "a/policy", "architectures": ["Qwen2ForCausalLM"]}, None, UsageError, "sglang:URL@"),
        ({**TRL, "tokenizer_path": "/not/here"}, None, WrongServer, "which is not on this machine: .*--prm-tokenizer"),
        ({**TRL, "tokenizer_path": "a/tokenizer"}, None, BackendUnavailable, "cannot be loaded: .*--prm-tokenizer"),
    ],
)
async def test_a_server_of_something_else_is_refused_before_it_is_asked(model, name, error, sentence):
    async with FakePRM(model) as server:
        prm = SGLangPRM(server.url, name=name)
        with pytest.raises(error, match=sentence):
            await prm.start()
        await prm.close()
        assert not any(server.bodies(where) for where in SCORES)


async def test_the_tokenizer_can_be_named_and_must_be_the_right_one():
    async with FakePRM({**TRL, "tokenizer_path": "/not/here"}) as server:
        for name in ("mistral", "qwen"):
            prm = SGLangPRM(server.url, tokenizer=str(real_tokenizers.folder(name)))
            if name == "mistral":
                await prm.start()
                assert await prm.score([request(["7"])])
            else:
                server.tokenizer = real_tokenizers.load("mistral")
                with pytest.raises(WrongServer, match="is not that of a/model"):
                    await prm.start()
            await prm.close()


async def test_a_server_that_is_gone_is_waited_for(server):
    async with Proxy(server.url) as proxy:
        prm = SGLangPRM(proxy.url, patience=30.0)
        await prm.start()
        proxy.die()
        with pytest.raises(BackendUnavailable):
            await prm.score([request(["7"])])
        later = asyncio.create_task(prm.score([request(["7"])]))
        await asyncio.sleep(0.05)
        assert not later.done()
        proxy.come_back()
        assert len(await later) == 1
        await prm.close()


async def test_what_could_be_scored_is_kept_when_something_could_not(prm, server):
    async def answer(request):
        body = await request.json()
        ids = body.get("input_ids") or body["input"]
        return web.Response(status=500) if "999" in server.tokenizer.decode(ids) else None

    for where in SCORES:
        server.answers[where] = answer
    steps = [request([step]) for step in ("1", "2", "999", "3")]
    with pytest.raises(BackendError, match="status 500") as caught:
        await prm.score(steps)
    kept = caught.value.scores
    assert [score is None for score in kept] == [False, False, True, False]
    server.answers.clear()
    count = len(server.asked_ids())
    scores = await prm.score(steps)
    assert len(server.asked_ids()) == count + 1
    # What was told with the failure costs nothing a second time.
    assert [score.computed == 0 for score in scores] == [True, True, False, True]
    assert all(one.computed > 0 and one.score == other.score for one, other in zip(kept, scores, strict=True) if one)


async def test_whoever_asks_first_is_told_what_a_score_has_cost(prm, server):
    server.hold = asyncio.Event()
    callers = [asyncio.create_task(prm.score([request(["7"])])) for _ in range(3)]
    await until(lambda: server.running)
    callers[0].cancel()
    await asyncio.gather(callers[0], return_exceptions=True)
    server.hold.set()
    told = [(await caller)[0] for caller in callers[1:]] + await prm.score([request(["7"])])
    assert len(server.asked_ids()) == 1
    assert [score.computed > 0 for score in told] == [True, False, False]
    assert len({score.computed + score.cached for score in told}) == 1


async def test_what_a_score_has_cost_is_told_to_the_next_caller_when_the_first_has_left(prm, server):
    left = asyncio.Event()
    steps = [request(["7"]), request(["8"])]

    async def answer(incoming):
        body = await incoming.json()
        if "8" in server.tokenizer.decode(body.get("input_ids") or body["input"])[-5:]:
            await left.wait()
        return None

    for where in SCORES:
        server.answers[where] = answer
    caller = asyncio.create_task(prm.score(steps))
    await until(lambda: prm._known)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    left.set()
    assert (await prm.score(steps[:1]))[0].computed > 0
    assert (await prm.score(steps[:1]))[0].computed == 0


async def test_an_overloaded_server_is_given_time(prm, server):
    left = [2]

    async def busy(request):
        left[0] -= 1
        return web.Response(status=503, headers={"Retry-After": "0.01"}) if left[0] >= 0 else None

    for where in SCORES:
        server.answers[where] = busy
    assert len(await prm.score([request(["7"])])) == 1


async def test_whoever_leaves_ends_what_nobody_else_waits_for(prm, server):
    server.hold = asyncio.Event()
    mine = asyncio.create_task(prm.score([request([str(i)]) for i in range(6)]))
    both = asyncio.create_task(prm.score([request(["0"])]))
    await until(lambda: server.running)
    mine.cancel()
    await asyncio.gather(mine, return_exceptions=True)
    server.hold.set()
    assert len(await both) == 1
    await until(lambda: not server.running)
    assert len(server.asked_ids()) == 1  # the first one goes ahead, and the others were ended before they went


async def test_closing_ends_all(prm, server):
    server.hold = asyncio.Event()
    scoring = asyncio.create_task(prm.score([request(["7"]), request(["8"])]))
    await until(lambda: server.running)
    await prm.close()
    with pytest.raises(BackendError, match="was closed while it scored"):
        await scoring
    await until(lambda: not server.running)
