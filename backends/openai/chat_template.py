"""Chat templates for servers that complete plain text: how a server applies its own, and the prompt without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from tts_tui.backends.remote.http import Http
from tts_tui.backends.remote.replies import ChatText, TokenIds
from tts_tui.backends.remote.untrusted import ServerText
from tts_tui.errors import BackendBadResponse, RequestRefused, WrongServer
from tts_tui.profiles.prompts import FAMILIES

T = TypeVar("T")
Messages = Sequence[dict[str, str]]
Name = ServerText | str
Template = Callable[[Http, Name, Messages], Awaitable[str | None]]
"""Function from server, model and chat to the text that the model continues; None if the server cannot convert it."""

NO_TEMPLATE = (
    "{url} cannot continue a text under its chat template (it has neither /tokenize nor /apply-template): problems are "
    "asked as plain text, which instruction-tuned models answer less well"
)


async def find_template(http: Http, model: Name) -> Template | None:
    """Return a function that has the server apply its chat template; None if the server cannot."""
    for template in (_by_tokens, _by_text):
        if await template(http, model, [{"role": "user", "content": "Hello"}]):
            return template
    return None


def plain(problem: str, family: str) -> str:
    """Return the prompt for `problem` as plain text, for a model without a chat template.

    Args:
        problem: The problem.
        family: The prompt family, a key of `FAMILIES`, whose instructions are included.
    """
    return f"Problem: {problem}\n\n{FAMILIES[family]}\n\nSolution:"


async def _by_tokens(http: Http, model: Name, chat: Messages) -> str | None:
    """Apply the template of SGLang or vLLM: convert the chat to token ids, and these to text."""
    body = {"model": model, "messages": list(chat), "add_generation_prompt": True}
    reply = await _ask(http, "/tokenize", body, TokenIds)
    if reply is None or not reply.tokens:
        return None
    ids = reply.tokens
    text = await _text_of(http, model, ids)
    if text is None:
        return None
    # A server that adds a beginning-of-text token to every text would have it twice, as the template adds one, too.
    again = await _ask(http, "/tokenize", {"model": model, "prompt": text}, TokenIds)
    if again is not None and again.tokens[1:] == ids and (mark := await _text_of(http, model, ids[:1])):
        return text.removeprefix(mark)
    return text


async def _by_text(http: Http, model: Name, chat: Messages) -> str | None:
    """Apply the template of llama.cpp, which returns the text directly."""
    reply = await _ask(http, "/apply-template", {"messages": list(chat)}, ChatText)
    return reply.prompt if reply else None


async def _text_of(http: Http, model: Name, ids: list[int]) -> str | None:
    reply = await _ask(http, "/detokenize", {"model": model, "tokens": ids, "skip_special_tokens": False}, ChatText)
    if reply is None:
        return None
    return reply.prompt if reply.text is None else reply.text


async def _ask(http: Http, path: str, body: dict[str, Any], kind: type[T]) -> T | None:
    """Return the reply; None if the server lacks the endpoint, however it reports that."""
    try:
        return await http.post(path, body, kind)
    except (RequestRefused, WrongServer, BackendBadResponse):
        return None
