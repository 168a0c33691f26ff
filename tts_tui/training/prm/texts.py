"""What an adapter is trained on: token rows, each with what should follow at every place.

The adapter learns to continue *right* solutions only. How much less likely a step's tokens are under it than what it
would have written itself then tells how wrong the step is. Kinds of rows:

- **worked**: the question, right steps, the answer;
- **direct**: the question and the answer at once;
- **slipped**: the question, right steps up to a slip, wrong ones, and then the *right* answer: what the steps say is no
  reason to believe in an answer. Nothing is learned from the wrong steps but what should have stood there;
- **sampled**: solutions of the policy itself: right ones whole, of wrong ones what was right, and the right answer;
- **facts**: single right equations.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from msgspec import Struct

from tts_tui.backends.adapter.text import stated
from tts_tui.evaluation.datasets.families import FAMILIES, problem, split_of
from tts_tui.evaluation.prm.step_labels import step_holds
from tts_tui.evaluation.samples import Sampled
from tts_tui.training.prm.corruptions import slipped
from tts_tui.training.prm.practice import PRACTICE, fact

FACTS = 6
"""Equations in a row of facts."""


class Part(Struct, frozen=True):
    """A piece of a text: a question, or a step; `learn` says whether its tokens are to be learned."""

    text: str
    learn: bool = True


class Text(Struct, frozen=True):
    """A question and steps, of which the last one ends the answer; where it is no solution, `question` is empty."""

    question: str
    steps: tuple[Part, ...]


class Mixture(Struct, frozen=True):
    """Shares of the kinds of rows, by their number; they need not add up to one.

    Attributes:
        worked: Right steps and the answer.
        direct: The answer at once.
        slipped: Steps with a slip, then the right answer.
        facts: Single equations.
        sampled: Solutions of the policy.
        practice: Among worked, direct and slipped rows: share of problems of no family.
    """

    worked: float = 0.55
    direct: float = 0.1
    slipped: float = 0.2
    facts: float = 0.1
    sampled: float = 0.0
    practice: float = 0.3


def _steps(plan: Sequence[str], learn: Callable[[int], bool] = lambda _: True) -> list[Part]:
    return [Part(f"Step {number}: {step}\n\n", learn(number - 1)) for number, step in enumerate(plan, 1)]


def _answer(answer: str) -> Part:
    return Part(stated(answer))


ANSWERS = Mixture(worked=0.3, direct=0.5, slipped=0.1, facts=0.1)
"""What follows once steps are known: whether an answer is likely, from the question alone."""


OWN = Mixture(worked=0.0, direct=0.0, slipped=0.0, facts=0.0, sampled=1.0, practice=0.0)
"""Where there is no program that makes problems up: solutions of the policy."""
STEPS_FIRST = 5600
"""Texts of `Mixture()` before those of `ANSWERS`."""


class TextSampler:
    """Draws texts without end, always the same ones for a seed.

    Args:
        families: Names of the families to draw from; only problems of their split `train` are.
        sampled: Solutions of the policy on problems of the split `train`.
        mixtures: Shares, each with the number of texts after which the next ones hold; the last number counts nothing.
        seed: Of everything that is drawn.
    """

    def __init__(
        self,
        families: Sequence[str],
        sampled: Sequence[Sampled],
        mixtures: Sequence[tuple[Mixture, int]],
        seed: int,
    ) -> None:
        self._rng = random.Random(f"tts-tui texts 1/{seed}")
        self._families = list(families)
        # What takes more steps is drawn more often: there is more to go wrong.
        self._weights = [len(problem(name, "train", 0).steps) for name in families]
        self._sampled = sampled
        self._mixtures = list(mixtures)
        self._mixture = self._mixtures[0][0]

    def __iter__(self) -> Iterator[Text]:
        """The texts."""
        for place, (mixture, count) in enumerate(self._mixtures):
            self._mixture = mixture
            texts = self._of(mixture)
            yield from texts if place == len(self._mixtures) - 1 else islice(texts, count)

    def _of(self, mixture: Mixture) -> Iterator[Text]:
        kinds = {
            self._worked: mixture.worked,
            self._direct: mixture.direct,
            self._slipped: mixture.slipped,
            self._facts: mixture.facts,
            self._own: mixture.sampled if self._sampled else 0.0,
        }
        while True:
            text = self._rng.choices(list(kinds), list(kinds.values()))[0]()
            if text is not None:
                yield text

    def _draw(self) -> tuple[str, str, tuple[str, ...]]:
        rng = self._rng
        if not self._families or rng.random() < self._mixture.practice:
            question, answer, steps = PRACTICE[rng.choice(list(PRACTICE))](rng)
            return question, str(answer), steps
        while True:
            name = rng.choices(self._families, self._weights)[0]
            question, answer, steps = FAMILIES[name].draw(rng)
            if split_of(name, question) == "train":
                return question, str(answer), steps

    def _worked(self) -> Text:
        question, answer, steps = self._draw()
        return Text(question, (*_steps(other_plan(self._rng, steps)), _answer(answer)))

    def _direct(self) -> Text:
        question, answer, _ = self._draw()
        return Text(question, (_answer(answer),))

    def _slipped(self) -> Text | None:
        question, answer, steps = self._draw()
        found = slipped(self._rng, steps, answer)
        if found is None:
            return None
        first, told, _ = found
        return Text(question, (*_steps(told, lambda at: at < first), _answer(answer)))

    def _facts(self) -> Text:
        return Text("", tuple(Part(f"Step {self._rng.randint(1, 4)}: {fact(self._rng)}\n\n") for _ in range(FACTS)))

    def _own(self) -> Text | None:
        sampled = self._rng.choice(self._sampled)
        number = self._rng.randrange(len(sampled.solutions))
        return own_text(sampled, number)


def own_text(sampled: Sampled, number: int) -> Text | None:
    """What is to be learned from a policy's solution; None where that is nothing."""
    solution, asked = sampled.solutions[number], sampled.problem
    if solution.answer is None:
        return None
    holds = [step_holds(step, asked) for step in solution.steps]
    until = holds.index(False) if False in holds else len(holds)
    if sampled.right[number]:
        parts = [Part(step, at < until or at == len(holds) - 1) for at, step in enumerate(solution.steps)]
        return Text(asked.question, tuple(parts))
    # Where the arithmetic holds and the answer is wrong, it is not known which step was the wrong one.
    parts = [Part(step, at < until and until < len(holds)) for at, step in enumerate(solution.steps[:-1])]
    return Text(asked.question, (*parts, _answer(asked.answer)))


def other_plan(rng: random.Random, steps: tuple[str, ...]) -> tuple[str, ...]:
    """The steps, in one case of five one of them with the operands of its sum or product swapped."""
    if rng.random() > 0.2:
        return steps
    at = rng.randrange(len(steps))
    swapped = re.sub(r"^(\d+) ([+*]) (\d+) =", r"\3 \2 \1 =", steps[at])
    return (*steps[:at], swapped, *steps[at + 1 :])


# --- tokens -----------------------------------------------------------------------------------------------------------


class TrainingRow(Struct, frozen=True):
    """Token ids, and what shall be predicted at each: the next token, or -1 where nothing is learned."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]


def row(text: Text, layout: Any) -> TrainingRow:
    """The tokens of a text, laid out as the PRM will read it (`tts_tui.backends.adapter.text.AdapterText`)."""
    ids = list(layout.prompt(text.question)) if text.question else []
    learn = [False] * len(ids)
    for part in text.steps:
        own = layout.step(part.text)
        ids += own
        learn += [part.learn] * len(own)
    follow = [ids[at + 1] if learn[at + 1] else -1 for at in range(len(ids) - 1)]
    return TrainingRow(tuple(ids), (*follow, -1))
