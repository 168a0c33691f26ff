"""Training texts of an adapter: token rows, each with the target at every position.

The adapter learns to continue *right* solutions only. A step is then the more likely wrong, the less likely its tokens
are under the adapter than the tokens that it would have generated itself. Kinds of rows:

- **worked**: the question, right steps, the answer;
- **direct**: the question, immediately followed by the answer;
- **slipped**: the question, right steps up to a slip, wrong steps, and then the *right* answer, so that the adapter
  does not trust an answer just because the steps lead to it. The wrong steps themselves are not targets;
- **sampled**: solutions of the policy itself: right ones in full; of wrong ones the right beginning, and then the right
  answer;
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
"""Number of equations in a row of facts."""


class Part(Struct, frozen=True):
    """A question or step within a text; `learn` is true if its tokens are targets of training."""

    text: str
    learn: bool = True


class Text(Struct, frozen=True):
    """A question with steps, the last of which states the answer; `question` is empty if the text is no solution."""

    question: str
    steps: tuple[Part, ...]


class Mixture(Struct, frozen=True):
    """The relative frequencies of the kinds of rows, which need not add up to one.

    Attributes:
        worked: Right steps and the answer.
        direct: The answer immediately after the question.
        slipped: Steps with a slip, then the right answer.
        facts: Single equations.
        sampled: Solutions of the policy.
        practice: Share of practice problems, which belong to no family, among worked, direct and slipped rows.
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
"""Mixture used once steps are learned: it teaches which answers are likely, given the question alone."""


OWN = Mixture(worked=0.0, direct=0.0, slipped=0.0, facts=0.0, sampled=1.0, practice=0.0)
"""Mixture used where no program can generate problems: solutions of the policy only."""
STEPS_FIRST = 5600
"""Number of texts of `Mixture()` before those of `ANSWERS`."""


class TextSampler:
    """An endless iterable of random texts, reproducible for a given seed.

    Args:
        families: Names of the families to draw from; only problems of their split `train` are used.
        sampled: Solutions of the policy on problems of the split `train`.
        mixtures: Mixtures, each with the number of texts after which the next one applies; the last number is ignored.
        seed: Seed of all random draws.
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
        # Families with more steps are drawn more often, since more can go wrong in them.
        self._weights = [len(problem(name, "train", 0).steps) for name in families]
        self._sampled = sampled
        self._mixtures = list(mixtures)
        self._mixture = self._mixtures[0][0]

    def __iter__(self) -> Iterator[Text]:
        """Yield texts without end."""
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
    """Return the training text made from a policy's solution; None if nothing can be learned from it."""
    solution, asked = sampled.solutions[number], sampled.problem
    if solution.answer is None:
        return None
    holds = [step_holds(step, asked) for step in solution.steps]
    until = holds.index(False) if False in holds else len(holds)
    if sampled.right[number]:
        parts = [Part(step, at < until or at == len(holds) - 1) for at, step in enumerate(solution.steps)]
        return Text(asked.question, tuple(parts))
    # If the arithmetic holds but the answer is wrong, it is unknown which step is wrong.
    parts = [Part(step, at < until and until < len(holds)) for at, step in enumerate(solution.steps[:-1])]
    return Text(asked.question, (*parts, _answer(asked.answer)))


def other_plan(rng: random.Random, steps: tuple[str, ...]) -> tuple[str, ...]:
    """Return the steps; with probability 0.2, one has the operands of its sum or product swapped."""
    if rng.random() > 0.2:
        return steps
    at = rng.randrange(len(steps))
    swapped = re.sub(r"^(\d+) ([+*]) (\d+) =", r"\3 \2 \1 =", steps[at])
    return (*steps[:at], swapped, *steps[at + 1 :])


# --- tokens -----------------------------------------------------------------------------------------------------------


class TrainingRow(Struct, frozen=True):
    """Token ids with the target at each position: the next token, or -1 where nothing is learned."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]


def row(text: Text, layout: Any) -> TrainingRow:
    """Return the tokens of a text, in the layout that the PRM reads (`tts_tui.backends.adapter.text.AdapterText`)."""
    ids = list(layout.prompt(text.question)) if text.question else []
    learn = [False] * len(ids)
    for part in text.steps:
        own = layout.step(part.text)
        ids += own
        learn += [part.learn] * len(own)
    follow = [ids[at + 1] if learn[at + 1] else -1 for at in range(len(ids) - 1)]
    return TrainingRow(tuple(ids), (*follow, -1))
