"""Stub of triton (a gigabyte), which compiles for GPUs only. SGLang defines its kernels at import, even on a CPU.

`triton` and everything below it are modules on which every attribute exists: decorators return what they decorate, and
names that begin with a capital letter are classes. No kernel can run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any


class _Stub(ModuleType):
    """A module below triton that can be called, as a decorator of that name."""

    def __getattr__(self, name: str) -> Any:
        return _attribute(self, name)

    def __call__(self, *given: Any, **settings: Any) -> Any:
        if len(given) == 1 and callable(given[0]) and not settings:
            return given[0]
        return lambda function: function

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __bool__(self) -> bool:
        return False


class _Below(MetaPathFinder, Loader):
    """An importer for any module whose name begins with `triton.`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.startswith(f"{__name__}.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: a stub has no code."""


_BELOW = _Below()


def _attribute(module: ModuleType, name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name[0].isupper() or name == "constexpr":
        # An exception class, since some of these names are used in `except` clauses.
        value: Any = type(name, (Exception,), {"__module__": module.__name__})
    else:
        spec = ModuleSpec(f"{module.__name__}.{name}", _BELOW, is_package=True)
        value = sys.modules.setdefault(spec.name, module_from_spec(spec))
    setattr(module, name, value)
    return value


class Config:
    """Settings of a kernel."""

    def __init__(self, kwargs: dict[str, Any] | None = None, **settings: Any) -> None:
        self.kwargs = kwargs or {}
        self.num_warps, self.num_stages = settings.get("num_warps", 4), settings.get("num_stages", 2)


def cdiv(number: int, by: int) -> int:
    """Return the quotient, rounded up."""
    return -(number // -by)


def next_power_of_2(number: int) -> int:
    """Return the smallest power of two that is not smaller than `number`."""
    return 1 << (number - 1).bit_length() if number > 0 else 1


def __getattr__(name: str) -> Any:
    return _attribute(sys.modules[__name__], name)


__version__ = "3.0.0"
sys.meta_path.insert(0, _BELOW)
