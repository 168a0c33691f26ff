"""`serve-ui`: a real server, a real WebSocket, and a tiny app in a real process behind it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import HTTPBadRequest

from tts_tui.cli.main import run
from tts_tui.errors import UsageError
from tts_tui.ui import web
from tts_tui.ui.web import BrowserServer, is_local

APP = """
import os, sys
from pathlib import Path
from textual.app import App
from textual.widgets import Static

class Tiny(App):
    def compose(self):
        yield Static("hello from " + " ".join(sys.argv[1:]), markup=False)
        yield Static("runs in " + os.environ.get("TTS_TUI_RUNS", "nowhere") + " .", markup=False)

    def on_mount(self):
        Path(sys.argv[0] + ".pid").write_text(str(os.getpid()))

    def on_key(self, event):
        self.query_one(Static).update("pressed " + event.key)
        if event.key == "q":
            self.exit()

Tiny().run()
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "tiny app.py"
    path.write_text(APP)
    return path


@asynccontextmanager
async def served(command: list[str], **settings: Any) -> AsyncIterator[tuple[BrowserServer, str]]:
    """A server of `command` and its address."""
    server = BrowserServer(command, "127.0.0.1", 0, **settings)
    address = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(server.run(address.set_result))
    try:
        await asyncio.wait({running, address}, return_when=asyncio.FIRST_COMPLETED)
        yield server, address.result()
    finally:
        server.end()
        await running


async def seen(line: aiohttp.ClientWebSocketResponse, text: str) -> str:
    """All that came until `text` was drawn."""
    drawn = b""
    async with asyncio.timeout(30):
        async for message in line:
            if message.type is aiohttp.WSMsgType.BINARY:
                drawn += message.data
            if text.encode() in drawn:
                return drawn.decode("utf-8", "replace")
    raise AssertionError(f"{text!r} was never drawn: {drawn[-500:]!r}")


async def ended(line: aiohttp.ClientWebSocketResponse) -> None:
    """Returns when the server has closed the line."""
    async with asyncio.timeout(30):
        async for _ in line:
            pass


