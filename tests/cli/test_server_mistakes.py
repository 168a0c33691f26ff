"""A server that is not there, not what was meant, or not well: the real command says it in one sentence."""

from __future__ import annotations

import asyncio
import http.server
import os
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.fake_sglang import FakeSGLang
from tests.proxy import PAGE, Fault, Proxy
from tests.servers import Server, free_port
from tts_tui import load

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-key-to-find"


async def solve(url: str, *arguments: str, problem: str = "What is 3 + 4?", **environment: str):
    """Exit code, standard output and standard error of `tts-tui solve` with the policy at `url`."""
    call = ["solve", problem, "--policy", f"sglang:{url}", "--prm", "none", "--strategy", "majority", "-n", "2"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tts_tui", *call, "--display", "none", *arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def refused(code: int, sentence: str, url: str, *arguments: str, **settings: str) -> None:
    """Checks that the command ends with `code` and says `sentence`, and that alone."""
    got, out, err = await solve(url, *arguments, **settings)
    assert (got, out) == (code, "")
    assert err.startswith("tts-tui: ") and err.count("\n") == 1 and sentence in err


async def test_nothing_listens():
    await refused(3, "no server answers at http://127.0.0.1:", f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("url", ["nowhere", "127.0.0.1:30000", "ftp://host", "http://", "http://host:x"])
async def test_no_address(url):
    await refused(2, "write it as http://HOST:PORT", url)


async def test_a_user_and_password_in_the_address_are_not_repeated():
    code, _, err = await solve("http://me:a-key-to-find@host:1")
    assert code == 2 and KEY not in err and "put the key into TTS_TUI_API_KEY" in err


async def test_another_kind_of_server(tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            await refused(2, f"{url} answers, but is no SGLang server", url)
        finally:
            server.shutdown()
            thread.join()


async def test_no_http_at_all():
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await refused(2, "does not answer in HTTP", f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        (Fault(503), 3, "is overloaded or still loading"),
        (PAGE, 2, "answers with a web page: another program is behind that address, or a proxy in between"),
        (Fault(403, "<html>", kind="text/html"), 2, "wants an API key: set TTS_TUI_API_KEY"),
        (Fault(302, headers={"Location": "https://log.in/x"}), 2, "sends its callers to https://log.in"),
        (Fault(502), 3, "does not reach the server behind it"),
        (Fault(500), 3, "failed with status 500"),
        (Fault(200, "null"), 2, "is no SGLang server"),
        (Fault(200, "{half"), 3, "sent an answer that is damaged or no JSON"),
        (Fault(then="reset"), 3, "broke the connection off"),
    ],
)
async def test_a_proxy_or_a_server_that_is_not_well(fault, code, sentence):
    async with Proxy("http://127.0.0.1:1", always=fault) as proxy:
        await refused(code, sentence, proxy.url)


async def test_tls_to_a_port_without():
    async with FakeSGLang() as server:
        await refused(2, "does not speak TLS: write http:// if it has none", server.url.replace("http", "https"))


async def test_a_reward_model_is_no_policy():
    async with FakeSGLang(rewards=True) as server:
        await refused(2, "serves a/fake as a reward model, which writes nothing", server.url)


async def test_a_key_is_wanted():
    async with FakeSGLang(key=KEY) as server:
        await refused(2, "wants an API key: set TTS_TUI_API_KEY", server.url)
        await refused(2, "does not accept this API key", server.url, "--api-key", "wrong")
        code, out, err = await solve(server.url, TTS_TUI_API_KEY=KEY)
        assert (code, out, err) == (0, "7\n", "")


async def test_a_prompt_longer_than_the_context():
    async with FakeSGLang(server={"context_length": 300}) as server:
        await refused(2, "and the context of fake is 294: shorten the problem", server.url, problem="Why? " * 100)
        assert server.bodies("/generate") == []


async def test_a_context_that_is_full_in_mid_path_ends_with_what_there_is(tmp_path):
    record = tmp_path / "run.jsonl"
    async with FakeSGLang("on and on " * 500, server={"context_length": 1000}) as server:
        code, out, err = await solve(server.url, "--record", str(record))
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert {node.finish for node in load(record).nodes[1:]} == {"length"}


async def test_a_temperature_below_zero():
    async with FakeSGLang() as server:
        await refused(2, "temperature", server.url, "--temperature", "-1")
        assert server.bodies("/generate") == []


@pytest.mark.parametrize("debug", ["", "1"])
async def test_a_server_that_dies_for_good_and_the_key_is_nowhere(tmp_path, debug, monkeypatch):
    record = tmp_path / "run.jsonl"
    secret = {"TTS_TUI_API_KEY": KEY, "TTS_TUI_DEBUG": debug}
    async with FakeSGLang(key=KEY) as server, Proxy(server.url) as proxy:
        proxy.forever = Fault(500, '{"error": "the key a-key-to-find may not"}')
        code, out, err = await solve(proxy.url, "--record", str(record), "--display", "json", **secret)
        assert code == 3
        assert "failed with status 500: the key *** may not" in out
        assert KEY not in out + err + record.read_text()
        proxy.always = Fault(500, '{"error": "the key a-key-to-find may not"}')
        code, out, err = await solve(proxy.url, **secret)
        assert code == 3 and "the key *** may not" in err and KEY not in out + err
        assert ("Traceback" in err) == bool(debug)


# -- a real server -----------------------------------------------------------------------------------------------------


@pytest.mark.sglang
@pytest.mark.timeout(600)
async def test_the_real_server_refuses_the_same(tiny_server: Server, tmp_path):
    await refused(2, "and the context of", tiny_server.url, problem="Why? " * 3000)
    await refused(2, "temperature", tiny_server.url, "--temperature", "-1")
    await refused(2, "does not speak TLS", tiny_server.url.replace("http", "https"))
    record = tmp_path / "run.jsonl"
    code, _, err = await solve(tiny_server.url, "--record", str(record), "--total-tokens", "4000")
    assert code in (0, 1) and "Traceback" not in err
    tree = load(record)
    context = tree.start.policy.context
    assert all(len(tree.start.prompt_ids) + len(node.path_ids) <= context for node in tree.nodes)
