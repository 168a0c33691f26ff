"""From log-ratios to scores: reads sampled solutions with an adapter, and fits what its ratios mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from msgspec import Struct

from tts_tui.backends.adapter_file import Head, Judgement, Sums
from tts_tui.backends.adapter_text import AdapterText, ends, log_ratios
from tts_tui.evaluation.prm_report import Scored
from tts_tui.evaluation.samples import Sampled
from tts_tui.training.labels import step_labels

_BATCH = 3000
"""Tokens in one forward."""


class Read(Struct, frozen=True):
    """A problem's solutions with the sums of every step's log-ratios."""

    sampled: Sampled
    sums: tuple[tuple[Sums, ...], ...]


@torch.inference_mode()
def read(
    model: Any, layout: AdapterText, choices: torch.Tensor, sampled: Sequence[Sampled], tell: Callable[[float], None]
) -> list[Read]:
    """What the adapter makes of sampled solutions.

    Args:
        model: An adapted model.
        layout: How it reads.
        choices: Ids of its vocabulary.
        sampled: Problems with solutions.
        tell: Told the share that is done.
    """
    parts = [
        (len(layout.prompt(problem.problem.question)), _pieces(layout, problem.problem.question, own.steps))
        for problem in sampled
        for own in problem.solutions
    ]
    table = model.get_output_embeddings().weight
    rows = table[choices.to(table.device)]
    found: dict[tuple[int, ...], list[float]] = {}
    distinct = sorted({tuple(sum(pieces, ())) for _, pieces in parts}, key=len)
    for done, batch in _batches(distinct):
        longest = len(batch[-1])
        ids = torch.tensor([[*own, *[0] * (longest - len(own))] for own in batch], device=table.device)
        states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        for place, own in enumerate(batch):
            before = states[place, : len(own) - 1]
            found[own] = log_ratios(before, table[list(own[1:])], rows).tolist()
        tell(done)
    result, at = [], 0
    for problem in sampled:
        sums = [
            tuple(_cut(found[tuple(sum(pieces, ()))][start - 1 :], pieces[1:]))
            for start, pieces in parts[at : at + len(problem.solutions)]
        ]
        at += len(problem.solutions)
        result.append(Read(problem, tuple(sums)))
    return result


def _pieces(layout: AdapterText, question: str, steps: Sequence[str]) -> list[tuple[int, ...]]:
    return [layout.prompt(question), *(layout.step(step) for step in steps)]


def _batches(rows: Sequence[tuple[int, ...]]) -> Iterator[tuple[float, list[tuple[int, ...]]]]:
    """Rows of increasing length, in batches, and the share of all that is done with each."""
    batch: list[tuple[int, ...]] = []
    for number, row in enumerate(rows, 1):
        if batch and (len(batch) + 1) * len(row) > _BATCH:
            yield (number - 1) / len(rows), batch
            batch = []
        batch.append(row)
    if batch:
        yield 1.0, batch


def _cut(ratios: Sequence[float], pieces: Sequence[tuple[int, ...]]) -> Iterator[Sums]:
    at = 0
    for piece in pieces:
        yield Sums.of(ratios[at : at + len(piece)])
        at += len(piece)


# --- what the ratios mean ---------------------------------------------------------------------------------------------


def fit(problems: Sequence[Read]) -> tuple[Judgement, Judgement]:
    """Judgements of a step and of an answer, by logistic regression on labelled steps.

    Every problem weighs the same, whatever the number of its solutions. Weights are not negative: a token that is less
    likely never speaks for a step.
    """
    inner: list[tuple[list[float], bool, float]] = []
    last: list[tuple[list[float], bool, float]] = []
    for problem in problems:
        share = 1.0 / max(1, len(problem.sums))
        labels = step_labels(problem.sampled)
        for own, flags, solution in zip(problem.sums, labels, problem.sampled.solutions, strict=True):
            before = Sums()
            for step, flag, text in zip(own, flags, solution.steps, strict=True):
                values = [step.lowest, step.total, before.lowest, before.total]
                (last if ends(text) else inner).append((values, flag, share))
                before = before.then(step)
    return _logistic(inner), _logistic(last)


def _logistic(examples: Sequence[tuple[list[float], bool, float]]) -> Judgement:
    if len({flag for _, flag, _ in examples}) < 2:
        return Judgement()
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
    return Judgement(float(bias), *(round(weight, 5) for weight in weights))


def scored(head: Head, problems: Sequence[Read]) -> list[Scored]:
    """The score of every step, as `AdapterPRM` gives it."""
    return [
        Scored(problem.sampled, tuple(_scores(head, problem)), tuple(problem.sampled.right)) for problem in problems
    ]


def _scores(head: Head, problem: Read) -> Iterator[tuple[float, ...]]:
    for own, solution in zip(problem.sums, problem.sampled.solutions, strict=True):
        before, scores = Sums(), []
        for step, text in zip(own, solution.steps, strict=True):
            scores.append((head.answer if ends(text) else head.step).score(step, before))
            before = before.then(step)
        yield tuple(scores)
