"""Faults of connections and of HTTP itself, and error responses."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.faults.kinds import STREAMS, Scene, dumps, kind, line

ORDINARY = (*STREAMS, "score", "talk")
_HUGE = 400_000
_LATER = ("0", "0.05", "0.1")
_ABSURD = ("-5", "nan", "inf", "-inf", "1e400", "9" * 400, "99999999", "soon", "", "١", "Wed, 21 Oct 2099 07:28:00 GMT")
_TARGETS = ("https://elsewhere.invalid/?key={key}", "/login", "", "http://[half", "http://h:99999999/", "://", "\\\\x")


# -- connections -------------------------------------------------------------------------------------------------------


@kind("reset-before-headers")
async def _reset_before(scene: Scene) -> None:
    raise scene.reply.reset()


@kind("close-before-headers")
async def _close_before(scene: Scene) -> None:
    raise scene.reply.close()


@kind("reset-in-headers")
async def _reset_in_headers(scene: Scene) -> None:
    await scene.reply.raw(b"HTTP/1.1 200 OK\r\nContent-Ty")
    raise scene.reply.reset()


@kind("reset-in-stream", *STREAMS)
async def _reset_in_stream(scene: Scene) -> None:
    await scene.some()
    raise scene.reply.reset()


@kind("reset-in-chunk", *STREAMS)
async def _reset_in_chunk(scene: Scene) -> None:
    await scene.some()
    await scene.reply.raw(b'40\r\ndata: {"te')
    raise scene.reply.reset()


@kind("close-in-stream", *STREAMS)
async def _close_in_stream(scene: Scene) -> None:
    await scene.some()
    raise scene.reply.close()


@kind("stall-before-headers", *STREAMS, "score")
async def _stall_before(scene: Scene) -> None:
    await scene.reply.stall()


@kind("stall-in-headers", *STREAMS, "score")
async def _stall_in_headers(scene: Scene) -> None:
    await scene.reply.raw(b"HTTP/1.1 200 OK\r\nContent-Le")
    await scene.reply.stall()


@kind("stall-in-stream", *STREAMS)
async def _stall_in_stream(scene: Scene) -> None:
    await scene.some()
    await scene.reply.stall()


@kind("drip", harmless=True)
async def _drip(scene: Scene) -> None:
    """Send a few bytes at a time, for a while."""
    write, size, left = scene.reply.raw, scene.draw.choice((1, 3, 7)), 400

    async def slowly(data: bytes) -> None:
        nonlocal left
        while data and left > 0:
            await write(data[:size])
            data, left = data[size:], left - 1
        if data:
            await write(data)

    scene.reply.raw = slowly  # type: ignore[method-assign]
    await scene.send()


@kind("refuse")
async def _refuse(scene: Scene) -> None:
    """Close the port for a moment, and this connection with it."""
    scene.listener.restart(scene.draw.uniform(0.01, 0.1))
    raise scene.reply.reset()


@kind("restart", *STREAMS, "score")
async def _restart(scene: Scene) -> None:
    """Kill the server during all its requests, and bring it back later."""
    if scene.events is not None:
        await scene.some()
    scene.listener.restart(scene.draw.uniform(0.1, 0.5))
    raise scene.reply.reset()


# -- HTTP --------------------------------------------------------------------------------------------------------------


@kind("no-http", *ORDINARY)
async def _no_http(scene: Scene) -> None:
    await scene.reply.raw(b"220 mail.example ESMTP ready\r\n")
    raise scene.reply.close()


@kind("bad-status-line", *ORDINARY)
async def _bad_status_line(scene: Scene) -> None:
    lines = (
        b"HTTP/1.1 abc\r\n",
        b"HTTP/9.9 200 OK\r\n",
        b"HTTP/1.1 -1 No\r\n",
        b"HTTP/1.1 99999 Many\r\n",
        b"\0\1\2\r\n",
    )
    await scene.reply.raw(scene.draw.choice(lines) + b"Content-Length: 0\r\n\r\n")
    raise scene.reply.close()


@kind("bad-headers", *ORDINARY)
async def _bad_headers(scene: Scene) -> None:
    key = scene.request.key.encode()
    headers = (
        b"No colon here " + key,
        b"X-Key: " + key + b"\0",
        b"X: " + b"x" * 70_000,
        b": empty",
        b"Content-Length: -3",
    )
    await scene.reply.raw(b"HTTP/1.1 200 OK\r\n" + scene.draw.choice(headers) + b"\r\n\r\n")
    raise scene.reply.close()


@kind("length-too-short", *ORDINARY)
async def _too_short(scene: Scene) -> None:
    body = dumps(scene.body) if scene.events is None else b'data: {"text": "half'
    await scene.reply.head(200, ("Content-Length", str(len(body) // 2)))
    await scene.reply.raw(body)
    raise scene.reply.close()


@kind("length-too-long", *ORDINARY)
async def _too_long(scene: Scene) -> None:
    body = dumps(scene.body) if scene.events is None else b"data: [DONE]\n\n"
    await scene.reply.head(200, ("Content-Length", str(len(body) + 50)))
    await scene.reply.raw(body)
    raise scene.reply.close()


@kind("no-length", harmless=True)
async def _no_length(scene: Scene) -> None:
    """End the body with the connection, as in HTTP/1.0."""
    await scene.reply.head(scene.status if scene.events is None else 200, ("Connection", "close"))
    if scene.events is None:
        await scene.reply.raw(dumps(scene.body))
    else:
        async for event in scene.events:
            await scene.reply.raw(line(event))
        await scene.reply.raw(b"data: [DONE]\n\n")
    raise scene.reply.close()


@kind("bad-chunk-size", *STREAMS)
async def _bad_chunk(scene: Scene) -> None:
    await scene.some()
    sizes = b"zz\r\n", b"-5\r\n", b"f" * 40 + b"\r\n", b"\r\n\r\n", b"5;" + b"x" * 20_000 + b"\r\n", b"3\r\ndata: {\r\n"
    await scene.reply.raw(scene.draw.choice(sizes))
    raise scene.reply.close()


@kind("false-encoding", *ORDINARY)
async def _false_encoding(scene: Scene) -> None:
    """Declare the body as compressed although it is not."""
    await scene.reply.whole(200, b"not compressed at all", ("Content-Encoding", scene.draw.choice(("gzip", "deflate"))))


@kind("no-content", *ORDINARY)
async def _no_content(scene: Scene) -> None:
    if scene.draw.random() < 0.5:
        await scene.reply.head(204)
    else:
        await scene.reply.whole(200, b"")


@kind("early-hints", harmless=True)
async def _early_hints(scene: Scene) -> None:
    await scene.reply.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * scene.draw.randint(1, 3))
    await scene.send()


# -- error responses ---------------------------------------------------------------------------------------------------


def _bodies(scene: Scene) -> list[tuple[bytes, str]]:
    """Return bodies of failures, with their content types."""
    said = scene.words
    # The key is placed where a message that is too long is cut.
    long = "x" * (295 - scene.draw.randrange(20)) + said
    values: list[Any] = [
        {"error": {"message": said, "code": None}},
        {"error": {"message": {"detail": said}}},
        {"detail": [{"msg": said, "loc": [said]}]},
        {"message": long},
        {"error": long},
        [],
        None,
        {"error": [[said]]},
        17,
    ]
    return [
        *((dumps(value), "application/json") for value in values),
        (f"<!DOCTYPE html><h1>{said}</h1>".encode(), "text/html"),
        (bytes(range(256)) * 4, "application/octet-stream"),
        (b"", "text/plain"),
        (said.encode(), "text/plain; charset=utf-99"),
        (b"[" * 100_000, "application/json"),
        (dumps({"error": said + " x" * (_HUGE // 2)}), "application/json"),
    ]


def _says(status: int) -> None:
    @kind(f"status-{status}", *ORDINARY)
    async def _status(scene: Scene) -> None:
        body, type = scene.draw.choice(_bodies(scene))
        await scene.reply.whole(status, body, kind=type)


for _number in (400, 401, 403, 404, 413, 418, 422, 429, 500, 502, 503, 504, 529, 600):
    _says(_number)


@kind("retry-after", *ORDINARY)
async def _retry_after(scene: Scene) -> None:
    status = scene.draw.choice((429, 503))
    await scene.reply.whole(status, b"", ("Retry-After", scene.draw.choice(_LATER)))


@kind("retry-after-absurd", *ORDINARY)
async def _retry_after_absurd(scene: Scene) -> None:
    status = scene.draw.choice((429, 503))
    await scene.reply.whole(status, b"{}", ("Retry-After", scene.draw.choice(_ABSURD)))


@kind("redirect", *ORDINARY)
async def _redirect(scene: Scene) -> None:
    target = scene.draw.choice(_TARGETS).format(key=scene.request.key)
    headers = () if scene.draw.random() < 0.2 else (("Location", target),)
    await scene.reply.whole(scene.draw.choice((301, 302, 303, 304, 307, 308)), b"", *headers)


@kind("web-page", *ORDINARY)
async def _web_page(scene: Scene) -> None:
    """Answer as a proxy with a log-in page answers for every server."""
    await scene.reply.whole(200, b"<!DOCTYPE html><html>Please log in.</html>", kind="text/html")


@kind("slow", harmless=True)
async def _slow(scene: Scene) -> None:
    await asyncio.sleep(scene.draw.uniform(0.01, 0.1))
    await scene.send()
