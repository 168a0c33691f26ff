"""The position of a replay in one line, which can be clicked to seek."""

from __future__ import annotations

from rich.text import Text
from textual.events import Click
from textual.message import Message

from tts_tui.formatting import clock
from tts_tui.ui.player import Player
from tts_tui.ui.widgets.lazy_static import LazyStatic


class Timeline(LazyStatic):
    """A replay position, e.g. `▶ ×4  event 812 of 2,043  00:12 of 00:42  ────●──────`."""

    class Sought(Message):
        """A message that the line was clicked.

        Args:
            share: The position, from 0 to 1.
        """

        def __init__(self, share: float) -> None:
            super().__init__()
            self.share = share

    _start = 0
    _length = 0

    def show(self, player: Player) -> None:
        """Show the position of `player`."""
        said = words(player)
        width = self.size.width
        self._start, self._length = len(said), max(0, width - len(said) - 2)
        line = Text(said, style="bold", no_wrap=True)
        if self._length > 4:
            place = round((self._length - 1) * (player.position / len(player))) if len(player) else 0
            line.append("─" * place + "●" + "─" * (self._length - place - 1))
        line.truncate(width, overflow="ellipsis")
        self.put([line])

    def on_click(self, event: Click) -> None:
        """Request a seek to the clicked position."""
        if self._length > 4 and self._start <= event.x < self._start + self._length:
            self.post_message(self.Sought((event.x - self._start) / (self._length - 1)))


def words(player: Player) -> str:
    """Return the text before the line."""
    end = player.events[-1].t if player.events else 0.0
    now = player.events[player.position - 1].t if player.position else 0.0
    said = f" {'▶' if player.playing else '‖'} ×{player.speed:g}  event {player.position:,} of {len(player):,}"
    return f"{said}  {clock(now)} of {clock(end)}  "
