"""Key bindings as table rows: each has a name, by which users can remap it, and a sentence for the help screen."""

from __future__ import annotations

from textual.binding import Binding


def keys(*rows: tuple[str, str, str, str, str], show: bool = True) -> list[Binding]:
    """Return bindings for rows (name, keys, action, label, sentence); `show` puts them in the footer."""
    return [
        Binding(key, action, label, id=name, tooltip=sentence, show=show) for name, key, action, label, sentence in rows
    ]
