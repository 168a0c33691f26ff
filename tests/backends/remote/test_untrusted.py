"""Texts from servers: no form of the API key and no terminal control reaches a message."""

from __future__ import annotations

import base64
import json
import random
import string
import traceback
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from tests.proxy import Fault, Proxy
from tts_tui.backends.openai import stream as openai_stream
from tts_tui.backends.remote import replies
from tts_tui.backends.remote.http import Http, UnexpectedReply, check_url
from tts_tui.backends.remote.untrusted import LEAST, MOST_SHOWN, PIECE, Failure, Redactor, ServerText
from tts_tui.backends.sglang import stream as sglang_stream
from tts_tui.cli import server_doctor
from tts_tui.errors import BackendError, UsageError
from tts_tui.protocols import MOST_TOKEN_IDS

KEY = "sk-Pr0j+4f/9c&Zq'7x\"Lm=2T"
PLAIN = "sk-0123456789abcdefghij"


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FORMS = [
    "{key}",
    "Incorrect API key provided: {key}. See the docs.",
    "Authorization: Bearer {key}",
    "{key}{key}",
    "http://user:{key}@host/v1",
]


@pytest.mark.parametrize("key", [KEY, PLAIN])
@pytest.mark.parametrize("said", FORMS)
@pytest.mark.parametrize(
    "write",
    [
        str,
        quote,
        lambda key: quote(key, safe=""),
        lambda key: quote(key, safe="").replace("%2F", "%2f"),
        lambda key: json.dumps(key)[1:-1],
        lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
        repr,
        lambda key: base64_of(key).rstrip("="),
        lambda key: base64_of("user:" + key),
        lambda key: base64_of("an-user:" + key + "\n"),
        lambda key: base64.urlsafe_b64encode(f":{key}".encode()).decode(),
        lambda key: key[:PIECE] + "...",
        lambda key: "..." + key[-PIECE:],
    ],
)
def test_the_key_is_removed_however_it_is_written(key, said, write):
    text = str(ServerText(said.format(key=write(key)), Redactor(key)))
    assert key[:PIECE] not in text and write(key)[2:-2] not in text and "***" in text


@given(st.text(string.ascii_letters + string.digits + "-_", min_size=LEAST, max_size=200), st.text(), st.text())
def test_any_key_is_removed_from_any_text(key, before, behind):
    text = ServerText(before + key + behind, Redactor(key))
    assert key not in text.line(10**6) and key not in str(text)


def test_a_key_that_is_taken_apart_by_what_is_not_shown_is_removed():
    assert PLAIN not in str(ServerText("the key " + "\u200b".join(PLAIN), Redactor(PLAIN)))


def test_a_key_at_the_end_of_what_is_shown_is_not_cut_in_half():
    for length in range(MOST_SHOWN - len(PLAIN) - 2, MOST_SHOWN):
        assert PLAIN[:3] not in str(ServerText("." * length + PLAIN, Redactor(PLAIN)))


@pytest.mark.parametrize("said", ["sk-01***hij", "keys begin with sk-", "no key", ""])
def test_masked_keys_and_other_texts_stay_as_they_are(said):
    assert str(ServerText(said, Redactor(PLAIN))) == said
    assert Redactor("").redact(said) == said


def test_a_server_text_is_one_clean_line_however_it_is_formatted():
    text = ServerText("\x1b[31m two\n\t\u202elines " + "x" * 1000, Redactor(PLAIN))
    assert f"{text}" == str(text) == text.__format__("") == "{}".format(text) == "%s" % text  # noqa: UP031, UP032
    assert str(text).startswith("[31m two lines x") and len(str(text)) == MOST_SHOWN and str(text).isprintable()
    assert repr(ServerText(PLAIN, Redactor(PLAIN))) == "'***'" == str([ServerText(PLAIN, Redactor(PLAIN))])[1:-1]


def test_a_name_goes_back_to_the_server_as_it_came():
    http = Http("http://server", api_key="model")
    served = http.decode(b'{"id": "a/model\\u200b 7B"}', replies.Served)
    assert served.id == "a/model\u200b 7B" and str(served.id) == "a/*** 7B"


@pytest.mark.parametrize(
    ("said", "text", "code"),
    [
        ('"no"', "no", 0),
        ('{"error": "no"}', "no", 0),
        ('{"error": {"message": "no", "code": 400}}', "no", 0),
        ('{"message": "no", "code": 429}', "no", 429),
        ('{"detail": [{"loc": ["body"], "msg": "no"}]}', "no", 0),
        ('{"error": {"code": "x"}}', "", 0),
        ("[]", "", 0),
        ("7", "", 0),
    ],
)
def test_what_a_failure_says_is_found_wherever_it_stands(said, text, code):
    failure = Http("http://server").decode(said.encode(), Failure)
    assert (str(failure.text), failure.code) == (text, code)


# -- by construction ---------------------------------------------------------------------------------------------------

