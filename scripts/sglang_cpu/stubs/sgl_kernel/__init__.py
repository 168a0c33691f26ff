"""Stub of sgl_kernel, whose wheels need CUDA. SGLang imports some of its names and calls none of them on a CPU.

Every name exists and raises NotImplementedError when called, so nothing is silently computed wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

__version__ = "0.0.0"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} needs a GPU")

    return missing
