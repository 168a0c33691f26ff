"""Whether more samples would change the answer, against enumeration and against problems drawn from the model."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from benchmarks.controller.stopping import changes
from tts_tui.controller.difficulty import GRID, AnswerLikelihood, Observation, prior, update
from tts_tui.training.controller.cases import elect

UNIFORM = prior(0.5, 2.0)
PLAIN = AnswerLikelihood(slope=1.0, intercept=0.0, power=0.0, agreement=3.0)
VOTES = ("majority", "prm-vote", "prm-max")


@pytest.mark.parametrize("vote", VOTES)
def test_no_further_samples_change_nothing(vote):
    belief = update(UNIFORM, [Observation(0, 0.4), Observation(1, 0.6)], PLAIN)
    found = changes(belief, PLAIN, vote, 0)
    assert (found.answer, found.gained, found.lost, found.gain) == (0, 0, 0, 0)


def test_a_majority_that_cannot_be_overtaken_is_certain():
    belief = update(UNIFORM, [Observation(0)] * 4 + [Observation(1)], PLAIN)
    assert changes(belief, PLAIN, "majority", 3).answer == 0  # 4 against 4 at most, and the first is kept
    assert changes(belief, PLAIN, "majority", 4).answer > 0


def test_one_more_sample_under_majority_agrees_with_enumeration():
    seen = [
        Observation(0),
        Observation(1),
        Observation(1),
    ]  # one more of the first answer makes two against two: the first one seen wins
    belief = update(UNIFORM, seen, PLAIN)
    joint = belief.joint
    expected = joint[0] @ GRID + joint[1] @ (1 - GRID) / (1 + 3) + joint[2] @ (1 - GRID) / (3 + 3)
    found = changes(belief, PLAIN, "majority", 1, draws=40_000)
    assert found.answer == pytest.approx(expected, abs=0.01)
    assert found.gained == pytest.approx(joint[0] @ GRID, abs=0.01)
    assert found.lost == pytest.approx(joint[1] @ (1 - GRID) / (1 + 3), abs=0.01)


@pytest.mark.parametrize(("had", "more"), [(1, 1), (3, 3), (2, 6), (6, 2)])
def test_the_best_of_exchangeable_scores_lies_in_the_rest_by_its_share(had, more):
    nobody = prior(0.002, 500.0)  # never right, and no wrong answer comes twice: a new best is another answer
    how = AnswerLikelihood(slope=0.0, intercept=0.0, agreement=1e6)
    belief = update(nobody, [Observation(place, 0.1 + 0.1 * place) for place in range(had)], how)
    found = changes(belief, how, "prm-max", more).answer
    assert found == pytest.approx(more / (had + more), abs=0.025)


@pytest.mark.parametrize("vote", VOTES)
def test_gains_and_losses_are_changes_of_the_answer(vote):
    belief = update(UNIFORM, [Observation(0, 0.5), Observation(1, 0.4)], PLAIN)
    found = changes(belief, PLAIN, vote, 6)
    assert 0 < found.lost < found.gained < found.answer < 1
    assert found.gained + found.lost <= found.answer
    assert found.gain == pytest.approx(found.gained - found.lost)
    assert found.gained <= 1 - belief.right[0]
    assert found.lost <= belief.right[0]


@pytest.mark.parametrize("vote", VOTES)
def test_the_more_samples_agree_the_less_will_change(vote):
    chances = [changes(update(UNIFORM, [Observation(0, 0.8)] * k, PLAIN), PLAIN, vote, 8).answer for k in (1, 2, 4, 8)]
    assert chances == sorted(chances, reverse=True)
    assert chances[-1] < 0.25 * chances[0]


def test_a_trusted_score_makes_a_change_less_likely():
    high, low = (update(UNIFORM, [Observation(0, score)] * 2, PLAIN) for score in (0.95, 0.1))
    for vote in VOTES:
        assert changes(high, PLAIN, vote, 6).gained < changes(low, PLAIN, vote, 6).gained


def test_without_an_answer_so_far_the_first_one_is_a_change():
    belief = update(UNIFORM, [Observation(-1, 0.5)], PLAIN)
    few, many = (changes(belief, PLAIN, "prm-max", more) for more in (1, 8))
    # the next one is right in a third of cases; a wrong one has no answer in half of them, as 1 of 1 + 1 had none
    assert few.answer == pytest.approx(1 / 3 + 2 / 3 / 2, abs=0.03)
    assert few.gained == pytest.approx(1 / 3, abs=0.03)
    assert few.lost == 0
    assert many.answer > 0.9


def test_votes_by_score_need_scores():
    belief = update(UNIFORM, [Observation(0), Observation(1), Observation(1)], PLAIN)
    for vote in ("prm-vote", "prm-max"):
        assert changes(belief, PLAIN, vote, 3) == changes(belief, PLAIN, "majority", 3)


def test_scores_of_a_search_serve_where_no_sample_has_any():
    belief = update(UNIFORM, [Observation(0, 0.9, sampled=False), Observation(-1)], PLAIN)
    assert 0 < changes(belief, PLAIN, "prm-max", 4).answer < 0.5


def test_the_same_seed_plays_out_the_same():
    belief = update(UNIFORM, [Observation(0, 0.5), Observation(1, 0.6)], PLAIN)
    assert changes(belief, PLAIN, "prm-vote", 4, seed=3) == changes(belief, PLAIN, "prm-vote", 4, seed=3)
    assert changes(belief, PLAIN, "prm-vote", 4, seed=3) != changes(belief, PLAIN, "prm-vote", 4, seed=4)


def drawn(rng: random.Random, count: int, agreement: float) -> list[int]:
    """Groups of a problem's samples as the model has them; group 1000 is the right one."""
    pass1, wrong, found = rng.random(), [], []
    for _ in range(count):
        if rng.random() < pass1:
            found.append(1000)
        else:
            new = rng.random() < agreement / (agreement + len(wrong))
            wrong.append(len(set(wrong)) if new else rng.choice(wrong))
            found.append(wrong[-1])
    return found


def test_on_problems_drawn_from_the_model_the_probabilities_come_true():
    rng = random.Random(5)
    forecast: list[tuple[float, float, float]] = []
    came: list[tuple[bool, bool, bool]] = []
    for _ in range(500):
        answers = drawn(rng, 8, 3.0)
        number = {answer: place for place, answer in enumerate(dict.fromkeys(answers))}
        seen = [Observation(number[answer]) for answer in answers]
        found = changes(update(UNIFORM, seen[:3], PLAIN), PLAIN, "majority", 5, draws=200)
        now, then = elect(seen[:3], "majority"), elect(seen, "majority")
        right = number.get(1000, -1)
        forecast.append((found.answer, found.gained, found.lost))
        came.append((now != then, now != right == then, now == right != then))
    for predicted, seen_ in zip(zip(*forecast, strict=True), zip(*came, strict=True), strict=True):
        assert fmean(seen_) == pytest.approx(fmean(predicted), abs=0.04)
    likely = [seen_[0] for predicted, seen_ in zip(forecast, came, strict=True) if predicted[0] > 0.4]
    unlikely = [seen_[0] for predicted, seen_ in zip(forecast, came, strict=True) if predicted[0] < 0.1]
    assert fmean(likely) > 0.4
    assert fmean(unlikely) < 0.1