READABLE = {"text", "prompt"}
"""Fields whose strings a model wrote or reads."""
OTHER = {("CompletionEvent", "object")}
"""Fields that are compared, and never told."""


def wires():
    """All types that replies are decoded into."""
    for module in (replies, openai_stream, sglang_stream, server_doctor):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__module__ == module.__name__:
                yield kind


def plain_strings(kind: inspect.Type) -> bool:
    """Return whether a value of this type may be, or hold, a string that is not a `ServerText`."""
    if isinstance(kind, inspect.StrType | inspect.AnyType):
        return True
    parts = [*getattr(kind, "types", ()), *getattr(kind, "item_types", ())]
    parts += [getattr(kind, name) for name in ("item_type", "key_type", "value_type") if hasattr(kind, name)]
    return any(plain_strings(part) for part in parts)


def test_no_reply_holds_a_string_that_could_be_told_as_it_came():
    found = set()
    for kind in wires():
        if kind is sglang_stream.StreamEvent:  # made of a reply, and no reply
            continue
        for field in inspect.type_info(kind).fields:
            if plain_strings(field.type) and field.name not in READABLE:
                found.add((kind.__name__, field.name))
    assert found == OTHER


@pytest.mark.parametrize("kind", [replies.TokenIds, sglang_stream.SSEPayload, server_doctor.Streamed])
@pytest.mark.parametrize("number", [-1, MOST_TOKEN_IDS, 2**63, 2**70, 1.5, "7", None, True])
def test_what_is_no_token_id_is_in_no_reply(kind, number):
    http = Http("http://server")
    ids = [1, number]
    body = json.dumps({"tokens": ids, "output_ids": ids, "meta_info": {}}).encode()
    with pytest.raises(BackendError):
        http.decode(body, kind)
    with pytest.raises(BackendError):
        http.event(body, http.decoder(kind))


# -- what becomes of it ------------------------------------------------------------------------------------------------


def shown(error: BaseException) -> str:
    """Everything that a traceback would print."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(status, json.dumps({"error": {"message": f"no such key: {PLAIN}"}})) for status in (400, 404, 429)),
        *(Fault(status, json.dumps({"detail": f"no such key: {PLAIN}"})) for status in (401, 403, 422, 500, 502, 503)),
        Fault(302, headers={"Location": f"http://{PLAIN}.example/x"}),
        Fault(302, headers={"Location": f"http://[{PLAIN}"}),
        Fault(307, headers={"Location": f"http://user:{PLAIN}@example/x?key={PLAIN}"}),
        Fault(200, json.dumps({"model_path": [PLAIN]}) + PLAIN),
        Fault(200, json.dumps({"tokens": [PLAIN]})),
        Fault(200, json.dumps({PLAIN: 1, "tokens": {PLAIN: PLAIN}})),
        Fault(200, f"<html>{PLAIN}</html>"),
        *(Fault(status, '{"error": ' + '{"a": ' * 100_000 + "1" + "}" * 100_001) for status in (200, 400)),
        Fault(200, PLAIN),
    ],
)
@pytest.mark.parametrize("way", ["post", "events"])
async def test_neither_an_error_nor_its_traceback_tells_the_key(fault, way):
    async with Proxy("", always=fault) as proxy:
        http = Http(proxy.url, api_key=PLAIN)
        await http.open()
        try:
            with pytest.raises(BackendError) as raised:
                if way == "post":
                    await http.post("/tokenize", {}, replies.TokenIds)
                else:
                    async for _ in http.events("/generate", {}, replies.TokenIds):
                        pass
        finally:
            await http.close()
    assert PLAIN not in shown(raised.value) + repr(raised.value)


@pytest.mark.parametrize("kind", [replies.Embeddings, replies.Generated, replies.Loads, replies.ServerSettings])
@pytest.mark.parametrize("value", [PLAIN, [PLAIN], {PLAIN: PLAIN, "prompt_tokens": PLAIN}, 1e300])
def test_no_field_of_another_kind_is_quoted(kind, value):
    http = Http("http://server", api_key=PLAIN)
    fields = ["data", "usage", "meta_info", "loads", "context_length"]
    with pytest.raises(UnexpectedReply) as raised:
        http.decode(json.dumps(dict.fromkeys(fields, value)).encode(), kind)
    assert PLAIN not in shown(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{PLAIN}@host:1",
        f"http://{PLAIN}@host",
        f"me:{PLAIN}@host:8000",
        f"http://me:{PLAIN}@host:port",
        f"http://host/v1?key={PLAIN}",
        f"host?key={PLAIN}",
        f"http://host#{PLAIN}",
        f"http://[{PLAIN}@host",
    ],
)
def test_an_address_that_holds_a_key_is_not_repeated(url):
    with pytest.raises(UsageError) as raised:
        check_url(url)
    assert PLAIN not in shown(raised.value)


def test_a_long_text_without_the_key_is_looked_through_once():
    text = "".join(random.Random(0).choices(string.ascii_letters, k=10**5))
    assert Redactor(PLAIN).redact(text) is text
