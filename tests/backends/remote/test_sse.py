"""Server-sent events: whatever the network does to the bytes, the events are those of the specification."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.proxy import Fault, Proxy
from tts_tui.backends.remote.http import Http
from tts_tui.backends.remote.replies import Worker
from tts_tui.backends.remote.sse import EventParser
from tts_tui.errors import BackendBadResponse, BackendUnavailable

BOM = b"\xef\xbb\xbf"


def parsed(pieces: list[bytes]) -> tuple[list[bytes], bytes | None, bytes]:
    """The events, what the end of the stream cut off, and what was no line of an event."""
    parser = EventParser()
    events = [data for piece in pieces for data in parser.feed(piece)]
    return events, parser.close(), parser.stray


def by_the_book(stream: bytes) -> list[bytes]:
    """The events of a stream by the specification's own steps, a line at a time."""
    lines = stream.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    events: list[bytes] = []
    data: list[bytes] = []
    for line in lines[:-1]:  # the last one has not ended
        if not line:
            events += [b"\n".join(data)] if data else []
            data = []
        elif line.split(b":", 1)[0] == b"data":
            value = line[5:]
            data.append(value[1:] if value[:1] == b" " else value)
    return events


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),  # one space goes
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\n\r\ndata: b\r\n\n", [b"a", b"b"]),
        (b"event: message\ndata: a\n\n", [b"a"]),
        (b"id: 1\nevent: x\nretry: 10\ndata: a\n\n", [b"a"]),
        (b": ping\n\n: ping\ndata: a\n\n", [b"a"]),
        (b"data: a\n: ping\ndata: b\nid: 7\n\n", [b"a\nb"]),
        (b"data\ndata\n\n", [b"\n"]),
        (b"data\n\n", [b""]),
        (b"event: nothing\n\nid: 3\n\n", []),
        (b"datum: a\n\ndata : b\n\n data: c\n\n", []),
        (b"\n\n\n\ndata: a\n\n\n\n", [b"a"]),
        (BOM + b"data: a\n\n" + BOM + b"data: b\n\n", [b"a"]),
        (b"data: a\n\ndata: b\n", [b"a"]),  # its end is missing
        ("data: é€😀\n\n".encode(), ["é€😀".encode()]),
        (b"", []),
    ],
)
def test_events_are_those_of_the_specification(stream, events):
    assert parsed([stream])[0] == events == by_the_book(stream)
    assert parsed([stream[at : at + 1] for at in range(len(stream))]) == parsed([stream])


WORDS = [b"data", b"data: ", b"data:", b"event: x", b"id: 1", b"retry: 1", b": ping", b"\n", b"\r", b"\r\n", b"\n\n"]
WORDS += [b"{}", b" ", b":", "é😀".encode(), BOM, b"data: a\n\n", b"[DONE]", b"<html>"]


@given(st.lists(st.sampled_from(WORDS), max_size=30), st.lists(st.integers(0, 120), max_size=20))
@example([BOM, b"data: a\n\n"], [1, 2])
@example([b"data: a\r\n\r\n"], [8, 9, 10])
def test_any_splitting_of_the_bytes_gives_the_same_events(words, cuts):
    stream = b"".join(words)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[begin:end] for begin, end in pairwise(places)]
    assert parsed(pieces) == parsed([stream])
    assert parsed([stream])[0] == by_the_book(stream)


def test_a_large_event_in_many_pieces_costs_no_more_than_its_length():
    parser, piece, count = EventParser(), b"x" * 256, 100_000
    assert parser.feed(b"data: ") == []
    for _ in range(count):  # looking at all of it for every piece would take hours
        assert parser.feed(piece) == []
    assert parser.feed(b"\n\n") == [piece * count]


async def received(body: str) -> list[str]:
    async with Proxy("", always=Fault(200, body, kind="text/event-stream")) as proxy:
        http = Http(proxy.url)
        await http.open()
        try:
            return [str(worker.url) async for worker in http.events("/generate", {}, Worker)]
        finally:
            await http.close()


@pytest.mark.parametrize(
    "body",
    [
        'event: message\nid: 1\ndata: {"url": "a"}\n\ndata: [DONE]\n\n',
        ': ping\n\ndata: {"url":\ndata: "a"}\n\n:\ndata: [DONE]\n\n',
        'data:\n\ndata: {"url": "a"}\n\ndata: [DONE]',
        'data: {"url": "a"}\r\n\r\ndata: [DONE] \r\n\r\ndata: {"url": "b"}\r\n\r\n',
    ],
)
async def test_a_stream_is_read_up_to_its_last_word_however_it_is_written(body):
    assert await received(body) == ["a"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('data: {"url": "a"}\n\n', BackendUnavailable),
        ('data: {"url": "a"}\n\ndata: [DO', BackendUnavailable),
        (": ping\n\n", BackendUnavailable),
        ("", BackendUnavailable),
        ("data: {\n\ndata: [DONE]\n\n", BackendBadResponse),
        ('data: {"url": "\\ud800"}\n\ndata: [DONE]\n\n', BackendBadResponse),
        ('{"error":\n\n"no stream"}', BackendBadResponse),
    ],
)
async def test_a_stream_that_breaks_off_is_told_from_one_that_makes_no_sense(body, error):
    with pytest.raises(error):
        await received(body)
