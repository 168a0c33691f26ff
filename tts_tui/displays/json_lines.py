"""The json display: one event a line, as recordings have them."""

from __future__ import annotations

from tts_tui.displays.base import Display
from tts_tui.tree.events import AnyEvent, SearchFinished, encode


class JsonDisplay(Display):
    """Prints every event as it happens. Nothing else is printed; the last line is `search_finished`."""

    def show(self, event: AnyEvent) -> None:
        """Prints the event, in UTF-8 whatever the terminal's encoding."""
        line = encode(event) + b"\n"
        raw = getattr(self.out, "buffer", None)
        if raw is not None:
            raw.write(line)
        else:
            self.out.write(line.decode())

    def conclude(self, finished: SearchFinished | None) -> None:
        """Prints the last event where it did not happen now: a resumed recording that was complete already."""
        if finished is not None and not self.began:
            self.guard(lambda: self.show(finished))
