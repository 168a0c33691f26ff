"""`tts-tui doctor URL`: every thing that a server may lack is one finding, and nothing that is asked hurts it."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from tests.backends.openai.test_policy import FakeOpenAI
from tests.fake_sglang import FakeSGLang
from tests.servers import Server, make_tiny
from tts_tui.backends.remote.http import Http
from tts_tui.cli import main, server_doctor
from tts_tui.cli.doctor import ADVICE, BAD, OK
from tts_tui.cli.server_doctor import Checkup


async def findings(url: str, **settings):
    http = Http(url, stall=2.0, **settings)
    await http.open()
    try:
        return [finding async for finding in Checkup(http).findings()]
    finally:
        await http.close()


async def examined(**settings):
    """All findings on a fake server."""
    async with FakeSGLang(**settings) as server:
        return await findings(server.url)


def only(found, state):
    return [sentence for one, sentence in found if one == state]


async def test_a_server_that_has_everything_gives_no_word_of_blame():
    async with FakeSGLang() as server:
        found = await findings(server.url)
        assert server.running == 0
    assert {state for state, _ in found} == {OK}
    said = " | ".join(sentence for _, sentence in found)
    assert "language model a/fake" in said and "SGLang 0.5.23" in said and "context of 4,096 tokens" in said
    assert "reuses 63 of 64 tokens" in said and "up to 64 requests at once" in said
    assert "ends with a final event, and leaves 0 requests running" in said


@pytest.mark.parametrize(
    ("settings", "state", "sentence"),
    [
        ({"incremental": False}, ADVICE, "--incremental-streaming-output"),
        ({"cache": False}, BAD, "reuses 0 of 64 tokens: start it without --disable-radix-cache"),
        ({"server": {"version": "0.4.9.post2"}}, ADVICE, "SGLang 0.4.9.post2: tts-tui was made for 0.5 and newer"),
        ({"missing": ["/server_info"]}, ADVICE, "version of SGLang is unknown"),
        ({"missing": ["/metrics"]}, ADVICE, "--enable-metrics"),
        ({"missing": ["/v1/loads"]}, OK, "number of running requests is unknown"),
        ({"missing": ["/abort_request"]}, ADVICE, "takes no aborts"),
        ({"server": {"max_total_num_tokens": 1000}}, ADVICE, "its cache has room for 1,000 tokens only"),
        ({"server": {"page_size": 16}}, ADVICE, "whole pages of 16 only"),
        ({"server": {"max_running_requests": None}}, ADVICE, "number of running requests is unknown"),
        ({"model": {"model_path": None, "is_generation": None}}, OK, "language model None"),
    ],
)
async def test_what_is_missing_is_one_finding(settings, state, sentence):
    found = await examined(**settings)
    assert len([one for one in only(found, state) if sentence in one]) == 1
    assert len(only(found, BAD)) == (state == BAD)


@pytest.mark.parametrize(
    ("path", "reply", "state", "sentence"),
    [
        ("/generate", {"text": "x", "output_ids": [1], "meta_info": {}}, BAD, "makes no sense"),
        ("/tokenize", {"tokens": []}, BAD, "makes no sense"),
        ("/tokenize", [1, 2], BAD, "makes no sense"),
        ("/model_info", {"hello": 1}, BAD, "is no SGLang server"),
        ("/server_info", ["what"], ADVICE, "version of SGLang is unknown"),
        ("/v1/loads", {"loads": 3}, OK, "number of running requests is unknown"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_a_finding(path, reply, state, sentence):
    async def answer(request):
        return web.json_response(reply)

    async with FakeSGLang() as server:
        server.answers[path] = answer
        found = await findings(server.url)
    assert any(sentence in one for one in only(found, state))


async def test_ollama_is_told_from_a_server_that_could_be_used():
    async with FakeOpenAI("ollama") as server:
        found = await findings(server.url)
    assert [state for state, _ in found] == [BAD]
    assert "is Ollama" in found[0][1] and "llama-server" in found[0][1]


async def test_no_chat_template():
    async def answer(request):
        if b"messages" in await request.read():
            return web.json_response({"error": {"message": "cannot use chat template"}}, status=400)

    async with FakeSGLang() as server:
        server.answers["/tokenize"] = answer
        (bad,) = only(await findings(server.url), BAD)
    assert "no chat template that can be used" in bad and "--chat-template" in bad


async def test_no_log_probabilities():
    async def answer(request):
        if b"return_logprob" in await request.read():
            return web.json_response({"text": "x", "output_ids": [1], "meta_info": {"prompt_tokens": 3}})

    async with FakeSGLang() as server:
        server.answers["/generate"] = answer
        found = await findings(server.url)
    assert only(found, ADVICE) == [
        "it returns no log probabilities of tokens: it can serve a policy, but not a reward model"
    ]


async def test_a_stream_that_no_abort_ends(monkeypatch):
    monkeypatch.setattr(server_doctor, "END_SECONDS", 0.2)

    async def answer(request):
        return web.Response()

    async with FakeSGLang() as server:
        server.answers["/abort_request"] = answer
        server.pace = 0.01
        (bad,) = only(await findings(server.url), BAD)
    assert "goes on 0.2 s after its abort" in bad


async def test_a_reward_model_is_asked_for_a_score_and_never_for_a_text():
    async with FakeSGLang(rewards=True) as server:
        found = await findings(server.url)
        assert server.bodies("/generate") == []
        assert server.bodies("/v1/embeddings")
    assert only(found, BAD) == only(found, ADVICE) == []
    assert "a reward model server: it returns numbers for a text" in only(found, OK)


async def test_a_reward_model_that_only_the_server_info_betrays():
    async with FakeSGLang(rewards=True, model={"is_generation": None}, server={"is_embedding": True}) as server:
        found = await findings(server.url)
        assert server.bodies("/generate") == []
    assert only(found, BAD) == []


@pytest.mark.parametrize(
    ("embedding", "sentence"),
    [
        ([0.1] * 64, "returns 64 numbers"),
        ([float("nan")], "is damaged"),
        ([], "returns 0 numbers"),
        (["x"], "makes no sense"),
    ],
)
async def test_a_score_that_is_none(embedding, sentence):
    async def answer(request):
        return web.json_response({"data": [{"embedding": embedding}]})

    async with FakeSGLang(rewards=True) as server:
        server.answers["/v1/embeddings"] = answer
        (bad,) = only(await findings(server.url), BAD)
    assert sentence in bad


@pytest.mark.parametrize(
    ("workers", "state", "sentence"),
    [
        ([{"is_healthy": True}, {"is_healthy": False}], OK, "a router with 2 workers, 1 of them healthy"),
        ([], BAD, "a router with 0 workers"),
    ],
)
async def test_a_router_tells_its_workers(workers, state, sentence):
    async def answer(request):
        return web.json_response({"workers": workers})

    async with FakeSGLang(missing=["/server_info"]) as server:
        server.answers["/workers"] = answer
        found = await findings(server.url)
        keys = {body.get("rid") for body in server.bodies("/generate")}
    assert any(sentence in one for one in only(found, state))
    assert any("through the router" in one for one in only(found, ADVICE))
    assert keys


async def test_the_workers_of_a_router_are_asked_for_the_chat_template():
    async def answer(request):
        return web.json_response({"workers": [{"url": worker.url, "is_healthy": True}]})

    async with FakeSGLang() as worker, FakeSGLang(missing=["/tokenize"]) as server:
        server.answers["/workers"] = answer
        found = await findings(server.url)
    assert any("a chat template" in one for one in only(found, OK))


async def test_a_server_that_dies_in_the_middle_ends_the_checks():
    server = FakeSGLang()

    async def die(request):
        request.transport.abort()
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(server.stop()))
        await asyncio.sleep(0.05)

    async with server:
        server.answers["/tokenize"] = die
        found = await findings(server.url)
    assert [state for state, _ in found[-2:]] == [BAD, BAD]
    assert "the check of chat template failed" in found[-2][1] and "stopped answering" in found[-1][1]


async def test_a_server_that_hangs_in_one_check_is_checked_on():
    async def hang(request):
        await asyncio.sleep(60)

    async with FakeSGLang() as server:
        server.answers["/metrics"] = hang
        found = await findings(server.url)
    (bad,) = only(found, BAD)
    assert "the check of metrics failed" in bad and "has sent nothing for 2 s" in bad
    assert any("reuses 63 of 64" in one for one in only(found, OK))


# -- the command -------------------------------------------------------------------------------------------------------


async def command(capsys, *arguments):
    code = await asyncio.to_thread(main.run, ["doctor", *arguments])
    return code, *capsys.readouterr()


async def test_the_command_ends_with_what_it_all_means(capsys):
    async with FakeSGLang() as server:
        code, out, err = await command(capsys, server.url)
    last = out.splitlines()[-1]
    assert (code, err) == (0, "")
    assert last == f"This server can run tts-tui's searches: tts-tui solve --policy sglang:{server.url} ..."
    async with FakeSGLang(rewards=True) as server:
        code, out, _ = await command(capsys, server.url)
    assert code == 0 and out.endswith("This server can score the steps of tts-tui's searches.\n")
    async with FakeSGLang(cache=False) as server:
        code, out, _ = await command(capsys, server.url)
    assert code == 3 and out.splitlines()[-1].startswith("Fix the problem above")


async def test_the_key_is_sent_and_not_shown(capsys, monkeypatch):
    async with FakeSGLang(key="a-key-to-find") as server:
        code, out, _ = await command(capsys, server.url)
        assert code == 3 and "wants an API key: set TTS_TUI_API_KEY" in out
        code, out, _ = await command(capsys, server.url, "--api-key", "wrong-key")
        assert code == 3 and "does not accept this API key" in out and "wrong-key" not in out
        monkeypatch.setenv("TTS_TUI_API_KEY", "a-key-to-find")
        code, out, err = await command(capsys, server.url)
    assert code == 0 and "a-key-to-find" not in out + err


@pytest.mark.parametrize("rewards", [True, False])
async def test_a_server_that_says_the_key_wherever_it_can_is_told_of_without_it(rewards, capsys):
    key = "sk-0123456789abcdefghij"
    model = {"model_path": f"a/{key}", "architectures": [key], "model_type": key}
    async with FakeSGLang(
        rewards=rewards, key=key, model=model, server={"version": f"0.5.{key}", "dtype": key}
    ) as server:
        replies = (
            (key, 200),
            ({"tokens": [key], "meta_info": key, "workers": [{"url": key}]}, 200),
            ({"error": key}, 500),
        )
        for reply, status in replies:

            async def answer(request, reply=reply, status=status):
                return web.json_response(reply, status=status)

            for paths in (["/workers"], ["/tokenize"], ["/generate", "/v1/embeddings"]):
                server.answers = dict.fromkeys(paths, answer)
                code, out, err = await command(capsys, server.url, "--api-key", key)
                assert key not in out + err and "Traceback" not in err and code in (0, 3)


def test_mistakes_are_one_sentence(capsys):
    assert main.run(["doctor", "nowhere"]) == 2
    assert capsys.readouterr().err == "tts-tui: 'nowhere' is no address of a server: write it as http://HOST:PORT\n"
    assert main.run(["doctor", "http://127.0.0.1:1"]) == 3
    assert "missing  no server answers at http://127.0.0.1:1" in capsys.readouterr().out


# -- real servers ------------------------------------------------------------------------------------------------------


@pytest.mark.sglang
@pytest.mark.timeout(600)
async def test_a_real_server_of_ours_lacks_nothing(smollm2_server: Server):
    found = await findings(smollm2_server.url)
    assert {state for state, _ in found} == {OK}
    said = " | ".join(sentence for _, sentence in found)
    assert "reuses 63 of 64 tokens" in said and "leaves 0 requests running" in said and "log probabilities" in said


@pytest.mark.sglang
@pytest.mark.timeout(600)
async def test_a_real_reward_model_lives_on(sglang_python, tmp_path):
    model = make_tiny(tmp_path / "reward", "LlamaForSequenceClassification", num_labels=1)
    with Server.start(model, kind="prm", api_key="a-key-to-find") as server:
        for _ in range(2):
            found = await findings(server.url, api_key="a-key-to-find")
            assert only(found, BAD) == []
            assert "a reward model server: it returns numbers for a text" in only(found, OK)
        assert server.running


async def test_a_stream_that_is_over_before_its_abort_blames_nobody():
    async def nothing(request):
        return web.Response()

    async with FakeSGLang() as server:
        server.answers["/abort_request"] = nothing
        found = await findings(server.url)
    assert not only(found, BAD)
    assert any("finished before its abort" in one for one in only(found, ADVICE))
