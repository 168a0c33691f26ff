"""Characters that must not be sent to a terminal."""

from __future__ import annotations

import json
import sys
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_tui.formatting import escape_json, is_hidden
from tts_tui.tree.events import Notice, decode, encode

HIDING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
NAMED = "\x1b\x7f\x9b\u00ad\u200b\u200d\u2028\u2029\u202e\u2066\u2069\ufeff\ufe0f\U000e0041\U000e0100\U0010ffff"
HOSTILE = st.text(st.characters(codec="utf-8") | st.sampled_from(NAMED + '"\\\n\t'), max_size=80)


@pytest.mark.parametrize("char", NAMED)
def test_json_of_an_event_escapes_what_hides_reorders_or_steers(char):
    line = encode(Notice(message=f"a{char}b"))
    assert line.isascii() and line.decode().isprintable()
    assert decode(line) == Notice(message=f"a{char}b")
    assert json.loads(line)["message"] == f"a{char}b"


def test_characters_beyond_the_basic_plane_are_escaped_as_surrogate_pairs():
    assert escape_json('"\U000e0041"'.encode()) == rb'"\udb40\udc41"'


@given(HOSTILE)
def test_escaped_json_is_visible_and_means_the_same(text):
    value = {"key " + text: [text, {"nested": text}]}
    for line in (msgspec.json.encode(value), msgspec.json.format(msgspec.json.encode(value), indent=2)):
        escaped = escape_json(line)
        assert json.loads(escaped) == value
        assert escape_json(escaped) == escaped
        assert not any(unicodedata.category(char) in HIDING for char in escaped.decode() if char != "\n")


def test_every_hidden_character_is_escaped_and_no_other():
    codes = [code for code in range(0x20, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000 and chr(code) not in '"\\']
    text = "".join(map(chr, codes))
    escaped = escape_json(json.dumps(text, ensure_ascii=False).encode()).decode()
    assert json.loads(escaped) == text
    assert escaped.strip('"').count("\\u") == sum(1 + (code > 0xFFFF) for code in codes if is_hidden(chr(code)))
    assert not any(map(is_hidden, escaped))


def test_plain_lines_are_passed_on_as_they_are():
    for text in ("plain", "x² ≥ 0", "设圆的半径为"):
        line = json.dumps(text, ensure_ascii=False).encode()
        assert escape_json(line) is line
