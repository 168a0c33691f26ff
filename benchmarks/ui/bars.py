"""Comparison of figures with their bars."""

from __future__ import annotations


def told(what: str, figure: float, bar: float, form: str = "{:.2f}") -> None:
    """Print a figure that should not be above its bar."""
    met = "met" if figure <= bar else "MISSED"
    print(f"{what:<40} {form.format(figure):>10}; bar {form.format(bar)}, figure / bar {figure / bar:.2f} ({met})")
