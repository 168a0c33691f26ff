"""Stands for sgl_kernel, whose wheels need CUDA. SGLang imports some of its names and calls none on a plain CPU.

Every name is there, and raises when it is called: nothing is computed wrongly in silence.
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