def alive(app: Path) -> bool:
    try:
        os.kill(int(Path(f"{app}.pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


# -- the page ----------------------------------------------------------------------------------------------------------


async def test_the_page_names_no_other_machine_and_works_under_the_name_that_was_asked():
    async with served(["false"]) as (_, url), aiohttp.ClientSession() as client:
        port = url.rpartition(":")[2]
        async with client.get(url, headers={"Host": f"localhost:{port}"}) as reply:
            page = await reply.text()
        assert reply.status == 200
        assert f'data-session-websocket-url="ws://localhost:{port}/ws"' in page
        assert set(re.findall(r"(?:https?|wss?)://[^\"'/:\s]+", page)) == {"ws://localhost"}
        assert "default-src 'self'" in reply.headers["Content-Security-Policy"]


async def test_everything_that_the_page_refers_to_is_there():
    async with served(["false"]) as (_, url), aiohttp.ClientSession() as client:
        async with client.get(url) as reply:
            page = await reply.text()
        files = set(re.findall(r"static/[\w./-]+", page))
        assert {Path(file).suffix for file in files} == {".css", ".js", ".ttf"}
        for file in files:
            async with client.get(f"{url}/{file}") as reply:
                assert reply.status == 200, file


async def test_behind_a_proxy_that_encrypts_the_line_is_encrypted_too():
    named = {"Host": "a.example", "X-Forwarded-Proto": "https"}
    async with served(["false"]) as (_, url), aiohttp.ClientSession(headers=named) as client, client.get(url) as reply:
        assert 'data-session-websocket-url="wss://a.example/ws"' in await reply.text()


async def test_what_a_visitor_sends_does_not_become_part_of_the_page():
    async with served(["false"]) as (server, _):
        page = (
            await server.handle_index(make_mocked_request("GET", "/?fontsize=%22%3E%3C", headers={"Host": "x"}))
        ).text
        assert 'data-font-size="16"' in page
        for host in ('x"><script>', "x; script-src *", ""):
            with pytest.raises(HTTPBadRequest):
                await server.handle_index(make_mocked_request("GET", "/", headers={"Host": host}))


# -- sessions ----------------------------------------------------------------------------------------------------------


async def test_a_visitor_sees_the_app_and_its_keys_reach_it(app):
    async with served([sys.executable, str(app), "it's; $HOME"]) as (server, url), aiohttp.ClientSession() as client:
        async with client.ws_connect(f"{url}/ws?width=60&height=10", origin=url) as line:
            await seen(line, "hello from it's; $HOME")
            await line.send_json(["stdin", "z"])
            await seen(line, "pressed z")
            (session,) = server.sessions.values()
            await line.send_json(["stdin", "q"])
            await ended(line)
        await session._process.wait()
        assert session._process.returncode == 0


async def test_each_visitor_has_a_session_of_their_own(app):
    async with served([sys.executable, str(app)]) as (server, url), aiohttp.ClientSession() as client:
        one, two = await client.ws_connect(f"{url}/ws"), await client.ws_connect(f"{url}/ws")
        await asyncio.gather(seen(one, "hello"), seen(two, "hello"))
        assert len(server.sessions) == 2
        await one.send_json(["stdin", "a"])
        await two.send_json(["stdin", "b"])
        await asyncio.gather(seen(one, "pressed a"), seen(two, "pressed b"))


async def test_a_session_ends_with_its_visitor(app):
    async with served([sys.executable, str(app)]) as (server, url):
        async with aiohttp.ClientSession() as client, client.ws_connect(f"{url}/ws") as line:
            await seen(line, "hello")
            (session,) = server.sessions.values()
        await session._process.wait()
        assert not alive(app)


async def test_a_session_ends_with_the_server(app):
    async with aiohttp.ClientSession() as client:
        async with served([sys.executable, str(app)]) as (_, url):
            line = await client.ws_connect(f"{url}/ws")
            await seen(line, "hello")
        await ended(line)
        await line.close()
    assert not alive(app)


async def test_a_session_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "PATIENCE", 0.05)
    deaf = r"import time; print('__GANGLION__\nD\0\0\0\2hi', end='', flush=True); time.sleep(1000)"
    async with aiohttp.ClientSession() as client:
        async with served([sys.executable, "-c", deaf]) as (server, url):
            line = await client.ws_connect(f"{url}/ws")
            await seen(line, "hi")
            (session,) = server.sessions.values()
        await ended(line)
        await line.close()
    assert session._process.returncode == -signal.SIGKILL


async def test_an_app_that_cannot_start_ends_its_session_and_its_words_are_told(capsys):
    refused = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    async with served(refused) as (_, url), aiohttp.ClientSession() as client:
        await ended(await client.ws_connect(f"{url}/ws"))
    assert "no such model" in capsys.readouterr().out


@pytest.mark.parametrize("message", ["no json", "{}", "[]", '["stdin"]', '["resize", 7]', '["stdin", 7]'])
async def test_what_is_no_message_ends_the_session_and_not_the_server(app, message):
    async with served([sys.executable, str(app)]) as (_, url), aiohttp.ClientSession() as client:
        async with client.ws_connect(f"{url}/ws") as line:
            await seen(line, "hello")
            await line.send_str(message)
            await ended(line)
        async with client.get(url) as reply:
            assert reply.status == 200


async def test_when_every_place_is_taken_the_next_visitor_is_told_and_gets_the_first_that_is_free(app):
    async with served([sys.executable, str(app)], places=1) as (_, url), aiohttp.ClientSession() as client:
        async with client.ws_connect(f"{url}/ws") as line:
            await seen(line, "hello")
            async with client.get(url) as reply:
                page = await reply.text()
            assert (reply.status, int(reply.headers["Retry-After"]) > 0) == (503, True)
            assert "All 1 sessions" in page and 'http-equiv="refresh"' in page
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect(f"{url}/ws")
            assert refused.value.status == 503
            await line.send_json(["stdin", "q"])
            await ended(line)
        status = 503
        while status == 503:  # as the page does
            async with client.get(url) as reply:
                status = reply.status
        assert status == 200
        await seen(await client.ws_connect(f"{url}/ws"), "hello")


async def runs_of(client: aiohttp.ClientSession, url: str) -> str:
    """The folder of the recordings of a visitor who opens the page."""
    async with client.get(url) as reply:
        assert reply.status == 200
    async with client.ws_connect(f"{url}/ws?width=200&height=10", origin=url) as line:
        return re.search(r"runs in (\S+) \.", await seen(line, " .")).group(1)


def visitor() -> aiohttp.ClientSession:
    """A browser with cookies of its own."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


async def test_every_browser_has_recordings_of_its_own_and_finds_them_again(app, tmp_path, monkeypatch):
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path))
    async with served([sys.executable, str(app)]) as (_, url), visitor() as one, visitor() as two:
        first, again, other = await runs_of(one, url), await runs_of(one, url), await runs_of(two, url)
    assert first == again != other
    assert Path(first).parent == Path(other).parent == tmp_path / "runs" / "visitors"


async def test_a_visitor_cannot_name_a_folder(app, tmp_path, monkeypatch):
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path))
    for forged in ("..", "../../etc", "x" * 32, ""):
        async with served([sys.executable, str(app)]) as (_, url), aiohttp.ClientSession() as client:
            headers = {"Cookie": f"tts-tui-visitor={forged}"}
            async with client.ws_connect(f"{url}/ws?width=200&height=10", headers=headers) as line:
                folder = Path(re.search(r"runs in (\S+) \.", await seen(line, " .")).group(1))
        assert folder.parent == tmp_path / "runs" / "visitors" and re.fullmatch("[0-9a-f]{32}", folder.name)


async def test_recordings_are_shared_where_that_is_wished(app, monkeypatch):
    monkeypatch.delenv("TTS_TUI_RUNS", raising=False)
    async with served([sys.executable, str(app)], shared=True) as (_, url), visitor() as one:
        assert await runs_of(one, url) == "nowhere"


# -- who may open one --------------------------------------------------------------------------------------------------


async def test_a_page_of_another_site_may_not_open_a_session(app):
    async with served([sys.executable, str(app)]) as (server, url), aiohttp.ClientSession() as client:
        for origin in ("https://evil.example", "null", url.replace("127.0.0.1", "127.0.0.2")):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect(f"{url}/ws", origin=origin)
            assert refused.value.status == 403
        assert not server.sessions


async def test_a_foreign_name_that_points_to_this_machine_may_not_either(app):
    async with served([sys.executable, str(app)]) as (_, url), aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{url}/ws", origin="http://evil.example", headers={"Host": "evil.example"})
        assert refused.value.status == 403


async def test_a_proxy_may_pass_its_own_name_on(app):
    named = {"Host": "tts.example", "X-Forwarded-For": "10.0.0.1"}
    async with served([sys.executable, str(app)]) as (_, url), aiohttp.ClientSession(headers=named) as client:
        await seen(await client.ws_connect(f"{url}/ws", origin="https://tts.example"), "hello")


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("x.localhost", True),
     ("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.1", False), ("127.0.0.1.example", False), ("box", False)],
)  # fmt: skip
def test_only_this_machine_is_told_from_everyone(host, local):
    assert is_local(host) is local


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is in use: choose another with --port"):
            web.serve("127.0.0.1", port, [])


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("192.0.2.1", "no address of this machine"),
        ("no.such.host.invalid", "no such host"),
        ("a" * 300, "no such host"),
    ],
)
def test_a_host_that_is_not_ours_is_one_sentence(host, said):
    with pytest.raises(UsageError, match=said):
        web.serve(host, 0, [])


def test_a_warning_says_what_it_means_to_serve_everyone(capsys):
    with socket.create_server(("0.0.0.0", 0)) as taken, pytest.raises(UsageError):
        web.serve("0.0.0.0", taken.getsockname()[1], [])
    assert re.search(r"whoever can reach 0\.0\.0\.0 can run searches.*no password", capsys.readouterr().err)


def test_without_more_it_serves_this_program(monkeypatch):
    commands = []

    class Seen(BrowserServer):
        def __init__(self, command, host, port, **settings):
            super().__init__(command, host, port, **settings)
            commands.append((list(command), self.command))

        async def run(self, ready):
            ready("http://127.0.0.1:1")

    monkeypatch.setattr(web, "BrowserServer", Seen)
    assert web.serve("127.0.0.1", 8000, ["tui", "--prm", "a b"]) == 0
    ((words, line),) = commands
    assert words == [sys.executable, "-m", "tts_tui", "tui", "--prm", "a b"]
    assert line.endswith("-m tts_tui tui --prm 'a b'")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_server_and_sessions_without_a_traceback(app, kind):
    code = "import sys; from tts_tui.ui import web; sys.exit(web.serve('127.0.0.1', 0, ['x'], command=sys.argv[1:]))"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        sys.executable,
        str(app),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said = (await process.stderr.readline()).decode()
    url = re.search(r"^Serving on (http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)$", said)[1]
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{url}/ws") as line:
        await seen(line, "hello from x")
        process.send_signal(kind)
        await ended(line)
    out, errors = await process.communicate()
    assert (process.returncode, out, errors) == (0, b"", b"")
    assert not alive(app)


@pytest.mark.slow
async def test_sessions_end_with_a_server_that_is_killed(tmp_path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tts_tui", "serve-ui", "--port", str(free_port())),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TTS_TUI_HOME": str(tmp_path), "TTS_TUI_CONFIG": str(tmp_path / "none.toml")},
    )
    url = re.search(r"http://127\.0\.0\.1:\d+", (await process.stderr.readline()).decode())[0]
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{url}/ws") as line:
        await seen(line, "Problem")
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        watched = os.pidfd_open(int(child))
        ends = asyncio.Event()
        asyncio.get_running_loop().add_reader(watched, ends.set)
        process.kill()
        async with asyncio.timeout(30):
            await ends.wait()
        asyncio.get_running_loop().remove_reader(watched)
        os.close(watched)
    await process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_the_options_reach_the_server(monkeypatch):
    calls = []
    monkeypatch.setattr(web, "serve", lambda *given, **more: calls.append((given, more)) or 0)
    assert run(["serve-ui", "--max-sessions", "5", "--share-runs", "--", "--prm", "none"]) == 0
    assert run(["serve-ui"]) == 0
    (given, more), (_, usual) = calls
    assert given == ("127.0.0.1", 8000, ["tui", "--prm", "none"])
    assert more == {"places": 5, "shared": True} and usual == {"places": web.PLACES, "shared": False}
