"""Classes of process reward models that SGLang lacks. SGLang's processes import this package, tts-tui never does.

It has a separate folder, which `tts-tui serve prm` puts on the server's PYTHONPATH, and SGLang finds it through
SGLANG_EXTERNAL_MODEL_PACKAGE. It does not depend on tts-tui, which may not be installed in the server's Python.
"""

from __future__ import annotations

try:
    # SGLang only warns about a module that cannot be imported, and would then serve such a model as a text generator.
    from . import models  # noqa: F401
except ImportError as error:
    raise ImportError(f"this SGLang is not built as tts-tui's reward models expect, take 0.5.23: {error}") from error
