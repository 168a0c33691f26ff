"""Faults in the events of streams, and in the JSON of other answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from random import Random
from typing import Any

from benchmarks.faults.kinds import END, Item, Scene, dumps, kind, line, stream_kind
from benchmarks.faults.stand_in import Event

Events = AsyncIterator[Event]
Items = AsyncIterator[Item]

JUNK: tuple[Any, ...] = (
    None, True, [], {}, "", "x", -1, 0, 3.5, 2**31, 2**63, 10**40, 1e308, float("nan"), float("inf"), [None], {"a": []},
)  # fmt: skip


# -- the stream itself -------------------------------------------------------------------------------------------------


@stream_kind("split-anywhere", harmless=True)
async def _split(events: Events, scene: Scene) -> Items:
    """Split chunks inside characters, words and line feeds."""
    async for event in events:
        data = line(event)
        while data:
            size = scene.draw.randint(1, 90)
            yield data[:size]
            data = data[size:]


@stream_kind("all-at-once", harmless=True)
async def _at_once(events: Events, scene: Scene) -> Items:
    yield b"".join([line(event) async for event in events])


@stream_kind("line-ends", harmless=True)
async def _line_ends(events: Events, scene: Scene) -> Items:
    ends = scene.draw.choice((b"\r\n", b"\n"))
    async for event in events:
        yield b"data:" + dumps(event) + ends * 2


@stream_kind("comments", harmless=True)
async def _comments(events: Events, scene: Scene) -> Items:
    """Send everything that server-sent events may hold besides data."""
    others = b": ping\n\n", b":\n\n", b"event: ping\n\n", b"retry: 1000\n\n", b": \xe2\x82\xac\n\n"
    async for event in events:
        yield scene.draw.choice(others)
        name = (
            b"event: message\nid: 7\n"
            if scene.draw.random() < 0.3
            else b": before\n"
            if scene.draw.random() < 0.3
            else b""
        )
        yield name + line(event)


@stream_kind("comments-only")
async def _comments_only(events: Events, scene: Scene) -> Items:
    """Keep the connection open without ever sending data."""
    while True:
        yield b": ping\n\n"
        await asyncio.sleep(0.05)


@stream_kind("no-done")
async def _no_done(events: Events, scene: Scene) -> Items:
    async for event in events:
        yield event
    yield END


@stream_kind("cut-short")
async def _cut_short(events: Events, scene: Scene) -> Items:
    """End the stream properly, long before the answer is complete."""
    left = scene.draw.randint(0, 4)
    async for event in events:
        if not left:
            yield scene.draw.choice((END, b"data: [DONE]\n\n", line(event)[: scene.draw.randint(1, 20)]))
            yield END
            return
        left -= 1
        yield event


@stream_kind("flood")
async def _flood(events: Events, scene: Scene) -> Items:
    """Send megabytes without the end of an event."""
    for _ in range(60):
        yield b"data: " + b"x" * 65_536
    yield END


@stream_kind("runaway", lies=True)
async def _runaway(events: Events, scene: Scene) -> Items:
    """Generate without end, regardless of the requested limit."""
    last = await anext(events)
    while True:
        yield last
        await asyncio.sleep(0.002)
        last = deepcopy(last)
        if "meta_info" in last:
            last["meta_info"] |= {
                "completion_tokens": last["meta_info"]["completion_tokens"] + 1,
                "finish_reason": None,
            }
            last["output_ids"], last["text"] = [100], "a"
        else:
            last["choices"][0] |= {"text": "a", "finish_reason": None}


# -- events ------------------------------------------------------------------------------------------------------------


@stream_kind("duplicate-events", lies=True)
async def _duplicates(events: Events, scene: Scene) -> Items:
    async for event in events:
        yield event
        if scene.draw.random() < 0.4:
            yield event


@stream_kind("events-after-last", lies=True)
async def _after_last(events: Events, scene: Scene) -> Items:
    last: Event | None = None
    async for event in events:
        yield event
        last = event
    for _ in range(scene.draw.randint(1, 3)):
        if last is not None:
            yield last


@stream_kind("out-of-order", lies=True)
async def _out_of_order(events: Events, scene: Scene) -> Items:
    found = [event async for event in events]
    scene.draw.shuffle(found)
    for event in found:
        yield event


@stream_kind("other-mode", "generate", lies=True)
async def _other_mode(events: Events, scene: Scene) -> Items:
    """Mix cumulative and incremental events in one stream."""
    text, ids = "", list[int]()
    async for event in events:
        size = event["meta_info"]["completion_tokens"]
        if len(event["output_ids"]) < size:  # new ones only
            text, ids = text + event["text"], [*ids, *event["output_ids"]]
        else:
            text, ids = event["text"], event["output_ids"]
        yield event if scene.draw.random() < 0.5 else {**event, "text": text, "output_ids": ids}


@stream_kind("bad-json")
async def _bad_json(events: Events, scene: Scene) -> Items:
    async for event in _broken_after(events, scene, _not_json(scene.draw)):
        yield event


@stream_kind("error-event")
async def _error_event(events: Events, scene: Scene) -> Items:
    """Report a failure in the middle of a good stream, repeating the key."""
    said, code = scene.words, scene.draw.choice((None, 400, 401, 404, 429, 500, 503, "x", 2**70, True))
    errors: tuple[Any, ...] = (
        {"error": {"message": said, "code": code}},
        {"error": said, "code": code},
        {"object": "error", "message": said, "code": code},
        {"error": {"message": "x" * 290 + said, "code": code}},
        {"error": {"message": {"why": said}}},
        {"error": [said]},
        {"error": {"code": code}},
        {"error": True},
    )
    async for event in _broken_after(events, scene, line(scene.draw.choice(errors))):
        yield event


@stream_kind("wrong-types", lies=True)
async def _wrong_types(events: Events, scene: Scene) -> Items:
    async for event in events:
        yield mangle(event, scene.draw) if scene.draw.random() < 0.3 else event


@stream_kind("finish-unknown")
async def _finish_unknown(events: Events, scene: Scene) -> Items:
    said = f"NaN happened, {scene.words}"
    ours: tuple[Any, ...] = (
        {"type": "abort", "message": said, "status_code": 500, "err_type": "InternalServerError"},
        {"type": "NaN happened"}, {"type": "abort"}, {"type": None}, {}, {"type": said}, {"type": ["stop"]},
        {"type": "stop"}, {"type": "stop", "matched": None}, {"type": "stop", "matched": [1, 2]}, {"type": "length"},
        "stop", "abort", 7, {"type": "abort", "message": {"why": said}}, {"type": "abort", "message": "x" * 100_000},
    )  # fmt: skip
    theirs: tuple[Any, ...] = ("abort", "NaN happened", said, "", "content_filter", "tool_calls", 7, {}, "x" * 100_000)
    async for event in events:
        if "meta_info" in event and event["meta_info"]["finish_reason"] is not None:
            event["meta_info"]["finish_reason"] = scene.draw.choice(ours)
        elif event.get("choices") and event["choices"][0]["finish_reason"] is not None:
            event["choices"][0]["finish_reason"] = scene.draw.choice(theirs)
        yield event


@stream_kind("never-finished")
async def _never_finished(events: Events, scene: Scene) -> Items:
    """Send the complete answer without a finish reason."""
    async for event in events:
        if "meta_info" in event:
            event["meta_info"]["finish_reason"] = None
        elif event.get("choices"):
            event["choices"][0]["finish_reason"] = None
        yield event


def _ids(name: str, wrong: Callable[[Random], Any]) -> None:
    @stream_kind(name, "generate", lies=True)
    async def _change(events: Events, scene: Scene) -> Items:
        async for event in events:
            if event["output_ids"] and scene.draw.random() < 0.3:
                place = scene.draw.randrange(len(event["output_ids"]))
                event["output_ids"] = [*event["output_ids"]]
                event["output_ids"][place] = wrong(scene.draw)
            yield event


_ids("ids-negative", lambda draw: -draw.choice((1, 2, 2**31, 2**31 + 1, 2**40)))
_ids("ids-too-large", lambda draw: 2 ** draw.choice((31, 32, 40, 62)))
_ids("ids-beyond-64-bits", lambda draw: 2 ** draw.choice((63, 64, 200)))
_ids("ids-beyond-vocabulary", lambda draw: draw.choice((259, 50_000, 2**31 - 1)))
_ids("ids-no-integers", lambda draw: draw.choice((None, "7", 7.5, [7], True, 1e300)))


@stream_kind("texts-not-of-ids", lies=True)
async def _other_texts(events: Events, scene: Scene) -> Items:
    """Send texts without tokens, tokens without text, and separators where there were none."""
    texts = "", "\n\n", "a\n\nb\n\n", "\ufffd", "\\boxed{5}", "\x1b[2J", "[red]", "\u2028", "a" * 5000
    async for event in events:
        if scene.draw.random() < 0.3:
            if "meta_info" in event:
                event["text"] = scene.draw.choice(texts)
            elif event.get("choices"):
                event["choices"][0]["text"] = scene.draw.choice(texts)
        yield event


@stream_kind("wrong-counts", lies=True)
async def _wrong_counts(events: Events, scene: Scene) -> Items:
    values = -5, 0, 1, 10**6, 2**63 - 1, -(2**63)
    async for event in events:
        counts = event["meta_info"] if "meta_info" in event else event.get("usage")
        if counts and scene.draw.random() < 0.3:
            counts[scene.draw.choice(("prompt_tokens", "completion_tokens", "cached_tokens"))] = scene.draw.choice(
                values
            )
        yield event


async def _broken_after(events: Events, scene: Scene, what: bytes) -> Items:
    """Insert `what` into a stream."""
    left = scene.draw.randint(0, 4)
    async for event in events:
        if left == 0:
            yield what
        left -= 1
        yield event


# -- other answers -----------------------------------------------------------------------------------------------------


@kind("reply-bad-json", "score", "states", "talk")
async def _reply_bad_json(scene: Scene) -> None:
    await scene.reply.whole(200, _not_json(scene.draw).removeprefix(b"data: "))


@kind("reply-wrong-types", "score", "states", "talk", lies=True)
async def _reply_wrong_types(scene: Scene) -> None:
    await scene.reply.whole(200, dumps(mangle(scene.body, scene.draw)))


@kind("reply-other-json", "score", "states", "talk")
async def _reply_other_json(scene: Scene) -> None:
    others: tuple[Any, ...] = (
        None,
        [],
        {},
        7,
        "text",
        True,
        [[]],
        {"error": scene.words},
        {"data": []},
        {"meta_info": {}},
    )
    await scene.reply.whole(200, dumps(scene.draw.choice(others)))


def _numbers(name: str, wrong: Callable[[list[Any], Random], list[Any]]) -> None:
    """Register a change of a PRM's outputs as a kind of fault."""

    @kind(name, "score", lies=True)
    async def _change(scene: Scene) -> None:
        body = deepcopy(scene.body)
        if "data" in body:
            body["data"][0]["embedding"] = wrong(body["data"][0]["embedding"], scene.draw)
        else:
            rows = body["meta_info"]["output_token_ids_logprobs"][0]
            values = wrong([row[0] for row in rows], scene.draw)
            body["meta_info"]["output_token_ids_logprobs"][0] = [
                [value, rows[min(place, len(rows) - 1)][1], None] for place, value in enumerate(values)
            ]
        await scene.reply.whole(200, dumps(body))


