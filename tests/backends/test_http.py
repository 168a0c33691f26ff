"""An HTTP client that no reply can hold: broken framing, replies without an end, events without one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from tests.proxy import Fault, Proxy
from tts_tui.backends.remote import http as http_module
from tts_tui.backends.remote.http import Http
from tts_tui.backends.remote.replies import Worker
from tts_tui.errors import BackendBadResponse, BackendTimeout, BackendUnavailable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MALFORMED = {
    "no number": b"zz\r\n",
    "negative": b"-5\r\n",
    "overlong": b"f" * 40 + b"\r\n",
    "more data than its size": b"3\r\ndata: {\r\n",
}


@asynccontextmanager
async def answering(*pieces: bytes, stall: float = 0.05):
    """A client of a server that sends `pieces` as they are and closes nothing."""

    answers = []

    async def answer(reader, writer):
        answers.append(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            await reader.read()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    http = Http(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", stall=stall)
    await http.open()
    try:
        yield http
    finally:
        await http.close()
        server.close()
        await asyncio.gather(*answers)


@pytest.mark.parametrize("chunk", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_chunk_ends_a_stream(chunk):
    async with answering(HEAD, chunk) as http, asyncio.timeout(20):
        with pytest.raises((BackendTimeout, BackendUnavailable)):
            async for _ in http.events("/generate", None, Worker):
                raise AssertionError


@pytest.mark.parametrize("chunk", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_chunk_ends_a_reply(chunk):
    async with answering(HEAD, chunk) as http, asyncio.timeout(20):
        with pytest.raises((BackendTimeout, BackendUnavailable)):
            await http.get("/health", Worker)


class Content:
    """The body of a reply, of which a piece takes a while on the loop's own clock."""

    def __init__(self, monkeypatch, pieces, seconds):
        self.pieces, self.seconds, self.now, self.read = iter(pieces), seconds, 0.0, 0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def readany(self):
        self.now += self.seconds
        await asyncio.sleep(0)
        self.read += 1
        return next(self.pieces, b"")

    @asynccontextmanager
    async def reply(self, *_):
        yield self

    status = 200

    @property
    def content(self):
        return self


def streaming(monkeypatch, pieces, seconds):
    http, content = Http("http://server", stall=100.0), Content(monkeypatch, pieces, seconds)
    monkeypatch.setattr(http, "_request", content.reply)
    return http, content


@pytest.mark.parametrize("piece", [b": ping\n\n", b"data:\n\n", b"data: never whole "])
async def test_pieces_that_complete_no_event_do_not_keep_a_stream_alive(monkeypatch, piece):
    http, content = streaming(monkeypatch, [piece] * 1000, seconds=30.0)
    with pytest.raises(BackendTimeout):
        async for _ in http.events("/generate", None, Worker):
            raise AssertionError
    assert content.read < 5


async def test_a_stream_may_take_any_time_while_events_come(monkeypatch):
    event = b'data: {"url": "a"}\n\n'
    http, content = streaming(monkeypatch, [*[event[:9], event[9:]] * 50, b"data: [DONE]\n\n"], seconds=40.0)
    count = 0
    async for _ in http.events("/generate", None, Worker):
        count += 1
        content.now += 1000.0  # what the reader of the events does in between is not the server's time
    assert count == 50


async def test_an_event_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr(http_module, "MOST_BYTES", 1000)
    http, content = streaming(monkeypatch, [b"data: ", *[b"x" * 100] * 1000], seconds=0.0)
    with pytest.raises(BackendBadResponse, match="event"):
        async for _ in http.events("/generate", None, Worker):
            raise AssertionError
    assert content.read < 15


async def test_long_streams_of_short_events_have_no_limit(monkeypatch):
    monkeypatch.setattr(http_module, "MOST_BYTES", 1000)
    event = b'data: {"url": "%b"}\n\n' % (b"a" * 500)
    cut = [event[:300], event[300:] + event[:5], event[5:]]
    http, _ = streaming(monkeypatch, [*cut * 20, b"data: [DONE]\n\n"], seconds=0.0)
    assert len([worker async for worker in http.events("/generate", None, Worker)]) == 40


@pytest.mark.parametrize("status", [200, 500])
async def test_a_reply_without_an_end_is_given_up(monkeypatch, status):
    monkeypatch.setattr(http_module, "MOST_BYTES", 1000)
    body = msgspec.json.encode({"url": "a" * 5000}).decode()
    async with Proxy("", always=Fault(status, body)) as proxy:
        http = Http(proxy.url)
        await http.open()
        try:
            with pytest.raises(BackendBadResponse, match="more than"):
                await http.get("/health", Worker)
        finally:
            await http.close()
