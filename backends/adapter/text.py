"""How a PRM that is an adapter reads a solution: the question, a blank line, the steps. No chat and no examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tts_tui.answers.canonical import extract
from tts_tui.errors import BackendUnavailable

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = 12.0
"""A token whose log-ratio is lower counts as this unlikely."""
ALONE_FLOOR = 6.0
"""And an answer alone whose sum is lower."""


class AdapterText:
    """Token ids of questions and steps.

    Every step is tokenized on its own, so that a path that grows keeps its ids.

    Args:
        tokenizer: The base model's, as transformers loads it.

    Raises:
        BackendUnavailable: It has no token that ends a text.
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
        """Ids of a question."""
        return self._begin + self._ids(question.strip()) + self._blank

    def step(self, text: str) -> tuple[int, ...]:
        """Ids of a step."""
        return self._ids(text.strip()) + ((self._end,) if ends(text) else self._blank)


def alone(steps: Sequence[str]) -> str | None:
    """The answer of a whole solution as a step of its own, to be judged from the question alone; None without one.

    Small models also come to right answers by wrong steps, and to wrong ones by right steps to something else.
    """
    answer = extract("".join(steps))
    return None if answer is None else stated(answer)


def stated(answer: str) -> str:
    """The step that ends a solution with `answer`."""
    return f"The answer is \\boxed{{{answer}}}."


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
