"""The policy's state on a problem: from a server that shows it, and from no other; never one that is made up."""

from __future__ import annotations

import json
import math
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web

from tests.fake_sglang import FakeSGLang
from tests.proxy import Fault, Proxy
from tests.scripted import encode
from tts_tui import Usage
from tts_tui.backends.remote.http import Http
from tts_tui.backends.remote.replies import ServerSettings
from tts_tui.backends.sglang import hidden_states
from tts_tui.backends.sglang.hidden_states import another, common, shows_states
from tts_tui.backends.sglang.policy import SGLangPolicy
from tts_tui.errors import BackendBadResponse, BackendError, BackendUnavailable, ContextExceeded
from tts_tui.protocols import ExposesHiddenStates, Prompt, PromptEncoding

SHOWS = {"enable_return_hidden_states": True}
PROBLEM = "What is 3 + 4?"
BEFORE, BEHIND = "Please solve: ", " Thank you."


def chat(problem: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Be brief. "}, {"role": "user", "content": BEFORE + problem + BEHIND}]


def mean(text: str) -> tuple[float, ...]:
    """The state that the fake server's states come to over `text`."""
    total = [float(sum(encode(text))), float(len(text))]
    return tuple(value / math.hypot(*total) for value in total)


@asynccontextmanager
async def reader(server: dict | None = None, url: str = "", messages=chat):
    async with FakeSGLang(server=SHOWS if server is None else server) as fake:
        policy = SGLangPolicy(url or fake.url, messages=messages, patience=1.0)
        await policy.start()
        try:
            yield policy, fake
        finally:
            await policy.close()


async def test_the_state_is_the_mean_over_the_problem_and_what_stands_behind_it():
    async with reader() as (policy, fake):
        assert isinstance(policy, ExposesHiddenStates)
        prompt = await policy.prompt(f"  {PROBLEM}\n")
        reading = await policy.encode_prompt(prompt)
        assert reading.hidden_state == pytest.approx(mean(f"{PROBLEM}\n{BEHIND}"))
        before, asked = fake.bodies("/generate")
        assert before["input_ids"] == encode(f"Be brief. {BEFORE}  ")
        assert (before["sampling_params"]["max_new_tokens"], asked["sampling_params"]["max_new_tokens"]) == (0, 1)
        assert asked["logprob_start_len"] == len(before["input_ids"])
        assert reading.usage == policy.total
        assert (reading.usage.prompt_computed, reading.usage.completion) == (len(prompt.ids), 1)


async def test_asked_twice_it_is_the_same():
    async with reader() as (policy, _):
        prompt = await policy.prompt(PROBLEM)
        first, again = await policy.encode_prompt(prompt), await policy.encode_prompt(prompt)
        assert first.hidden_state == again.hidden_state
        assert again.usage.prompt_computed == 1 + len(PROBLEM + BEHIND)
        assert first.usage + again.usage == policy.total


async def test_a_long_problem_is_asked_for_in_pieces():
    async with reader() as (policy, fake):
        problem = "".join(f"{number} and " for number in range(80))
        prompt = await policy.prompt(problem)
        reading = await policy.encode_prompt(prompt)
        assert reading.hidden_state == pytest.approx(mean(problem + BEHIND))
        pieces = [body for body in fake.bodies("/generate") if body.get("return_hidden_states")]
        sizes = [len(body["input_ids"]) - body["logprob_start_len"] for body in pieces]
        assert max(sizes) == hidden_states.PIECE and sum(sizes) == len(problem + BEHIND)
        assert reading.usage.completion == len(pieces) > 2


@pytest.mark.parametrize(
    "server",
    [
        {},
        {"enable_return_hidden_states": False},
        {**SHOWS, "version": "0.5.9"},
        {**SHOWS, "version": ""},
        {**SHOWS, "speculative_algorithm": "EAGLE3"},
        {**SHOWS, "enable_return_aux_hidden_states": True},
    ],
)
async def test_a_server_that_shows_no_last_states_is_not_asked(server):
    async with reader(server) as (policy, fake):
        assert await policy.encode_prompt(await policy.prompt(PROBLEM)) == PromptEncoding()
        assert not fake.bodies("/generate")
        assert policy.total == Usage()


@pytest.mark.parametrize("version", ["0.5.23", "0.5.23.post1", "0.6.0rc1", "1.0"])
def test_newer_servers_that_were_started_to_show_them_are_asked(version):
    assert shows_states(
        Http("http://server").decode(msgspec.json.encode({**SHOWS, "version": version}), ServerSettings)
    )


@pytest.mark.parametrize(
    "states",
    [
        "no list",
        {"a": 1},
        [3.0, 4.0],
        [[0.5] * 60],
        [[[0.5], [0.5, 1.0]] * 30],
        [[[]] * 60],
        [[["a"]] * 60],
        [[[None]] * 60],
        [[[1e400]] * 60],
    ],
)
async def test_states_that_make_no_sense_are_refused_in_a_sentence(states):
    counts = {"prompt_tokens": 50, "cached_tokens": 20, "completion_tokens": 1}

    async def answer(request):
        text = json.dumps({"meta_info": {**counts, "hidden_states": states}}).replace("Infinity", "1e400")
        return web.Response(text=text, content_type="application/json")

    async with reader() as (policy, fake):
        fake.answers["/generate"] = answer
        with pytest.raises(BackendError) as caught:
            await policy.encode_prompt(await policy.prompt(PROBLEM))
        assert str(caught.value).startswith(fake.url) and "\n" not in str(caught.value)
        assert policy.dispatch.running == 0


async def test_states_that_grow_wider_from_piece_to_piece_are_refused():
    async with reader() as (policy, fake):
        fake.states = lambda ids: [[1.0] * (2 if len(ids) < 200 else 3)] * len(ids)
        with pytest.raises(BackendBadResponse, match="gave no hidden states for the problem"):
            await policy.encode_prompt(await policy.prompt("0 and 1 and " * 20))


async def test_states_of_nothing_but_zeros_stay_as_they_are():
    async with reader() as (policy, fake):
        fake.states = lambda ids: [[0.0, 0.0]] * len(ids)
        assert (await policy.encode_prompt(await policy.prompt(PROBLEM))).hidden_state == (0.0, 0.0)


@pytest.mark.parametrize("reply", [{"hello": 1}, [], 7, {"meta_info": {"prompt_tokens": "many"}}])
async def test_a_reply_of_another_kind_is_refused(reply):
    async def answer(request):
        return web.json_response(reply)

    async with reader() as (policy, fake):
        fake.answers["/generate"] = answer
        with pytest.raises(BackendBadResponse, match="gave no hidden states for the problem"):
            await policy.encode_prompt(await policy.prompt(PROBLEM))


@pytest.mark.parametrize("last", [Fault(500), Fault(200, '{"hello": 1}')])
async def test_a_reading_that_fails_midway_says_what_it_has_cost(last):
    async with FakeSGLang(server=SHOWS) as fake, Proxy(fake.url, None, None, last) as proxy:
        policy = SGLangPolicy(proxy.url, messages=chat)
        await policy.start()
        late = []
        with pytest.raises(BackendError):
            await policy.encode_prompt(await policy.prompt("0 and 1 and " * 40), late.append)
        await policy.close()
    assert proxy.count == 3
    assert late == [policy.total] != [Usage()]


async def test_a_piece_that_comes_incomplete_is_asked_for_again_and_given_up_in_the_end():
    cut = []
    async with reader() as (policy, fake):
        whole = fake.states

        def some(ids):
            cut.append(len(ids))
            return whole(ids) if len(cut) == 2 else whole(ids)[:-3]

        fake.states = some
        prompt = await policy.prompt(PROBLEM)
        assert (await policy.encode_prompt(prompt)).hidden_state == pytest.approx(mean(PROBLEM + BEHIND))
        assert len(cut) == 2
        given_up = await policy.encode_prompt(prompt)
        assert given_up.hidden_state == () and len(cut) == 2 + hidden_states.TRIES
        assert given_up.usage.completion == hidden_states.TRIES


async def test_a_server_that_was_started_anew_without_the_flag_has_no_state():
    async def refuse(request):
        if msgspec.json.decode(await request.read()).get("return_hidden_states"):
            return web.json_response({"error": {"message": "The server is not configured to"}}, status=400)
        return None

    async with reader() as (policy, fake):
        fake.answers["/generate"] = refuse
        reading = await policy.encode_prompt(await policy.prompt(PROBLEM))
        assert reading.hidden_state == () and reading.usage == policy.total
        assert reading.usage.prompt_computed > 0


async def test_an_overload_is_waited_for_and_a_server_that_is_gone_is_told():
    async with (
        FakeSGLang(server=SHOWS) as fake,
        Proxy(fake.url, Fault(503)) as proxy,
        reader(url=proxy.url) as (policy, _),
    ):
        prompt = await policy.prompt(PROBLEM)
        assert (await policy.encode_prompt(prompt)).hidden_state == pytest.approx(mean(PROBLEM + BEHIND))
        assert proxy.count == 1 + 2
        proxy.forever = Fault(then="reset")
        with pytest.raises(BackendUnavailable, match="broke the connection off"):
            await policy.encode_prompt(prompt)


async def test_what_is_no_prompt_or_leaves_no_room_is_refused_before_it_is_sent():
    async with reader() as (policy, fake):
        for ids in ((), (3, -1)):
            with pytest.raises(BackendError, match="there is nothing to go on from"):
                await policy.encode_prompt(Prompt(PROBLEM, ids))
        with pytest.raises(ContextExceeded):
            await policy.encode_prompt(Prompt(PROBLEM, (5,) * 5000))
        assert not fake.bodies("/generate")


@pytest.mark.parametrize("problem", ["", "said otherwise"])
async def test_a_problem_that_cannot_be_found_in_its_prompt_is_read_with_all_around_it(problem):
    def other(text):
        return [{"role": "user", "content": "Nothing of it."}]

    async with reader(messages=other) as (policy, _):
        assert (await policy.encode_prompt(await policy.prompt(problem))).hidden_state == pytest.approx(
            mean("Nothing of it.")
        )


@pytest.mark.parametrize("problem", ["0 + 0?", "A + B?", "What?", "\\frac{1}{2}", "é"])
def test_another_problem_begins_otherwise_and_stands_at_the_same_place(problem):
    asked = [{"role": "user", "content": problem}, *chat(problem)]
    changed = another(asked, f" {problem} ")
    assert changed[:2] == asked[:2]
    one, two = asked[2]["content"], changed[2]["content"]
    assert common(one, two) == len(BEFORE) and two.endswith(BEHIND)


def test_a_common_beginning_ends_with_the_shorter_one():
    assert (common([1, 2, 3], [1, 2]), common([1], [2]), common([], [1])) == (2, 0, 0)
