"""Events of the wire, as recorded from a real server, and the chunks of steps that they become."""

from __future__ import annotations

import json
import re
from collections import defaultdict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_tui import Sampling, StepRequest, Usage
from tts_tui.backends.engine.detokenizer import CONTEXT, OVERSHOOT, Separator
from tts_tui.backends.remote.http import Http
from tts_tui.backends.sglang.stream import EventReader, SSEPayload, StepSplitter, StreamEvent
from tts_tui.errors import BackendBadResponse, BackendError, BackendOverloaded, RequestRefused

URL = "http://server"

# -- recorded streams --------------------------------------------------------------------------------------------------

NAMES = [
    "stream_aborted",
    "stream_batch",
    "stream_incremental",
    "stream_incremental_logprob",
    "stream_incremental_n2",
    "stream_incremental_stop",
    "stream_logprob",
    "stream_n2",
    "stream_single",
    "stream_stop",
]


def recorded(shared, name: str) -> list[list[bytes]]:
    """The events of each request of a recorded stream."""
    requests: dict[int, list[bytes]] = defaultdict(list)
    text = (shared / "recorded" / "sglang" / f"{name}.sse.txt").read_bytes()
    for event in text.split(b"\n\n"):
        data = event.removeprefix(b"data: ").strip()
        if data and data != b"[DONE]":
            requests[json.loads(data).get("index", 0)].append(data)
    return list(requests.values())


def read(events: list[bytes]) -> list[StreamEvent]:
    reader, http = EventReader(URL, ["\n\n"]), Http(URL)
    return [reader.read(http.event(data, http.decoder(SSEPayload))) for data in events]


def told(events: list[StreamEvent]) -> tuple[list[int], str, Usage]:
    """All ids, all text and all counts of a stream."""
    usage = sum((event.usage for event in events), Usage())
    return [token for event in events for token in event.ids], "".join(event.text for event in events), usage


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_stream_is_read_to_the_last_token(shared, name):
    for data in recorded(shared, name):
        events = read(data)
        wires = [json.loads(one) for one in data]
        meta = wires[-1]["meta_info"]
        ids, text, usage = told(events)
        new_only = name.startswith("stream_incremental")
        sent = [token for wire in wires for token in wire["output_ids"]]
        assert ids == (sent if new_only else wires[-1]["output_ids"])
        assert text == ("".join(wire["text"] for wire in wires) if new_only else wires[-1]["text"])
        assert usage.completion == meta["completion_tokens"] == len(ids)
        assert usage.prompt_cached == meta["cached_tokens"]
        assert usage.prompt_computed == meta["prompt_tokens"] - meta["cached_tokens"]
        ends = [event for event in events if event.finish or event.aborted]
        assert ends == events[-1:]
        kind = meta["finish_reason"]["type"]
        expected = {"length": "length", "abort": None, "stop": "step"}[kind]
        assert ends[0].finish == expected and (ends[0].aborted is not None) == (kind == "abort")


@pytest.mark.shared
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("stream_incremental")])
def test_new_tokens_only_and_all_so_far_say_the_same(shared, name):
    for data in recorded(shared, name):
        wires = [json.loads(one) for one in data]
        shorter = []
        for before, wire in zip([{"text": "", "output_ids": []}, *wires[:-1]], wires, strict=True):
            new = {
                "text": wire["text"][len(before["text"]) :],
                "output_ids": wire["output_ids"][len(before["output_ids"]) :],
            }
            shorter.append(json.dumps({**wire, **new}).encode())
        assert read(shorter) == read(data)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("stream_err_bad_param", "temperature must be a non-negative finite number"),
        ("stream_err_too_long", r"The input (9000 tokens) is longer than the model's context length"),
    ],
)
def test_an_error_in_a_stream_is_a_refusal(shared, name, sentence):
    ((data,),) = recorded(shared, name)
    with pytest.raises(RequestRefused, match=re.escape(f"{URL} refused the request: {sentence}")) as raised:
        read([data])
    assert raised.value.status == 400 and not raised.value.retryable


