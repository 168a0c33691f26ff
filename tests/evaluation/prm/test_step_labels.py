"""Which steps are right: by program where it can tell, by other continuations where it cannot."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.scripted import ScriptedPolicy, encode
from tts_tui.answers.canonical import extract
from tts_tui.evaluation.datasets.families import Problem
from tts_tui.evaluation.prm.step_labels import roll_out, step_labels
from tts_tui.evaluation.samples import Rollouts, Sampled, SamplingSettings, Solution

SUM = Problem("addsub", "train", 0, "What is 7 + 8 - 6?", "9", ("7 + 8 = 15", "15 - 6 = 9"))
SETTINGS = SamplingSettings("scripted")


def solution(*steps: str) -> Solution:
    """Steps as the scripted policy would have written them."""
    texts = (*(f"{step}\n\n" for step in steps[:-1]), steps[-1])
    return Solution(texts, tuple(tuple(encode(text)) for text in texts), "eos", extract("".join(texts)))


def labels(*solutions: Solution, problem: Problem = SUM, rollouts: tuple[Rollouts, ...] = ()) -> list[list[bool]]:
    return step_labels(Sampled(problem, solutions, rollouts))


def test_all_of_a_right_solution_is_right_but_steps_whose_arithmetic_is_wrong() -> None:
    assert labels(solution("7 + 8 = 15", "15 - 6 = 9", "\\boxed{9}")) == [[True, True, True]]
    assert labels(solution("Let us see.", "7 + 8 = 15", "\\boxed{9}")) == [[True, True, True]]
    assert labels(solution("7 + 8 = 16", "16 - 6 = 9", "\\boxed{9}")) == [[False, False, True]]


def test_from_a_wrong_equation_on_a_wrong_solution_is_wrong() -> None:
    assert labels(solution("7 + 8 = 16", "16 - 6 = 10", "\\boxed{10}")) == [[False, False, False]]
    assert labels(solution("7 + 8 = 15", "15 - 6 = 8", "15 - 6 = 9", "\\boxed{8}")) == [[True, False, False, False]]


@pytest.mark.parametrize("step", ["7 + 8 = 15", "8 + 7 = 15", "Step 1: 8+7 = 15"])
def test_a_step_of_the_gold_solution_is_right_in_a_wrong_one(step: str) -> None:
    assert labels(solution(step, "15 + 6 = 21", "\\boxed{21}")) == [[True, False, False]]


def test_gold_steps_may_be_written_in_other_ways() -> None:
    product = Problem("mixed", "train", 0, "What is 3 * 4 + 5?", "17", ("3 * 4 = 12", "12 + 5 = 17"))
    for step in ("3 * 4 = 12", "4 × 3 = 12", "4 x 3 = 12"):
        assert labels(solution(step, "12 - 5 = 7", "\\boxed{7}"), problem=product) == [[True, False, False]]
    largest = Problem("cmp", "train", 0, "Which is the largest of 3 and 12?", "12", ("max(3, 12) = 12",))
    assert labels(solution("max(12, 3) = 12", "\\boxed{3}"), problem=largest) == [[True, False]]
    # A difference or a quotient the other way round is another one.
    assert labels(solution("15 - 9 = 6", "\\boxed{6}")) == [[False, False]]


def test_what_nobody_can_tell_is_wrong_unless_it_was_gone_on_from_to_the_right_answer() -> None:
    vague = solution("Let us see.", "7 - 6 = 1", "8 - 1 = 7", "\\boxed{7}")
    assert labels(vague) == [[False, False, False, False]]
    seen = Rollouts(vague.steps[:1], 1, 4)
    assert labels(vague, rollouts=(seen,)) == [[True, False, False, False]]
    further = Rollouts(vague.steps[:2], 2, 4)
    assert labels(vague, rollouts=(seen, further)) == [[True, True, False, False]]
    assert labels(vague, rollouts=(msgspec.structs.replace(seen, right=0), further)) == [[False, False, False, False]]
    # Another sample did.
    other = solution("Let us see.", "7 - 6 = 1", "8 + 1 = 9", "\\boxed{9}")
    assert labels(vague, other) == [[True, True, False, False], [True, True, True, True]]


def test_a_solution_without_an_answer_is_judged_by_its_steps() -> None:
    cut = Solution(("7 + 8 = 15\n\n", "15 - 6"), ((1,), (1,)), "length", None)
    assert labels(cut) == [[True, False]]
    assert labels(Solution((), (), "length", None)) == [[]]
    assert labels(Solution(("7 + 8 = 15\n\n", "15 - 6 = 9"), ((1,), (1,)), "length", None)) == [[True, True]]


# --- rollouts ---------------------------------------------------------------------------------------------------------


class Noted(ScriptedPolicy):
    """A scripted policy; `paths` are the texts of the paths that it was asked to go on from."""

    def __init__(self, answers: dict[tuple[str, ...], str]) -> None:
        self.paths: list[tuple[str, ...]] = []

        def script(path: tuple[str, ...], draw: int) -> str:
            self.paths.append(path)
            return answers.get(path, "\\boxed{0}")

        super().__init__(script)


async def test_only_what_nobody_can_tell_is_rolled_out_until_nothing_ends_right() -> None:
    vague = solution("Let us see.", "7 - 6 = 1", "8 - 1 = 7", "\\boxed{7}")
    first, second = vague.steps[:1], vague.steps[:2]
    policy = Noted({first: "\\boxed{9}"})
    sampled = Sampled(SUM, (vague,))
    rolled = await roll_out(policy, sampled, SETTINGS, 3)
    assert sorted(policy.paths) == sorted([first] * 3 + [second] * 3)  # nothing of what follows a dead end
    assert {each.steps: (each.right, each.total) for each in rolled.rollouts} == {first: (3, 3), second: (0, 3)}
    assert (rolled.problem, rolled.solutions) == (sampled.problem, sampled.solutions)
    assert step_labels(rolled) == [[True, False, False, False]]
    assert len({request.seed for request in policy.requests}) == 6


async def test_nothing_is_rolled_out_where_it_is_known() -> None:
    policy = Noted({})
    known = (
        solution("7 + 8 = 15", "15 - 6 = 9", "\\boxed{9}"),
        solution("7 + 8 = 16", "16 - 6 = 10", "\\boxed{10}"),  # wrong at once
        solution("8 + 7 = 15", "15 - 6 = 8", "\\boxed{8}"),  # gold, then wrong
        solution("Let us see.", "7 - 6 = 1", "8 + 1 = 9", "\\boxed{9}"),
        solution("Let us see.", "7 - 6 = 2", "\\boxed{2}"),  # the first step is another's, which is right
        solution("\\boxed{2}"),
    )
    rolled = await roll_out(policy, Sampled(SUM, known), SETTINGS, 3)
    assert policy.requests == [] and rolled.rollouts == ()


async def test_a_beginning_that_solutions_share_is_rolled_out_once() -> None:
    policy = Noted({})
    shared = (solution("Let us see.", "\\boxed{1}"), solution("Let us see.", "\\boxed{2}"))
    rolled = await roll_out(policy, Sampled(SUM, shared), SETTINGS, 2)
    assert policy.paths == [("Let us see.\n\n",)] * 2
    assert rolled.rollouts == (Rollouts(("Let us see.\n\n",), 0, 2),)


async def test_a_continuation_has_the_tokens_that_are_left() -> None:
    policy = Noted({})
    begun = solution("Let us see.", "\\boxed{1}")
    await roll_out(policy, Sampled(SUM, (begun,)), SamplingSettings("scripted", 0.5, 100), 1)
    (request,) = policy.requests
    assert request.max_tokens == 100 - len(begun.ids[0]) and request.rollout
    assert request.sampling.temperature == 0.5
    assert request.ids == (*(await policy.prompt(SUM.question)).ids, *begun.ids[0])


def test_the_same_rollouts_every_time() -> None:
    def seeds() -> list[int]:
        policy = Noted({})
        vague = solution("Let us see.", "\\boxed{1}")
        asyncio.run(roll_out(policy, Sampled(SUM, (vague,)), SETTINGS, 3))
        return sorted(request.seed for request in policy.requests)

    assert seeds() == seeds()
