"""The plain reference reads what is known, and the random PRMs are such that a wrong input or place would show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import tiny_prms
from tests.prm_examples import DATE_BLOCK, QUESTION, RLHFLOW, STEPS, WORKED
from tests.prm_reference import Input, Reference

pytestmark = pytest.mark.tokenizers

QUESTIONS = (QUESTION, "Find all x with x^2 - 5x + 6 = 0.", "A train goes 60 km/h\nfor 3 hours. How far?")
PIECES = (
    *STEPS,
    "So we get\nx = 2 or x = 3.",
    "We multiply: $60 \\cdot 3 = 180$.",
    "This is wrong!",
    "Therefore, the final answer is 5.",
)
PATHS = [
    (question, [PIECES[(i + j * k) % 6] for k in range(4)]) for i, question in enumerate(QUESTIONS) for j in (1, 5)
]
LOADED: dict[str, Reference] = {}


@pytest.fixture(params=tiny_prms.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def reference(kind: str, tiny_prm: Callable[[str], Path]) -> Reference:
    torch.set_num_threads(1)
    if kind not in LOADED:
        LOADED[kind] = Reference(kind, tiny_prm(kind))
    return LOADED[kind]


def worst(ones: list[float], others: list[float]) -> float:
    return max(abs(one - other) for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize("kind", WORKED, indirect=True)
def test_the_example_gives_the_worked_ids_and_places(kind, reference):
    assert reference.input(QUESTION, STEPS) == WORKED[kind]


@pytest.mark.parametrize("kind", ["math-shepherd"], indirect=True)
def test_the_papers_math_shepherd_input_is_another(kind, tiny_prm):
    made = Reference(kind, tiny_prm(kind), "paper").input(QUESTION, STEPS)
    assert made.places == [19, 40]
    assert (len(made.ids), made.ids[-1]) == (42, 13)


@pytest.mark.parametrize("kind", ["skywork"], indirect=True)
def test_skywork_scores_every_line_and_the_paper_every_step(kind, reference, tiny_prm):
    steps = ["So\n\nx = 2.", "Done."]
    official, paper = (made.input(QUESTION, steps) for made in (reference, Reference(kind, tiny_prm(kind), "paper")))
    assert [official.ids.count(198), paper.ids.count(198)] == [4, 2]
    assert [official.ids[place] for place in official.places] == [198, 198]
    assert official.ids[official.places[0] - 6 :][:2] != paper.ids[paper.places[0] - 6 :][:2]


@pytest.mark.parametrize("kind", ["rlhflow"], indirect=True)
def test_rlhflow_reads_each_step_where_the_official_script_does(kind, reference):
    ids, places = reference.input(QUESTION, STEPS)
    for end, place in enumerate(places, start=1):
        alone = reference.input(QUESTION, STEPS[:end]).ids
        assert place == len(alone) - 3
        assert ids[: len(alone)] == alone


def test_rlhflow_takes_the_dates_of_the_template(tmp_path):
    folder = tiny_prms.make("rlhflow", tmp_path, tokenizer="llama3_date")
    made = Reference("rlhflow", folder).input(QUESTION, STEPS)
    assert made == Input([*DATE_BLOCK, *RLHFLOW[1:]], [51, 77])


@pytest.mark.parametrize("kind", ["math-shepherd"], indirect=True)
def test_a_tag_in_a_text_is_noticed(kind, reference):
    with pytest.raises(ValueError, match="3 places for 2 steps"):
        reference.input("кино?", STEPS)


def test_scores_spread_over_most_of_their_range(reference):
    scores = sorted(score for path in PATHS for score in reference.scores(*path))
    assert scores[0] < 0.1
    assert scores[-1] > 0.9
    assert scores[len(scores) * 3 // 4] - scores[len(scores) // 4] > 0.5


def test_every_score_hangs_on_the_question_and_the_first_step(reference):
    question, steps = PATHS[0]
    scores = reference.scores(question, steps)
    for other in ((question.replace("2", "5"), steps), (question, [steps[0].replace("4", "7"), *steps[1:]])):
        changed = reference.scores(*other)
        assert min(abs(one - two) for one, two in zip(scores, changed, strict=True)) > 1e-4


def test_scores_do_not_hang_on_later_steps(reference):
    question, steps = PATHS[0]
    assert worst(reference.scores(question, steps)[:2], reference.scores(question, steps[:2])) < 1e-6


def test_a_score_read_at_the_token_beside_it_is_another(kind, reference, monkeypatch):
    right = reference.scores(*PATHS[0])
    made = reference.input
    if kind.startswith("outcome"):
        monkeypatch.setattr(reference, "input", lambda *path: Input(made(*path).ids[:-1], [0]))
    else:
        monkeypatch.setattr(
            reference, "input", lambda *path: Input(made(*path).ids, [place - 1 for place in made(*path).places])
        )
    wrong = reference.scores(*PATHS[0])
    assert min(abs(one - two) for one, two in zip(right, wrong, strict=True)) > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(kind, reference, side):
    paths = [(QUESTIONS[0], PIECES[:2]), (QUESTIONS[2], PIECES[:5]), (QUESTIONS[1], PIECES[2:3])]
    last = slice(-1 if kind.startswith("outcome") else 0, None)
    for path, scores in zip(paths, reference.scores_in_a_batch(paths, side), strict=True):
        assert worst(reference.scores(*path)[last], scores) < 2e-5


@pytest.mark.parametrize("lm_head", [False, True])
def test_heads_of_their_own_are_saved_beside_the_network(tmp_path, lm_head):
    from safetensors import safe_open

    names = {}
    for kind in ("skywork", "qwen"):
        with safe_open(tiny_prms.make(kind, tmp_path / kind, lm_head=lm_head) / "model.safetensors", "pt") as file:
            names[kind] = {name for name in file.keys() if not name.startswith("model.")}  # noqa: SIM118
    extra = {"lm_head.weight"} if lm_head else set()
    assert names["skywork"] == {"v_head.summary.weight", "v_head.summary.bias"} | extra
    assert names["qwen"] == {f"score.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")} | extra
