"""Calibration of scores: computes an adapter's log-ratios on sampled solutions, and fits scores to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from msgspec import Struct

from tts_tui.backends.adapter.file import AdapterHead, ScoreModel, Sums
from tts_tui.backends.adapter.text import ALONE_FLOOR, AdapterText, alone, ends, log_ratios
from tts_tui.evaluation.prm.step_labels import step_labels
from tts_tui.evaluation.prm.voting_report import Scored
from tts_tui.evaluation.samples import Sampled

_BATCH = 3000
"""Maximum number of tokens in a forward pass."""


class Read(Struct, frozen=True):
    """The log-ratios of an adapter on a problem's solutions.

    Attributes:
        sampled: The problem and the solutions.
        sums: The lowest log-ratio and the sum of log-ratios of every step of every solution.
        alone: For every solution, the sum of log-ratios of its answer directly after the question, at least the floor
            (-`ALONE_FLOOR`); the floor itself if it has no answer.
    """

    sampled: Sampled
    sums: tuple[tuple[Sums, ...], ...]
    alone: tuple[float, ...]


def read(
    model: Any, layout: AdapterText, choices: torch.Tensor, sampled: Sequence[Sampled], tell: Callable[[float], None]
) -> list[Read]:
    """Return the log-ratios of the adapter on sampled solutions.

    Args:
        model: An adapted model.
        layout: Layout of texts as token ids.
        choices: Token ids of the adapter's vocabulary.
        sampled: Problems with solutions.
        tell: Called with the share of the work that is done.
    """
    paths: dict[tuple[str, ...], _Path] = {}
    for problem in sampled:
        question = problem.problem.question
        for own in problem.solutions:
            for steps in (own.steps, _alone(own.steps)):
                if steps and (question, *steps) not in paths:
                    paths[(question, *steps)] = _Path([layout.prompt(question), *map(layout.step, steps)])
    found = dict(zip(paths, _ratios(model, choices, list(paths.values()), tell), strict=True))
    result = []
    for problem in sampled:
        question = problem.problem.question
        sums = tuple(found[(question, *own.steps)] if own.steps else () for own in problem.solutions)
        alone = [found.get((question, *_alone(own.steps))) for own in problem.solutions]
        floored = tuple(-ALONE_FLOOR if one is None else max(-ALONE_FLOOR, one[0].total) for one in alone)
        result.append(Read(problem, sums, floored))
    return result


def _alone(steps: Sequence[str]) -> tuple[str, ...]:
    answer = alone(steps)
    return () if answer is None else (answer,)


class _Path(Struct, frozen=True):
    """Token ids of a question and of each step after it."""

    pieces: list[tuple[int, ...]]

    @property
    def ids(self) -> list[int]:
        return [token for piece in self.pieces for token in piece]


@torch.inference_mode()
def _ratios(
    model: Any, choices: torch.Tensor, paths: Sequence[_Path], tell: Callable[[float], None]
) -> list[tuple[Sums, ...]]:
    """Return the lowest log-ratio and the sum of log-ratios of every step of every path."""
    table = model.get_output_embeddings().weight
    rows = table[choices.to(table.device)]
    order = sorted(range(len(paths)), key=lambda place: len(paths[place].ids))
    found: dict[int, tuple[Sums, ...]] = {}
    for batch in _batches([(place, paths[place].ids) for place in order]):
        longest = len(batch[-1][1])
        ids = torch.tensor([[*own, *[0] * (longest - len(own))] for _, own in batch], device=table.device)
        states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        for line, (place, own) in enumerate(batch):
            start = len(paths[place].pieces[0])
            before = states[line, start - 1 : len(own) - 1]
            ratios = log_ratios(before, table[own[start:]], rows).tolist()
            found[place] = tuple(_cut(ratios, paths[place].pieces[1:]))
        tell(len(found) / len(paths))
    return [found[place] for place in range(len(paths))]


def _batches(rows: Sequence[tuple[int, list[int]]]) -> Iterator[list[tuple[int, list[int]]]]:
    """Yield rows of increasing length in batches."""
    batch: list[tuple[int, list[int]]] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row[1]) > _BATCH:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _cut(ratios: Sequence[float], pieces: Sequence[tuple[int, ...]]) -> Iterator[Sums]:
    at = 0
    for piece in pieces:
        yield Sums.of(ratios[at : at + len(piece)])
        at += len(piece)


# --- from ratios to scores --------------------------------------------------------------------------------------------


def fit(problems: Sequence[Read]) -> tuple[ScoreModel, ScoreModel]:
    """Fit the score models of a step and of an answer, by logistic regression on labelled steps.

    Every problem has the same total weight, whatever the number of its solutions. Weights are constrained to be
    non-negative, so that a token that is less likely never counts in favour of a step.
    """
    inner: list[tuple[list[float], bool, float]] = []
    last: list[tuple[list[float], bool, float]] = []
    for problem in problems:
        share = 1.0 / max(1, len(problem.sums))
        labels = step_labels(problem.sampled)
        for own, answer, flags, solution in zip(
            problem.sums, problem.alone, labels, problem.sampled.solutions, strict=True
        ):
            before = Sums()
            for step, flag, text in zip(own, flags, solution.steps, strict=True):
                values = [step.lowest, step.total, before.lowest, before.total]
                if ends(text):
                    last.append(([*values, answer], flag, share))
                else:
                    inner.append((values, flag, share))
                before = before.then(step)
    return _logistic(inner), _logistic(last)


def _logistic(examples: Sequence[tuple[list[float], bool, float]]) -> ScoreModel:
    if len({flag for _, flag, _ in examples}) < 2:
        return ScoreModel()
    x = torch.tensor([values for values, _, _ in examples])
    y = torch.tensor([float(flag) for _, flag, _ in examples])
    share = torch.tensor([weight for _, _, weight in examples])
    bias = torch.zeros(1, requires_grad=True)
    raw = torch.full((x.shape[1],), -2.0, requires_grad=True)
    optimizer = torch.optim.LBFGS([bias, raw], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        weights = torch.nn.functional.softplus(raw)
        lost = torch.nn.functional.binary_cross_entropy_with_logits(bias + x @ weights, y, share / share.mean())
        lost = lost + 1e-3 * weights.square().sum()
        lost.backward()
        return lost

    optimizer.step(loss)
    weights = torch.nn.functional.softplus(raw.detach()).tolist()
    return ScoreModel(float(bias.detach()), *(round(weight, 5) for weight in weights))


def scored(head: AdapterHead, problems: Sequence[Read]) -> list[Scored]:
    """Return the problems with the score of every step, as `AdapterPRM` computes it."""
    return [
        Scored(problem.sampled, tuple(_scores(head, problem)), tuple(problem.sampled.right)) for problem in problems
    ]


def _scores(head: AdapterHead, problem: Read) -> Iterator[tuple[float, ...]]:
    for own, answer, solution in zip(problem.sums, problem.alone, problem.sampled.solutions, strict=True):
        before, scores = Sums(), []
        for step, text in zip(own, solution.steps, strict=True):
            scores.append(head.answer.score(step, before, answer) if ends(text) else head.step.score(step, before))
            before = before.then(step)
        yield tuple(scores)