# -- events that make no sense -----------------------------------------------------------------------------------------


def wire(ids: list[int], total: int, text: str = "", **meta) -> bytes:
    return msgspec.json.encode({"text": text, "output_ids": ids, "meta_info": {"completion_tokens": total, **meta}})


@pytest.mark.parametrize(
    ("data", "kind", "sentence"),
    [
        ([b"{"], BackendBadResponse, "sent an event that is damaged"),
        ([b"[]"], BackendBadResponse, "sent an event that is damaged"),
        ([b'{"output_ids": "x", "meta_info": {}}'], BackendBadResponse, "sent an event that is damaged"),
        ([b"{}"], BackendBadResponse, "failed: without a reason"),
        ([b'{"error": "out of memory"}'], BackendBadResponse, "failed: out of memory"),
        ([b'{"error": {"message": "queue is full", "code": 503}}'], BackendOverloaded, "overloaded: queue is full"),
        ([b'{"error": {"message": "slow\\ndown", "code": 429}}'], BackendOverloaded, "overloaded: slow down"),
        ([wire([1], 3)], BackendBadResponse, "sent 1 token ids where it counted 3"),
        ([wire([1, 2], 2), wire([3], 1)], BackendBadResponse, "token ids where it counted -1"),
        ([wire([1], 1, prompt_tokens=-5)], BackendBadResponse, "damaged"),
        ([wire([1], 1, cached_tokens=-5)], BackendBadResponse, "damaged"),
        ([wire([1], 1, prompt_tokens=3, cached_tokens=4)], BackendBadResponse, "damaged"),
        ([wire([1], 1, prompt_tokens=10**40)], BackendBadResponse, "damaged"),
        ([wire([1], -(2**63))], BackendBadResponse, "damaged"),
    ],
)
def test_events_that_make_no_sense_are_one_sentence(data, kind, sentence):
    with pytest.raises(BackendError, match=re.escape(sentence)) as raised:
        read(data)
    assert type(raised.value) is kind


@pytest.mark.parametrize("totals", [range(1, 1000), [1] * 1000])
def test_a_stream_that_goes_on_beyond_what_was_asked_for_is_damaged(totals):
    reader, http, count = EventReader(URL, most=8), Http(URL), 0
    with pytest.raises(BackendBadResponse, match="beyond the 8 tokens"):
        for total in totals:
            reader.read(http.event(wire([7], total), http.decoder(SSEPayload)))
            count += 1
    assert 8 <= count <= 8 + OVERSHOOT


@pytest.mark.parametrize(
    ("matched", "stops", "finish"),
    [
        ("\n\n", ["\n\n"], "step"),
        (151645, ["\n\n"], "eos"),
        (2, [], "eos"),
        ([5, 6], [], "eos"),
        ("NaN happened", ["\n\n"], None),
        ("NaN happened", [], None),
        ("\n\n", [], None),
        (None, ["\n\n"], None),
    ],
)
def test_a_step_ends_only_at_a_stop_text_of_its_request(matched, stops, finish):
    data = wire([7], 1, "x", finish_reason={"type": "stop", "matched": matched})
    http = Http(URL)
    event = EventReader(URL, stops=stops).read(http.event(data, http.decoder(SSEPayload)))
    assert event.finish == finish and event.aborted is None
    assert (event.unasked is None) == (finish is not None)
    assert event.usage.completion == 1  # counted however it ended


