"""Training an adapter: it learns, and an interrupted training ends where an uninterrupted one does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.backends import tiny
from tts_tui.backends.adapter.file import Shape
from tts_tui.backends.adapter.lora import adapted, learned
from tts_tui.backends.adapter.text import AdapterText
from tts_tui.training.prm import fit as fit_module
from tts_tui.training.prm.fit import Fit, FitProgress, Recipe, vocabulary
from tts_tui.training.prm.texts import Mixture, Part, Text, TextSampler

LAYOUT = AdapterText(tiny.TOKENIZER)
SHAPE = Shape(2, 0, rank=4)
RECIPE = Recipe(tokens=12_000, batch=300, learning_rate=1e-2, warmup=3)
MODEL = tiny.llama()


def texts() -> Iterator[Text]:
    return iter(TextSampler(("add0",), (), [(Mixture(practice=0.0), 0)], 0))


CHOICES = vocabulary(list(itertools.islice(texts(), 300)), LAYOUT)


def a_fit(state: Path | None = None, recipe: Recipe = RECIPE, **changes: object) -> Fit:
    options = {"model": MODEL, "layout": LAYOUT, "shape": SHAPE, "recipe": recipe, "choices": CHOICES, "state": state}
    return Fit(**{**options, **changes})  # type: ignore[arg-type]


class Interrupted(Exception):
    """Raised in the middle of a training."""


def until(tokens: int, told: list[FitProgress] | None = None):
    def tell(progress: FitProgress) -> None:
        if told is not None:
            told.append(progress)
        if progress.tokens >= tokens:
            raise Interrupted

    return tell


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, Tensor], list[FitProgress]]:
    """An uninterrupted training: its weights, and what it told."""
    told: list[FitProgress] = []
    fit = a_fit()
    fit.run(texts(), told.append)
    return fit.tensors, told


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is saved as often as can be."""
    monkeypatch.setattr(fit_module, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(fit_module, "BATCHES", 4)


def test_a_vocabulary_is_the_tokens_of_the_texts() -> None:
    own = vocabulary([Text("b", (Part("ca", learn=False),)), Text("", (Part("d\n"),))], LAYOUT)
    assert own.tolist() == sorted({*tiny.ids_of("abcd\n"), tiny.EOS})


def test_the_loss_falls_and_only_the_adapter_changes(whole: tuple[dict[str, Tensor], list[FitProgress]]) -> None:
    tensors, told = whole
    assert told[0].loss > 2.0 and told[-1].loss < 0.7 * told[0].loss
    assert told[-1].tokens >= told[-1].total == RECIPE.tokens > told[-2].tokens
    assert told[-1].left == 0.0 and all(progress.speed > 0 for progress in told)
    assert [progress.tokens for progress in told] == sorted(progress.tokens for progress in told)
    fresh = dict(learned(adapted(MODEL, SHAPE)))
    assert tensors.keys() == fresh.keys()
    assert not any(torch.equal(tensors[name], fresh[name]) for name in tensors)
    reference = tiny.llama().state_dict()
    assert same(dict(MODEL.state_dict()), dict(reference))
    assert all(parameter.grad is None for parameter in MODEL.parameters())


def test_it_learns_what_follows_and_nothing_where_it_is_not_told_to() -> None:
    rows = [Text("x", (Part("ab\n"), Part("zzzz\n", learn=False), Part("c")))] * 2000
    fit = a_fit(None, Recipe(tokens=4000, batch=200, learning_rate=1e-2, warmup=1), choices=vocabulary(rows, LAYOUT))
    fit.run(iter(rows), lambda progress: None)
    newline = tiny.ids_of("\n")[0]
    ids = [*LAYOUT.prompt("x"), *LAYOUT.step("ab\n"), *LAYOUT.step("zzzz\n")]
    with torch.inference_mode():
        likeliest = fit.model(torch.tensor([ids]), use_cache=False).logits[0][:, fit_choices(rows)].argmax(-1)
    said = [fit_choices(rows)[place] for place in likeliest.tolist()]
    assert said[2:6] == [*tiny.ids_of("ab"), newline, newline]
    assert said[-1] == tiny.ids_of("c")[0]
    assert said[6:9] != list(tiny.ids_of("zzz"))


def fit_choices(rows: list[Text]) -> list[int]:
    return list(vocabulary(rows, LAYOUT).tolist())


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("stops", [(3000,), (2000, 9000), (100,)])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path: Path, stops: tuple[int, ...]) -> None:
    reference = a_fit()
    reference.run(texts(), lambda progress: None)
    state = tmp_path / "new" / "training.pt"
    for stop in stops:
        fit = a_fit(state)
        with pytest.raises(Interrupted):
            fit.run(texts(), until(stop))
    last = a_fit(state)
    told: list[FitProgress] = []
    last.run(texts(), told.append)
    assert same(last.tensors, reference.tensors) and last.done == reference.done
    if stops[-1] > 2000:  # it did not begin again
        assert told[0].tokens > 1000
    assert [file.name for file in state.parent.iterdir()] == ["training.pt"]
    again = a_fit(state)
    assert again.done >= RECIPE.tokens and same(again.tensors, reference.tensors)
    again.run(texts(), lambda progress: pytest.fail("there was nothing left to train"))
    assert same(again.tensors, reference.tensors)


@pytest.mark.usefixtures("at_once")
def test_a_state_of_another_training_is_not_gone_on_from(tmp_path: Path) -> None:
    state = tmp_path / "training.pt"
    with pytest.raises(Interrupted):
        a_fit(state).run(texts(), until(6000))
    assert a_fit(state).done > 0
    for other in (
        a_fit(state, Recipe(tokens=12_000, batch=300, learning_rate=2e-2, warmup=3)),
        a_fit(state, choices=CHOICES[:-1]),
        a_fit(state, shape=Shape(2, 1, rank=4)),
        a_fit(state, of="other texts"),
    ):
        assert other.done == 0


@pytest.mark.parametrize("content", [b"", b"no state at all", None])
def test_a_state_that_cannot_be_read_is_not_used(
    tmp_path: Path, content: bytes | None, whole: tuple[dict[str, Tensor], list[FitProgress]]
) -> None:
    state = tmp_path / "training.pt"
    if content is None:
        torch.save(["another version's"], state)
    else:
        state.write_bytes(content)
    fit = a_fit(state)
    assert fit.done == 0
    fit.run(texts(), lambda progress: None)
    assert same(fit.tensors, whole[0])
    assert a_fit(state).done == fit.done
