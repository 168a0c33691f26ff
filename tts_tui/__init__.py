"""Test-time scaling of language models that people can watch, steer and trust.

"TTS" is test-time scaling here, never text to speech.
"""

from tts_tui._version import __version__
from tts_tui.blocking import solve
from tts_tui.budget import Budget
from tts_tui.contracts import (
    Chunk,
    ModelInfo,
    Policy,
    Prompt,
    RewardModel,
    Sampling,
    ScoreRequest,
    StepRequest,
    StepScore,
    Strategy,
    Usage,
)
from tts_tui.errors import TTSError
from tts_tui.plan import Plan, default_plan
from tts_tui.recording import load, read
from tts_tui.result import Result
from tts_tui.search import Search
from tts_tui.solver import Solver
from tts_tui.tree import Node, SearchTree

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
