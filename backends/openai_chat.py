"""The chat template of a server that is asked for plain text: who applies it, and what is done where nobody does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tts_tui.backends.http import Http
from tts_tui.errors import BackendBadResponse, RequestRefused, WrongServer
from tts_tui.prompts import FAMILIES

Messages = Sequence[dict[str, str]]
Template = Callable[[Http, str, Messages], Awaitable[str | None]]
"""From server, model and chat to the text that the model is to go on with; None if the server cannot."""

NO_TEMPLATE = (
    "{url} cannot continue a text under its chat template (it has neither /tokenize nor /apply-template): problems are "
    "asked as plain text, which instruction-tuned models answer less well"
)


async def find_template(http: Http, model: str) -> Template | None:
    """The way in which the server applies its chat template; None if there is none."""
    for template in (_by_tokens, _by_text):
        if await template(http, model, [{"role": "user", "content": "Hello"}]):
            return template
    return None


def plain(problem: str, family: str) -> str:
    """A problem for a model that is not asked in a chat."""
    return f"Problem: {problem}\n\n{FAMILIES[family]}\n\nSolution:"


async def _by_tokens(http: Http, model: str, chat: Messages) -> str | None:
    """SGLang and vLLM: the chat as token ids, and these as text."""
    body = {"model": model, "messages": list(chat), "add_generation_prompt": True}
    ids = await _field(http, "/tokenize", body, "tokens")
    if not isinstance(ids, list) or not ids:
        return None
    text = await _text_of(http, model, ids)
    if text is None:
        return None
    # A server that begins every text with its own mark would find it twice behind that of the template.
    again = await _field(http, "/tokenize", {"model": model, "prompt": text}, "tokens")
    if isinstance(again, list) and again[1:] == ids and (mark := await _text_of(http, model, ids[:1])):
        return text.removeprefix(mark)
    return text


async def _by_text(http: Http, model: str, chat: Messages) -> str | None:
    """llama.cpp."""
    text = await _field(http, "/apply-template", {"messages": list(chat)}, "prompt")
    return text if isinstance(text, str) else None


async def _text_of(http: Http, model: str, ids: list[Any]) -> str | None:
    body = {"model": model, "tokens": ids, "skip_special_tokens": False}
    text = await _field(http, "/detokenize", body, "text", "prompt")
    return text if isinstance(text, str) else None


async def _field(http: Http, path: str, body: dict[str, Any], *names: str) -> Any:
    """The first of these fields in the answer; None if the server has no such thing, in whatever way it says so."""
    try:
        reply = await http.post(path, body)
    except (RequestRefused, WrongServer, BackendBadResponse):
        return None
    if not isinstance(reply, dict):
        return None
    return next((reply[name] for name in names if name in reply), None)
