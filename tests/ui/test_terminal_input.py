"""Bytes from a terminal become messages, whatever they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events

from tts_tui.ui import terminal_input
from tts_tui.ui.terminal_input import LARGEST, PASTE_PATIENCE, InputDecoder

X10 = b"\x1b[M#\xa50"
"""A mouse report of a terminal in the mode of X10, at column 133: not UTF-8."""


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock | None = None) -> InputDecoder:
    return InputDecoder(clock=clock or Clock())


def keys(messages) -> list[str]:
    return [message.key for message in messages if isinstance(message, events.Key)]


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_mouse_report_in_the_encoding_of_x10_is_passed_over_however_it_is_split(cut):
    decoder = made()
    assert decoder.feed(X10[:cut]) + decoder.feed(X10[cut:]) == []
    assert keys(decoder.feed(b"a")) == ["a"]


def test_a_report_whose_bytes_happen_to_be_one_character_takes_no_key_with_it():
    assert keys(made().feed("\x1b[M å".encode() + b"jk")) == ["j", "k"]


def test_a_report_that_is_cut_off_takes_no_key_with_it():
    clock = Clock()
    decoder = made(clock)
    assert decoder.feed(b"\x1b[M#") == []
    clock.now = 1.0
    decoder.tick()
    assert keys(decoder.feed(b"a")) == ["a"]


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80" * 50])
def test_bytes_that_are_no_text_do_not_hide_the_keys_after_them(bad):
    assert keys(made().feed(bad + b"a"))[-1:] == ["a"]


@pytest.mark.parametrize(
    "sequence",
    [
        b"\x1b[1114112u",  # beyond Unicode
        b"\x1b[99999999999999999999u",  # beyond a C int
        b"\x1b[97;1;1114112u",
        b"\x1b[;:u",
        b"\x1b[55296u",  # a surrogate, which cannot be drawn or recorded
        b"\x1b[97;1;55296u",
        b"\x1b[48;0;0;0;0t",  # a terminal without a size
        b"\x1b[48;99999999;99999999;1;1t",  # one that would fill the memory
        b"\x1b[<0;99999999999999999;1M",
    ],
)
def test_a_sequence_that_means_nothing_possible_is_dropped_and_the_keys_around_it_arrive(sequence):
    messages = made().feed(b"a" + sequence + b"b")
    assert [message.key for message in messages] == ["a", "b"]


def test_the_mouse_works_in_a_terminal_that_does_not_know_its_size_in_pixels():
    messages = made().feed(b"\x1b[48;24;80;0;0t\x1b[<0;10;5M")
    assert [(type(message), message.x, message.y) for message in messages[1:]] == [(events.MouseDown, 9, 4)]


def test_what_is_known_of_the_terminal_outlives_a_bad_sequence():
    messages = made().feed(b"\x1b[48;24;80;480;800t\x1b[1114112u\x1b[<0;101;41M")
    assert (messages[-1].x, messages[-1].y) == (10, 2)


def test_escape_is_a_key_once_nothing_follows_it(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("textual._parser.get_time", clock)
    decoder = made(clock)
    assert decoder.feed(b"\x1b") == []
    assert decoder.timeout is not None
    clock.now = 0.2
    assert keys(decoder.tick()) == ["escape"]


def test_nothing_is_due_once_the_input_has_been_silent_for_long():
    clock = Clock()
    decoder = made(clock)
    decoder.feed(b"a")
    assert decoder.timeout is not None
    clock.now = PASTE_PATIENCE + 1
    assert decoder.timeout is None


# -- pastes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, 22))
def test_a_paste_arrives_whole_however_it_is_split(cut):
    data = "\x1b[200~é\0l\n\x1b[A\x1b[201~x".encode()
    decoder = made()
    paste, key = decoder.feed(data[:cut]) + decoder.feed(data[cut:])
    assert (paste.text, key.key) == ("él\n\x1b[A", "x")


def test_a_paste_whose_end_never_comes_ends_by_itself():
    clock = Clock()
    decoder = made(clock)
    decoder.feed(b"\x1b[200~half")
    clock.now = 1.0
    assert decoder.tick() == []
    clock.now = PASTE_PATIENCE
    assert [message.text for message in decoder.tick()] == ["half"]
    assert keys(decoder.feed(b"q")) == ["q"]


def test_an_enormous_paste_is_cut(monkeypatch):
    monkeypatch.setattr(terminal_input, "PASTE_LIMIT", 1000)
    decoder = made()
    decoder.feed(b"\x1b[200~" + b"x" * 900)
    for _ in range(50):
        decoder.feed(b"y" * 4096)
    paste, key = decoder.feed(b"\x1b[201~a")
    assert (len(paste.text), key.key) == (1000, "a")


def test_a_flood_without_marks_is_a_paste_and_not_thousands_of_keys():
    clock = Clock()
    decoder = made(clock)
    assert decoder.feed(b"line\n" * 1000) == []
    assert decoder.feed(b"line\n" * 10) == []
    clock.now = 0.2
    (paste,) = decoder.tick()
    assert paste.text == "line\n" * 1010
    assert keys(decoder.feed(b"jj")) == ["j", "j"]


def test_a_burst_of_mouse_reports_is_no_paste():
    messages = made().feed(b"\x1b[<35;10;20M" * 300)
    assert len(messages) == 300 and all(isinstance(message, events.MouseMove) for message in messages)


# -- anything ----------------------------------------------------------------------------------------------------------

PIECES = [
    *(
        b"\x1b[",
        b"\x1b",
        b"\x1bO",
        b"\x1b[200~",
        b"200~",
        b"201~",
        b"M",
        b"m",
        b"R",
        b"t",
        b"u",
        b"~",
        b"<",
        b"?",
        b"$y",
    ),
    *(b";", b":", b"-", b"1", b"48", b"2048", b"99999", b"\xff", b"\xc3", b"\xe2\x82", b"\0", b"a", b"x" * 300),
]
"""Parts of sequences, so that random bytes come near to those that mean something."""


@given(st.lists(st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), st.binary(max_size=40))))
def test_after_any_bytes_and_some_silence_a_key_is_that_key(reads):
    clock = Clock()
    decoder = made(clock)
    messages = []
    for data in reads:
        messages += decoder.feed(data)
        messages += decoder.tick()
    clock.now = 2 * PASTE_PATIENCE
    messages += decoder.tick()
    decoder._parser._timeout_time = 0.0 if decoder._parser._timeout_time is not None else None
    messages += decoder.tick()
    for message in messages:
        if isinstance(message, events.Key):
            (message.key + (message.character or "")).encode()
        elif isinstance(message, events.MouseEvent):
            assert max(abs(message.x), abs(message.y)) <= LARGEST
        elif isinstance(message, events.Resize):
            assert 0 < min(message.size) <= max(message.size) <= LARGEST
    assert keys(decoder.feed(b"k"))[-1:] == ["k"]
