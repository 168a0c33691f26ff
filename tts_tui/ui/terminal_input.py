"""Decoding of terminal input into Textual messages, robust against any bytes.

Textual decodes input strictly, and its parser is a generator that ends with the first exception, so that a single bad
byte ends the app. Here undecodable bytes are replaced, a parser that failed is replaced, and unusable messages are
dropped.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from time import monotonic

from textual import events
from textual._xterm_parser import BRACKETED_PASTE_END, BRACKETED_PASTE_START, XTermParser
from textual.constants import ESCAPE_DELAY
from textual.message import Message

PASTE_LIMIT = 1_000_000
"""Maximum number of characters kept of one paste."""
PASTE_PATIENCE = 3.0
"""Seconds of silence after which a paste counts as complete although its end marker never came."""
FLOOD = 256
"""Number of characters in a single read from which on they count as pasted text: no one types that fast."""
FLOOD_PAUSE = 0.03
"""Seconds of silence after which such text is complete; it has no end marker."""
FLOOD_RUN = 64
"""Minimum number of characters per escape sequence in such a read; reads full of mouse reports have far fewer."""
LARGEST = 10_000
"""Largest size or coordinate that is accepted, in cells."""

_X10_MOUSE = re.compile(rb"\x1b\[M[^\x1b]{0,3}")
"""A mouse report in X10 encoding: three raw bytes, which are not UTF-8 beyond column or row 95."""
_X10_LENGTH = 6


class InputDecoder:
    """A decoder from terminal bytes to messages. Never raises.

    Args:
        debug: Log keys to a file, as in Textual's drivers.
        clock: Returns seconds from any origin.
    """

    def __init__(self, debug: bool = False, clock: Callable[[], float] = monotonic) -> None:
        self._debug, self._clock = debug, clock
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._parser = XTermParser(debug)
        self._bytes = b""  # an incomplete X10 mouse report
        self._recent = ""  # the last characters that the parser took
        self._paste: list[str] | None = None
        self._pasted = 0
        self._held = ""  # the end of a paste so far, which may be the beginning of its end marker
        self._marked = False  # whether the paste has markers
        self._last = clock()

    def feed(self, data: bytes) -> list[Message]:
        """Feed bytes as they were read, and return the messages they complete."""
        self._last = self._clock()
        messages: list[Message] = []
        text = self._decode(self._without_x10(data))
        while text:
            if self._paste is not None:
                text = self._collect(text, messages)
            elif len(text) >= FLOOD and len(text) > FLOOD_RUN * (1 + text.count("\x1b")):
                self._begin_paste(marked=False)
            else:
                text = self._parse(text, messages)
        return messages

    def tick(self) -> list[Message]:
        """Return messages completed by silence: an Escape key, or a paste without an end marker."""
        messages: list[Message] = []
        silent = self._clock() - self._last
        if silent >= ESCAPE_DELAY:
            self._bytes = b""
        if self._paste is not None:
            if silent >= (PASTE_PATIENCE if self._marked else FLOOD_PAUSE):
                self._end_paste(self._held, messages)
            return messages
        try:
            messages += filter(self._is_sound, self._parser.tick())
        except Exception:
            self._reset()
        return messages

    @property
    def timeout(self) -> float | None:
        """Seconds after which `tick` is due; None if nothing can be pending."""
        if self._paste is not None and not self._marked:
            return FLOOD_PAUSE
        return ESCAPE_DELAY if self._clock() - self._last <= PASTE_PATIENCE + ESCAPE_DELAY else None

    def _without_x10(self, data: bytes) -> bytes:
        """Remove X10 mouse reports: Textual does not know them, and their bytes are not text."""
        data, self._bytes = self._bytes + data, b""
        if b"\x1b[M" not in data:
            return data
        *_, last = _X10_MOUSE.finditer(data)
        if last.end() == len(data) and len(last[0]) < _X10_LENGTH:
            self._bytes = last[0]
        return _X10_MOUSE.sub(b"", data)

    # -- keys, mouse and reports -------------------------------------------------------------------------------------

    def _parse(self, text: str, messages: list[Message]) -> str:
        """Parse up to the beginning of a paste, and return the rest."""
        for place, character in enumerate(text, 1):
            try:
                messages += filter(self._is_sound, self._parser.feed(character))
            except Exception:  # one character at a time, so that no other key is lost with the bad sequence
                self._reset()
            self._recent = (self._recent + character)[-len(BRACKETED_PASTE_START) :]
            if self._recent == BRACKETED_PASTE_START:
                self._begin_paste(marked=True)
                return text[place:]
        return ""

    def _reset(self) -> None:
        """Replace the parser after a failure has ended it, keeping its knowledge of the terminal."""
        old, self._parser = self._parser, XTermParser(self._debug)
        for name in ("last_x", "last_y", "mouse_pixels", "terminal_size", "terminal_pixel_size"):
            setattr(self._parser, name, getattr(old, name))

    def _is_sound(self, message: Message) -> bool:
        """Return whether the app can use a message."""
        if isinstance(message, events.Key):
            return _is_text(message.key) and _is_text(message.character or "")
        if isinstance(message, events.MouseEvent):
            return max(abs(message.x), abs(message.y)) <= LARGEST
        if isinstance(message, events.Resize):
            if message.pixel_size is not None and not all(message.pixel_size):
                self._parser.terminal_pixel_size = None  # the parser would divide by it
            return all(0 < side <= LARGEST for side in message.size)
        return True

    # -- pastes ------------------------------------------------------------------------------------------------------

    def _begin_paste(self, *, marked: bool) -> None:
        self._paste, self._pasted, self._held, self._marked = [], 0, "", marked

    def _collect(self, text: str, messages: list[Message]) -> str:
        """Add to the paste, and return the text after its end."""
        text = self._held + text
        before, marker, after = text.partition(BRACKETED_PASTE_END)
        if marker:
            self._end_paste(before, messages)
            return after
        self._held = text[-len(BRACKETED_PASTE_END) + 1 :]
        self._keep(text[: -len(self._held)])
        return ""

    def _keep(self, text: str) -> None:
        assert self._paste is not None
        self._paste.append(text[: PASTE_LIMIT - self._pasted])
        self._pasted += len(self._paste[-1])

    def _end_paste(self, rest: str, messages: list[Message]) -> None:
        assert self._paste is not None
        self._keep(rest)
        text = "".join(self._paste).replace("\0", "")
        if text:
            messages.append(events.Paste(text))
        self._paste = None
        if self._marked:
            for character in BRACKETED_PASTE_END:  # the parser has seen the start marker
                list(self._parser.feed(character))


def _is_text(text: str) -> bool:
    """Return whether `text` can be encoded: the Kitty protocol sends keys by number, surrogates included."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