@given(
    pieces=st.lists(st.lists(st.integers(0, 50), max_size=4), min_size=1, max_size=12),
    incremental=st.booleans(),
    prompt=st.integers(1, 100),
)
def test_any_stream_is_counted_once_however_it_is_sent(pieces, incremental, prompt):
    all_ids, data = [], []
    for piece in pieces:
        all_ids += piece
        ids = piece if incremental else all_ids
        text = "".join(chr(97 + token) for token in ids)
        data.append(wire(list(ids), len(all_ids), text, prompt_tokens=prompt, cached_tokens=prompt - 1))
    ids, text, usage = told(read(data))
    assert ids == all_ids and text == "".join(chr(97 + token) for token in all_ids)
    assert usage == Usage(prompt_computed=1, prompt_cached=prompt - 1, completion=len(all_ids))


# -- chunks ------------------------------------------------------------------------------------------------------------

VOCABULARY = ["a", "bc", " ", "\n", "\n\n", "d\n", "\ne", "f\n\ng", "\n\n\n", "", "é"]


class Texts:
    """Turns ids into text as a server does, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, prefixes):
        self.asked += 1
        return ["".join(VOCABULARY[token] for token in ids) for ids in prefixes]


def request(rollout: bool, ids: tuple[int, ...] = (0, 1, 2)) -> StepRequest:
    return StepRequest(ids=ids, sampling=Sampling(), max_tokens=100, rollout=rollout)


def event(ids: list[int], **more) -> StreamEvent:
    text = "".join(VOCABULARY[token] for token in ids)
    return StreamEvent(list(ids), text, Usage(completion=len(ids)), **more)


@given(
    pieces=st.lists(st.lists(st.integers(0, len(VOCABULARY) - 1), min_size=1, max_size=5), min_size=1, max_size=10),
    before=st.integers(1, 2 * CONTEXT),
)
async def test_a_chunk_ends_with_the_token_that_completes_the_separator(pieces, before):
    cutter = StepSplitter(request(True, tuple(range(before % len(VOCABULARY))) or (0,)), Texts())
    chunks = []
    for number, piece in enumerate(pieces):
        chunks += await cutter.chunks(event(piece, finish="length" if number == len(pieces) - 1 else None))
    ids = [token for piece in pieces for token in piece]
    assert [token for chunk in chunks for token in chunk.ids] == ids == cutter.ids
    assert "".join(chunk.text for chunk in chunks) == "".join(VOCABULARY[token] for token in ids)
    assert sum((chunk.usage for chunk in chunks), Usage()) == Usage(completion=len(ids))
    assert [chunk.finish for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    separator, ends = Separator("\n\n"), []
    for place, token in enumerate(ids):
        if separator.add(VOCABULARY[token]):
            ends.append(place)
    places, place = [], -1
    for chunk in chunks:
        place += len(chunk.ids)
        places += [place] if chunk.step_end else []
    assert places == ends


async def test_texts_are_asked_for_only_where_a_step_ends_among_several_tokens():
    texts = Texts()
    cutter = StepSplitter(request(True), texts)
    for ids in ([0, 1, 2], [4], [0, 3], [3, 1]):  # the third and fourth hold one separator between them
        await cutter.chunks(event(ids))
    assert texts.asked == 1
    alone = StepSplitter(request(False), texts)
    (chunk,) = await alone.chunks(event([0, 4], finish="step"))
    assert chunk.step_end and chunk.finish == "step" and texts.asked == 1


async def test_the_prompt_is_counted_with_the_first_chunk():
    first = event([7, 7, 0])
    first.usage = Usage(prompt_computed=1, prompt_cached=9, completion=3)
    chunks = await StepSplitter(request(True), Texts()).chunks(first)
    assert [chunk.usage for chunk in chunks] == [
        Usage(prompt_computed=1, prompt_cached=9, completion=1),
        Usage(completion=1),
        Usage(completion=1),
    ]


def test_an_error_in_a_stream_that_repeats_the_key_is_told_without_it():
    http = Http(URL, api_key="sesame")
    wire = http.event(b'{"error": {"message": "no entry for sesame", "code": 400}}', http.decoder(SSEPayload))
    with pytest.raises(BackendError) as caught:
        EventReader(URL).read(wire)
    assert "no entry for ***" in str(caught.value)
