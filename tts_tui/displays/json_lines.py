"""The json display: one event per line, in the format of recordings."""

from __future__ import annotations

from tts_tui.displays.base import Display
from tts_tui.tree.events import AnyEvent, SearchFinished, encode


class JsonDisplay(Display):
    """A display that prints every event as it happens and nothing else; the last line is `search_finished`."""

    def show(self, event: AnyEvent) -> None:
        """Print the event, in UTF-8 regardless of the terminal's encoding."""
        line = encode(event) + b"\n"
        raw = getattr(self.out, "buffer", None)
        if raw is not None:
            raw.write(line)
        else:
            self.out.write(line.decode())

    def conclude(self, finished: SearchFinished | None) -> None:
        """Print the last event if it did not happen now: when the resumed recording was already complete."""
        if finished is not None and not self.began:
            self.guard(lambda: self.show(finished))