def _one(value: Callable[[Random], Any]) -> Callable[[list[Any], Random], list[Any]]:
    def change(values: list[Any], draw: Random) -> list[Any]:
        place = draw.randrange(len(values))
        return [*values[:place], value(draw), *values[place + 1 :]]

    return change


_numbers("scores-nan", _one(lambda draw: draw.choice((float("nan"), float("inf"), float("-inf")))))
_numbers("scores-null", _one(lambda draw: None))
_numbers("scores-out-of-range", _one(lambda draw: draw.choice((1e308, -1e308, 10**40, 10**400, 2**63, -(2**70)))))
_numbers("scores-too-few", lambda values, draw: values[: draw.randrange(len(values))])
_numbers("scores-too-many", lambda values, draw: values * draw.randint(2, 3))


@kind("scores-of-other-length", "score", lies=True)
async def _other_length(scene: Scene) -> None:
    """Report a wrong number of tokens for a score."""
    body = deepcopy(scene.body)
    counts = body["usage"] if "usage" in body else body["meta_info"]
    counts["prompt_tokens"] = scene.draw.choice((0, -1, counts["prompt_tokens"] - 1, 10**9, None))
    await scene.reply.whole(200, dumps(body))


def _not_json(draw: Random) -> bytes:
    """Return an event whose data is not JSON."""
    texts = (
        b"{", b'{"text": "half', b"NaN", b"nothing", b"\xff\xfe\x00", b'{"text": "\xff"}', b'{"text": "\\ud800"}', b"",
        b"[" * 100_000, b'{"a":' * 50_000, b"[DONE", b'{"text": 1e999}', b"9" * 100_000, b"\0", b"<html>",
    )  # fmt: skip
    return b"data: " + draw.choice(texts) + b"\n\n"


def mangle(value: Any, draw: Random) -> Any:
    """Replace or remove one part of `value`, anywhere in it."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        name = draw.choice(list(value))
        rest = {each: part for each, part in value.items() if each != name}
        return rest if draw.random() < 0.2 else {**rest, name: mangle(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        place = draw.randrange(len(value))
        return [*value[:place], mangle(value[place], draw), *value[place + 1 :]]
    return draw.choice(JUNK)
