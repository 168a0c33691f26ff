"""Detection of Ollama, which speaks OpenAI's protocol but cannot continue a text with it.

Ollama's `/v1/completions` puts the text into a user message under the model's chat template, so every step of a path
would be answered as a new question.
"""

from __future__ import annotations

from msgspec import Struct

from tts_tui.backends.remote.http import Http
from tts_tui.backends.remote.untrusted import ServerText
from tts_tui.errors import BackendError, WrongServer


class Version(Struct):
    """A server's version, as returned by `/api/version`."""

    version: ServerText


async def refuse_ollama(http: Http) -> None:
    """Check that the server is not Ollama.

    Raises:
        WrongServer: The server is Ollama.
    """
    if await _is_ollama(http):
        raise WrongServer(
            f"{http.url} is Ollama, which answers every text as a new question in a chat and continues none, so no "
            "search can run on it: serve the same GGUF file with llama.cpp (`ollama show MODEL --modelfile` names "
            "the file, `llama-server -m FILE` serves it) and use --policy openai:URL, or load the model with "
            "--policy hf:PATH"
        )


async def _is_ollama(http: Http) -> bool:
    """Return whether version and greeting are both Ollama's: others, such as LocalAI, have `/api/version` too."""
    try:
        await http.get("/api/version", Version)
        return (await http.read("GET", "/")).strip() == b"Ollama is running"
    except BackendError:
        return False
