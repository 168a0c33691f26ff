"""How a PRM that is an adapter reads a solution: the question, a blank line, the steps. No chat and no examples."""

from __future__ import annotations

from typing import Any

from torch import Tensor

FLOOR = 12.0
"""A token whose log-ratio is lower counts as this unlikely."""


class AdapterText:
    """Token ids of questions and steps.

    Every step is tokenized on its own, so that a path that grows keeps its ids.

    Args:
        tokenizer: The base model's, as transformers loads it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._begin = () if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id),)
        self._blank = self._ids("\n") * 2
        self._end = int(tokenizer.eos_token_id)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def prompt(self, question: str) -> tuple[int, ...]:
        """Ids of a question."""
        return self._begin + self._ids(question.strip()) + self._blank

    def step(self, text: str) -> tuple[int, ...]:
        """Ids of a step."""
        return self._ids(text.strip()) + ((self._end,) if ends(text) else self._blank)


def ends(step: str) -> bool:
    """Whether a step ends the answer: its text ends no line."""
    return not step.endswith("\n")


def log_ratios(states: Tensor, own: Tensor, rows: Tensor) -> Tensor:
    """How much less likely tokens are than what the model would have written: `[tokens]`, none above 0.

    Args:
        states: `[tokens, width]`, the normed states *before* each token.
        own: `[tokens, width]`, output embeddings of the tokens.
        rows: `[vocabulary, width]`, output embeddings of the tokens to choose among.
    """
    best = (states @ rows.T).amax(-1)
    return ((states * own).sum(-1) - best).clamp(-FLOOR, 0.0)
