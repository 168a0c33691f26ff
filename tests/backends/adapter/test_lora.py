"""The adapter on a model's own weights: nothing is copied, nothing is changed before it has learned, files hold."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.backends import tiny
from tts_tui.backends.adapter import file as adapter_file
from tts_tui.backends.adapter.file import FORMAT, Adapter, AdapterHead, ScoreModel, Shape, Sums
from tts_tui.backends.adapter.lora import LowRank, adapted, fingerprint, learned, put
from tts_tui.backends.adapter.text import FLOOR, AdapterText, alone, ends, log_ratios, stated
from tts_tui.errors import BackendUnavailable

SHAPE = Shape(depth=2, first=1, rank=3, scale=0.5)
MODELS = pytest.mark.parametrize("model", [tiny.llama(), tiny.qwen2()], ids=["llama", "qwen2"])
IDS = torch.tensor([[5, 9, 200, 31, 7, 7, 64]])


def changed(model: torch.nn.Module, shape: Shape = SHAPE, seed: int = 1) -> dict[str, Tensor]:
    """Tensors of an adapter that changes something."""
    draw = torch.Generator().manual_seed(seed)
    places = dict(learned(adapted(model, shape)))
    found = {name: 0.1 * torch.randn(place.shape, generator=draw) for name, place in places.items()}
    return {**found, "norm": 1.0 + found["norm"]}


def an_adapter(model: torch.nn.Module, **changes: object) -> Adapter:
    head = AdapterHead(SHAPE, "embedded", fingerprint(model), **changes)  # type: ignore[arg-type]
    return Adapter(head, torch.tensor([3, 65, 260]), changed(model))


@torch.inference_mode()
def logits(model: torch.nn.Module) -> Tensor:
    found: Tensor = model(IDS, use_cache=False).logits
    return found


# --- on a model -------------------------------------------------------------------------------------------------------


@MODELS
def test_an_adapted_model_shares_every_tensor_of_the_base(model: torch.nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own = adapted(model, SHAPE)
    places = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    new = {id(parameter) for _, parameter in learned(own)}
    tensors = [*own.parameters(), *own.buffers()]
    shared = [tensor for tensor in tensors if id(tensor) not in new]
    assert len(shared) > 15 and all(tensor.data_ptr() in places for tensor in shared)
    assert not any(tensor.data_ptr() in places for tensor in tensors if id(tensor) in new)
    put(own, changed(model))
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@MODELS
def test_a_fresh_adapter_changes_nothing_and_one_that_has_learned_does(model: torch.nn.Module) -> None:
    base, own = logits(model), adapted(model, SHAPE)
    assert torch.equal(logits(own), base)
    put(own, changed(model))
    assert (logits(own) - base).abs().max() > 0.1
    assert torch.equal(logits(model), base)


def test_only_the_last_layers_are_adapted_and_layers_behind_its_depth_are_left_out() -> None:
    model = tiny.llama()
    names = [name for name, _ in learned(adapted(model, SHAPE))]
    assert {name.split(".")[1] for name in names if name != "norm"} == {"1"}
    assert len(names) == 2 * 7 + 1
    assert {name.split(".")[1] for name, _ in learned(adapted(model, Shape(2, 0, 3))) if name != "norm"} == {"0", "1"}
    short = adapted(model, Shape(1, 0, 3))
    assert len(short.model.layers) == short.config.num_hidden_layers == 1
    assert len(model.model.layers) == model.config.num_hidden_layers == 2


def test_a_change_is_what_lora_says_it_is() -> None:
    torch.manual_seed(0)
    base = torch.nn.Linear(6, 4)
    own = LowRank(base, Shape(1, 0, rank=2, scale=0.5))
    torch.nn.init.normal_(own.up)
    x = torch.randn(3, 6)
    merged = x @ (base.weight + 0.5 * own.up @ own.down).T + base.bias
    torch.testing.assert_close(own(x), merged)


def test_what_is_put_in_is_what_was_learned() -> None:
    model = tiny.llama()
    tensors = changed(model)
    own = adapted(model, SHAPE)
    put(own, tensors)
    found = dict(learned(own))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_tensors_that_do_not_fit_are_refused() -> None:
    model = tiny.llama()
    tensors = changed(model)
    for wrong in (
        {name: tensor for name, tensor in tensors.items() if name != "norm"},
        {**tensors, "norm": torch.ones(31)},
        {**tensors, "layers.7.mlp.up_proj.up": torch.ones(48, 3)},
    ):
        with pytest.raises(BackendUnavailable, match=r"do not fit the model: train it again"):
            put(adapted(model, SHAPE), wrong)


@pytest.mark.parametrize("shape", [Shape(3, 1), Shape(2, 2), Shape(2, -1), Shape(0, 0)])
def test_layers_that_the_model_does_not_have_are_refused(shape: Shape) -> None:
    with pytest.raises(BackendUnavailable, match=rf"layers {shape.first} to {shape.depth - 1}, and the model has 2"):
        adapted(tiny.llama(), shape)


def test_a_model_whose_layers_cannot_take_it_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    with pytest.raises(BackendUnavailable, match="gpt2 models cannot take the adapter: their layers are not where"):
        adapted(GPT2LMHeadModel(config).eval(), SHAPE)
    model = tiny.llama()
    model.model.layers[1] = torch.nn.Identity()
    with pytest.raises(BackendUnavailable, match="llama models cannot take the adapter: their layers have no linear"):
        adapted(model, SHAPE)


def test_a_fingerprint_tells_weights_apart_but_not_precisions() -> None:
    model = tiny.llama()
    with torch.no_grad():
        model.model.norm.weight.add_(0.01 * torch.randn(32, generator=torch.Generator().manual_seed(0)))
    own = fingerprint(model)
    assert len(own) == 16 and fingerprint(copy.deepcopy(model)) == own
    assert fingerprint(copy.deepcopy(model).bfloat16()) == own
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.norm.weight.mul_(1.5)
    assert fingerprint(other) != own
    assert fingerprint(tiny.qwen2()) not in (own, fingerprint(other))


# --- files ------------------------------------------------------------------------------------------------------------


def test_an_adapter_survives_being_written(tmp_path: Path) -> None:
    adapter = an_adapter(
        tiny.llama(),
        step=ScoreModel(0.5, 1.0, 0.25, 2.0, 0.125),
        answer=ScoreModel(-1.0),
        defaults={"score": "min", "vote": "prm-max"},
        about="made by a test",
    )
    path = tmp_path / "new" / "prm.safetensors"
    adapter_file.save(adapter, path)
    again = adapter_file.load(path)
    assert again.head == adapter.head == adapter_file.peek(path)
    assert again.vocabulary.dtype == torch.int64 and again.vocabulary.tolist() == [3, 65, 260]
    assert again.tensors.keys() == adapter.tensors.keys()
    for name, tensor in again.tensors.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, adapter.tensors[name].bfloat16())
    assert again.parameters == adapter.parameters == sum(tensor.numel() for tensor in adapter.tensors.values())
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["prm.safetensors"]


def test_files_that_are_no_adapter_are_named(tmp_path: Path) -> None:
    path = tmp_path / "prm.safetensors"

    def refused(match: str) -> None:
        for read in (adapter_file.peek, adapter_file.load):
            with pytest.raises(BackendUnavailable, match=match) as caught:
                read(path)
            assert "prm.safetensors" in str(caught.value) and "train it again with `tts-tui train-prm`" in str(
                caught.value
            )

    refused("cannot be read")
    for content in (b"", b"no safetensors at all", b'\x09\0\0\0\0\0\0\0{"a\xff": 1}', b"\x02\0\0\0\0\0\0\0[]"):
        path.write_bytes(content)
        refused("cannot be read")
    save_file({"w1": torch.ones(2, 2)}, path)
    refused("holds no PRM of this version")
    adapter_file.save(an_adapter(tiny.llama()), path)
    tensors = load_file(path)
    save_file(tensors, path, metadata={"format": "tts-tui adapter 0", "head": "{}"})
    refused("holds no PRM of this version")
    save_file({"norm": tensors["norm"]}, path, metadata={"format": FORMAT, "head": "{}"})
    refused("holds no PRM of this version")
    for metadata in ({"head": '{"shape": '}, {"head": '{"shape": {"depth": "two", "first": 1}}'}, {}):
        save_file(tensors, path, metadata={"format": FORMAT, **metadata})
        refused("is damaged")


# --- what is read, and what it means ----------------------------------------------------------------------------------


def test_a_step_has_the_same_ids_whatever_stands_around_it() -> None:
    layout = AdapterText(tiny.TOKENIZER)
    newline = tiny.ids_of("\n")
    assert layout.prompt("  1 + 1?\n") == tiny.ids_of("1 + 1?") + newline * 2
    assert layout.step("2\n\n") == layout.step("2\n") == layout.step("\n\n 2\n\n") == tiny.ids_of("2") + newline * 2
    assert layout.step("2") == (*tiny.ids_of("2"), tiny.EOS)
    assert ends("2") and not ends("2\n")


def test_a_beginning_of_text_token_comes_first_where_the_tokenizer_has_one() -> None:
    tokenizer = copy.deepcopy(tiny.TOKENIZER)
    tokenizer.bos_token = "<|im_start|>"
    layout = AdapterText(tokenizer)
    assert layout.prompt("1") == (tokenizer.bos_token_id, *tiny.ids_of("1"), *tiny.ids_of("\n") * 2)
    assert layout.step("1")[0] == tiny.ids_of("1")[0]


def test_a_tokenizer_without_an_end_of_text_is_refused() -> None:
    tokenizer = copy.deepcopy(tiny.TOKENIZER)
    tokenizer.eos_token = None
    with pytest.raises(BackendUnavailable, match="its tokenizer has no token that ends a text"):
        AdapterText(tokenizer)


def test_an_answer_is_also_read_behind_the_question_at_once() -> None:
    assert alone(("7 + 8 = 15\n\n", "So it is \\boxed{15}")) == stated("15") == "The answer is \\boxed{15}."
    assert ends(stated("15"))
    assert alone(("7 + 8\n\n", "is 15")) == stated("15")
    assert alone(("I do not know",)) is None


def test_log_ratios_are_what_a_plain_computation_gives() -> None:
    draw = torch.Generator().manual_seed(0)
    states, own = torch.randn(9, 5, generator=draw), torch.randn(9, 5, generator=draw)
    rows = torch.randn(4, 5, generator=draw)
    # As likely as the best, likelier than it, and much less likely.
    own[0] = rows[(rows @ states[0]).argmax()]
    own[1], own[2] = 10 * states[1], -10 * states[2]
    found = log_ratios(states, own, rows)
    for state, token, ratio in zip(states, own, found.tolist(), strict=True):
        logit = sum(float(a) * float(b) for a, b in zip(state, token, strict=True))
        best = max(sum(float(a) * float(b) for a, b in zip(state, row, strict=True)) for row in rows)
        assert ratio == pytest.approx(min(0.0, max(-FLOOR, logit - best)), abs=1e-5)
    assert found[0] == pytest.approx(0.0, abs=1e-5) and found[1] == 0.0 and found[2] == -FLOOR


def test_sums_of_parts_are_those_of_the_whole() -> None:
    one, two = [-1.0, -0.25, 0.0], [-4.0, -0.5]
    assert Sums.of(one) == Sums(-1.0, -1.25)
    assert Sums.of(one).then(Sums.of(two)) == Sums.of(one + two) == Sums(-4.0, -5.75)
    assert Sums.of([]) == Sums() == Sums(0.0, 0.0)
    assert Sums().then(Sums.of(two)) == Sums.of(two)


def test_a_judgement_is_a_logistic_model() -> None:
    judgement = ScoreModel(0.5, 1.0, 0.25, 2.0, 0.125)
    logit = 0.5 + 1.0 * -1 + 0.25 * -2 + 2.0 * -3 + 0.125 * -4
    assert judgement.score(Sums(-1, -2), Sums(-3, -4)) == pytest.approx(1 / (1 + math.exp(-logit)))
    assert ScoreModel(alone=0.5).score(Sums(), Sums(), -2.0) == pytest.approx(1 / (1 + math.exp(1)))
    assert ScoreModel().score(Sums(), Sums(), -2.0) == 0.5
    for bias in (-1e6, 1e6):
        assert 0.0 < ScoreModel(bias).score(Sums(), Sums()) < 1.0
