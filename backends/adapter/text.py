"""The input format of an adapter PRM: the question, a blank line, the steps, without chat template and examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tts_tui.answers.canonical import extract
from tts_tui.errors import BackendUnavailable

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = 12.0
"""The negated lower bound of a token's log-ratio: a lower log-ratio is clamped to it."""
ALONE_FLOOR = 6.0
"""The negated lower bound of the sum of the log-ratios of an answer alone: a lower sum is clamped to it."""


class AdapterText:
    """An encoder of questions and steps to token ids.

    Every step is tokenized separately, so that a growing path keeps its ids.

    Args:
        tokenizer: The base model's tokenizer, as loaded by transformers.

    Raises:
        BackendUnavailable: The tokenizer has no token that ends a text.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise BackendUnavailable("the model cannot take the adapter: its tokenizer has no token that ends a text")
        self._backend = tokenizer.backend_tokenizer
        self._begin = () if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id),)
        self._blank = self._ids("\n") * 2
        self._end = int(tokenizer.eos_token_id)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def prompt(self, question: str) -> tuple[int, ...]:
        """Return the ids of a question, with the blank line after it."""
        return self._begin + self._ids(question.strip()) + self._blank

    def step(self, text: str) -> tuple[int, ...]:
        """Return the ids of a step, with the blank line or the end-of-text token after it."""
        return self._ids(text.strip()) + ((self._end,) if ends(text) else self._blank)


def alone(steps: Sequence[str]) -> str | None:
    """Return the answer of a finished solution as a single step, to be scored after just the question, or None.

    Small models also reach right answers by wrong steps, and wrong answers by steps that are right for another
    question.
    """
    answer = extract("".join(steps))
    return None if answer is None else stated(answer)


def stated(answer: str) -> str:
    """Return the text of a step that ends a solution with `answer`."""
    return f"The answer is \\boxed{{{answer}}}."


def ends(step: str) -> bool:
    """Return whether a step ends the answer: its text does not end with a newline."""
    return not step.endswith("\n")


def log_ratios(states: Tensor, own: Tensor, rows: Tensor) -> Tensor:
    """Return how much less likely tokens are than the model's preferred ones: log-ratios `[tokens]`, none above 0.

    Args:
        states: The normed states *before* each token, `[tokens, width]`.
        own: The output embeddings of the tokens, `[tokens, width]`.
        rows: The output embeddings of the tokens to choose among, `[vocabulary, width]`.
    """
    best = (states @ rows.T).amax(-1)
    return ((states * own).sum(-1) - best).clamp(-FLOOR, 0.0)
