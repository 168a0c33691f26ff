"""Classes of process reward models that SGLang lacks. SGLang's processes import this, tts-tui never does.

It stands in a folder of its own, which `tts-tui serve prm` puts on the server's PYTHONPATH, and is named to SGLang by
SGLANG_EXTERNAL_MODEL_PACKAGE. It knows nothing of tts-tui, which that Python may not have.
"""

from __future__ import annotations

try:
    # SGLang only warns of a module that cannot be imported, and would then serve such a model as one that writes text.
    from . import models  # noqa: F401
except ImportError as error:
    raise ImportError(f"this SGLang is not built as tts-tui's reward models expect, take 0.5.23: {error}") from error
