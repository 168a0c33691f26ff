"""From log-ratios to scores: read as the PRM reads, and weighed so that right and wrong steps part."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
import torch

from tests.backends import tiny
from tests.backends.adapter.test_lora import changed
from tests.backends.adapter.test_reward_model import CHOICES, HEAD, MODEL, base, prefixes, running, write  # noqa: F401
from tests.evaluation.prm.test_step_labels import SUM, solution
from tts_tui.answers.canonical import extract
from tts_tui.backends.adapter import file as adapter_file
from tts_tui.backends.adapter.file import ScoreModel, Sums
from tts_tui.backends.adapter.lora import adapted, put
from tts_tui.backends.adapter.text import AdapterText
from tts_tui.evaluation.datasets.families import Problem
from tts_tui.evaluation.samples import Sampled, Solution
from tts_tui.training.prm import score_fit
from tts_tui.training.prm.score_fit import Read, fit, read, scored

LAYOUT = AdapterText(tiny.TOKENIZER)
SAMPLED = (
    Sampled(SUM, (solution("7 + 8 = 15", "15 - 6 = 9", "\\boxed{9}"), solution("\\boxed{9}"))),
    Sampled(
        Problem("add0", "train", 0, "And 3?", "3", ()),
        (
            solution("7 - 8 = 1", "2"),
            solution("7 - 8 = 1", "2"),
            Solution((), (), "length", None),
            Solution(("a cut\n\n", "off"), ((1,), (1,)), "length", None),
        ),
    ),
)


def the_model(file: Path | None = None) -> torch.nn.Module:
    model = adapted(MODEL, HEAD.shape)
    put(model, adapter_file.load(file).tensors if file else changed(MODEL, HEAD.shape))
    return model.eval()


def by_hand(model: torch.nn.Module, question: str, steps: tuple[str, ...]) -> list[Sums]:
    ids, found = list(LAYOUT.prompt(question)), []
    for step in steps:
        own = LAYOUT.step(step)
        with torch.inference_mode():
            logits = model(torch.tensor([[*ids, *own]]), use_cache=False).logits[0, len(ids) - 1 : -1]
        best = logits[:, list(CHOICES)].amax(-1)
        ratios = (logits[range(len(own)), list(own)] - best).clamp(-12.0, 0.0).tolist()
        found.append(Sums.of(ratios))
        ids += own
    return found


def answered(model: torch.nn.Module, question: str, own: Solution) -> float:
    """What is made of a solution's answer behind the question at once."""
    answer = extract("".join(own.steps))
    if answer is None:
        return -6.0
    return max(-6.0, by_hand(model, question, (f"The answer is \\boxed{{{answer}}}.",))[0].total)


@pytest.mark.parametrize("tokens", [3000, 1])
def test_solutions_are_read_as_a_plain_forward_reads_them(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_fit, "_BATCH", tokens)
    model, shares = the_model(), []
    found = read(model, LAYOUT, torch.tensor(CHOICES), SAMPLED, shares.append)
    assert [one.sampled for one in found] == list(SAMPLED)
    # Five solutions, two of them the same and one empty, and three answers: one of them is a solution as well.
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) == (1 if tokens == 3000 else 6)
    for one in found:
        assert len(one.sums) == len(one.sampled.solutions)
        question = one.sampled.problem.question
        assert list(one.alone) == pytest.approx(
            [answered(model, question, own) for own in one.sampled.solutions], abs=1e-3
        )
        for own, sums in zip(one.sampled.solutions, one.sums, strict=True):
            expected = by_hand(model, question, own.steps)
            assert [each.lowest for each in sums] == pytest.approx([each.lowest for each in expected], abs=1e-4)
            assert [each.total for each in sums] == pytest.approx([each.total for each in expected], abs=1e-3)


@pytest.mark.parametrize("alone", [0.0, 0.4])
async def test_scores_are_those_of_the_prm(base: Path, tmp_path: Path, alone: float) -> None:  # noqa: F811
    path = write(tmp_path / "tiny.safetensors", base, answer=msgspec.structs.replace(HEAD.answer, alone=alone))
    head = adapter_file.peek(path)
    found = scored(head, read(the_model(path), LAYOUT, torch.tensor(CHOICES), SAMPLED, lambda share: None))
    assert [one.right for one in found] == [(True, True), (False, False, False, False)]
    async with running(path) as prm:
        for one in found:
            assert len(one.scores) == len(one.sampled.solutions)
            for own, scores in zip(one.sampled.solutions, one.scores, strict=True):
                asked = prefixes(*own.steps, problem=one.sampled.problem.question)
                expected = [score.score for score in await prm.score(asked)]
                assert list(scores) == pytest.approx(expected, abs=1e-4)


