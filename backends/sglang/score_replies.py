"""Scores from an SGLang server's replies: from a language model's log-probabilities, or from a head's logits."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from tts_tui.backends.prm.heads import Readout, score_of
from tts_tui.backends.remote.replies import Embeddings, Generated


class Answer(Struct, frozen=True):
    """The score of a step, as computed from a server's reply.

    Attributes:
        score: The score in [0, 1].
        cached: Number of tokens that were in the server's cache; 0 if the server does not report it.
    """

    score: float
    cached: int


def answer_of(reply: Generated | Embeddings, length: int, readout: Readout, tokens: Sequence[int]) -> Answer:
    """Return the score in a reply.

    Args:
        reply: The reply of `/generate` if there are `tokens`, otherwise of `/v1/embeddings`.
        length: Number of tokens that were sent.
        readout: The conversion from the model's outputs to a score.
        tokens: Ids of the good and the bad token; empty for a model with its own head.

    Raises:
        ValueError: The reply holds no score, or its token counts are inconsistent.
    """
    if isinstance(reply, Generated):
        values, read, cached = _of_tokens(reply, tokens)
    else:
        values, read, cached = _of_head(reply, 1 if readout == "sigmoid" else 2)
    if read != length:
        raise ValueError(f"it read {read} of {length} tokens")
    if not 0 <= cached < read:
        raise ValueError(f"it says that it had {cached} of {read} tokens")
    return Answer(score_of(readout, values), cached)


def _of_tokens(reply: Generated, tokens: Sequence[int]) -> tuple[list[float], int, int]:
    """Return the log-probabilities of `tokens`, the number of tokens read, and how many of these were in the cache."""
    said = reply.meta_info
    rows = said.output_token_ids_logprobs[0] if said.output_token_ids_logprobs else []
    found = {token: value for value, token, _ in rows}
    if not all(token in found for token in tokens):
        raise ValueError("it gave no log-probabilities of the tokens that were asked for")
    return [found[token] for token in tokens], said.prompt_tokens, said.cached_tokens


def _of_head(reply: Embeddings, size: int) -> tuple[list[float], int, int]:
    """Return the `size` logits, the number of tokens read, and how many of these were in the cache."""
    if not reply.data:
        raise ValueError("it gave no numbers")
    values, read = list(reply.data[0].embedding), reply.usage.prompt_tokens
    if len(values) != size + 1:
        return values, read, 0
    computed = values.pop()  # our model classes append the number of tokens that they computed
    if not computed.is_integer():
        raise ValueError(f"it gave {size + 1} numbers, and not {size}")
    return values, read, read - int(computed)
