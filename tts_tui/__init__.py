"""Test-time scaling of language models that people can watch, steer and trust.

"TTS" stands for test-time scaling here, never for text to speech.
"""

from tts_tui._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tts_tui.blocking import solve
    from tts_tui.budget import Budget
    from tts_tui.errors import TTSError
    from tts_tui.plan import Plan, default_plan
    from tts_tui.protocols import (
        Chunk,
        ModelInfo,
        Policy,
        Prompt,
        RewardModel,
        Sampling,
        ScoreRequest,
        StepRequest,
        StepScore,
        Usage,
    )
    from tts_tui.search.result import Result
    from tts_tui.search.search import Search
    from tts_tui.search.strategy import SearchView, Strategy
    from tts_tui.solver import Solver
    from tts_tui.tree.recording import load, read
    from tts_tui.tree.search_tree import Node, SearchTree

__all__ = [
    "Budget",
    "Chunk",
    "ModelInfo",
    "Node",
    "Plan",
    "Policy",
    "Prompt",
    "Result",
    "RewardModel",
    "Sampling",
    "ScoreRequest",
    "Search",
    "SearchTree",
    "SearchView",
    "Solver",
    "StepRequest",
    "StepScore",
    "Strategy",
    "TTSError",
    "Usage",
    "__version__",
    "default_plan",
    "load",
    "read",
    "solve",
]

_NAMES = {
    "blocking": ("solve",),
    "budget": ("Budget",),
    "errors": ("TTSError",),
    "plan": ("Plan", "default_plan"),
    "protocols": ("Chunk", "ModelInfo", "Policy", "Prompt", "RewardModel", "Sampling", "ScoreRequest", "StepRequest",
                  "StepScore", "Usage"),
    "search.result": ("Result",),
    "search.search": ("Search",),
    "search.strategy": ("SearchView", "Strategy"),
    "solver": ("Solver",),
    "tree.recording": ("load", "read"),
    "tree.search_tree": ("Node", "SearchTree"),
}  # fmt: skip
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name on first access, so that `import tts_tui` stays fast for the command line."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"tts_tui.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