def some_reads(seed: int, count: int) -> list[Read]:
    """Right solutions whose tokens are likely, and wrong ones with an unlikely token in their second step or answer."""
    rng = random.Random(seed)

    def likely() -> Sums:
        low = -rng.random()
        return Sums(low, 2 * low)

    def unlikely() -> Sums:
        low = -4 - rng.random()
        return Sums(low, 2 * low)

    right = solution("7 + 8 = 15", "15 - 6 = 9", "\\boxed{9}")
    slip = solution("7 + 8 = 15", "15 - 6 = 8", "\\boxed{8}")
    return [
        Read(
            Sampled(SUM, (right, slip)),
            ((likely(), likely(), likely()), (likely(), unlikely(), rng.choice((likely, unlikely))())),
            (-1.0, -1.0),
        )
        for _ in range(count)
    ]


def test_what_is_fitted_tells_right_steps_from_wrong_ones() -> None:
    step, answer = fit(some_reads(0, 30))
    for judgement in (step, answer):
        assert judgement.bias > 0
        assert min(judgement.lowest, judgement.total, judgement.lowest_before, judgement.total_before) >= 0
    likely, unlikely = Sums(-0.5, -1.0), Sums(-4.5, -9.0)
    assert step.score(likely, Sums()) > 0.9 and step.score(unlikely, likely) < 0.1
    # An answer that is likely behind an unlikely step is wrong.
    assert answer.score(likely, likely) > 0.9 and answer.score(likely, unlikely) < 0.2
    assert answer.lowest_before + answer.total_before > step.lowest_before + step.total_before
    flags = scored(adapter_file.AdapterHead(HEAD.shape, "", "", step, answer), some_reads(1, 20))
    assert all(good[-1] > 0.5 > bad[-1] and good[1] > 0.5 > bad[1] for good, bad in (one.scores for one in flags))


def test_an_answer_that_is_unlikely_from_the_question_alone_can_be_told_by_that() -> None:
    rng = random.Random(0)
    solutions = (solution("Let us see.", "\\boxed{9}"), solution("Let us see.", "\\boxed{8}"))
    same = (Sums(-1.0, -2.0), Sums(-0.5, -1.0))
    reads = [Read(Sampled(SUM, solutions), (same, same), (-rng.random(), -3 - rng.random())) for _ in range(30)]
    step, answer = fit(reads)
    assert step.alone == 0.0
    assert answer.alone > max(answer.lowest, answer.total, answer.lowest_before, answer.total_before)
    assert answer.score(same[1], same[0], -0.5) > 0.9 and answer.score(same[1], same[0], -3.5) < 0.1
    head = adapter_file.AdapterHead(HEAD.shape, "", "", step, answer)
    assert all(right[-1] > 0.5 > wrong[-1] for right, wrong in (one.scores for one in scored(head, reads)))


def test_a_less_likely_token_never_speaks_for_a_step() -> None:
    turned = [
        Read(
            one.sampled,
            tuple(tuple(Sums(-5 - own.lowest, -10 - own.total) for own in sums) for sums in one.sums),
            one.alone,
        )
        for one in some_reads(0, 20)
    ]
    step, _ = fit(turned)
    assert min(step.lowest, step.total, step.lowest_before, step.total_before) >= 0
    assert step.score(Sums(-5.0, -10.0), Sums()) <= step.score(Sums(), Sums())


def test_every_problem_weighs_the_same() -> None:
    reads = some_reads(0, 12)
    # The same solutions ten times over say no more about their problem.
    many = [Read(Sampled(SUM, reads[0].sampled.solutions * 10), reads[0].sums * 10, reads[0].alone * 10), *reads[1:]]
    for one, other in zip(fit(reads), fit(many), strict=True):
        assert one.bias == pytest.approx(other.bias, abs=0.05)
        assert one.lowest == pytest.approx(other.lowest, abs=0.05)


def test_where_all_steps_are_right_nothing_is_fitted() -> None:
    right = Sampled(SUM, (solution("7 + 8 = 15", "\\boxed{9}"),))
    assert fit([Read(right, ((Sums(), Sums()),), (0.0,))]) == (ScoreModel(), ScoreModel())
    assert fit([]) == (ScoreModel(), ScoreModel())
