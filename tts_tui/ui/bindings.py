"""Keys as rows of a table: each with a name, by which people can change it, and a sentence for the help."""

from __future__ import annotations

from textual.binding import Binding


def keys(*rows: tuple[str, str, str, str, str], show: bool = True) -> list[Binding]:
    """Bindings of rows (name, keys, action, label, sentence); `show` says whether the footer has them."""
    return [
        Binding(key, action, label, id=name, tooltip=sentence, show=show) for name, key, action, label, sentence in rows
    ]
