"""An SGLang server's answer to a request for a score: a language model's log-probabilities, or a head's logits."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from tts_tui.backends.prm.heads import Readout, score_of
from tts_tui.backends.remote.replies import Embeddings, Generated


class Answer(Struct, frozen=True):
    """What a server says of it.

    Attributes:
        score: In [0, 1].
        cached: Tokens that the server had; 0 where it does not tell.
    """

    score: float
    cached: int


def answer_of(reply: Generated | Embeddings, length: int, readout: Readout, tokens: Sequence[int]) -> Answer:
    """The score in a reply.

    Args:
        reply: Of `/generate` if there are `tokens`, else of `/v1/embeddings`.
        length: How many tokens were sent.
        readout: What the outputs are.
        tokens: Ids of the good and the bad token; none for a model with a head of its own.

    Raises:
        ValueError: There is none in it.
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
    """Log-probabilities of `tokens`, how many tokens were read, and how many of them were in the cache."""
    said = reply.meta_info
    rows = said.output_token_ids_logprobs[0] if said.output_token_ids_logprobs else []
    found = {token: value for value, token, _ in rows}
    if not all(token in found for token in tokens):
        raise ValueError("it gave no log-probabilities of the tokens that were asked for")
    return [found[token] for token in tokens], said.prompt_tokens, said.cached_tokens


def _of_head(reply: Embeddings, size: int) -> tuple[list[float], int, int]:
    """The same for `size` logits."""
    if not reply.data:
        raise ValueError("it gave no numbers")
    values, read = list(reply.data[0].embedding), reply.usage.prompt_tokens
    if len(values) != size + 1:
        return values, read, 0
    computed = values.pop()  # our classes tell how many tokens they computed
    if not computed.is_integer():
        raise ValueError(f"it gave {size + 1} numbers, and not {size}")
    return values, read, read - int(computed)
