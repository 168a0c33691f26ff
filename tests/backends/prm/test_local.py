"""PRMs in this process against a plain reference (tests/prm_reference): whole sequences, no cache."""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from tests import tiny_prms
from tests.prm_reference import Reference
from tests.scripted import ScriptedPolicy
from tts_tui import Solver
from tts_tui.backends.engine import attention
from tts_tui.backends.prm.local import LocalPRM
from tts_tui.errors import BackendBadResponse, BackendError, BackendUnavailable, UsageError
from tts_tui.protocols import Prompt, ScoreRequest
from tts_tui.tree.events import ScoreFailed, StepScored

pytestmark = [pytest.mark.slow, pytest.mark.tokenizers]

QUESTION = "A shop sells pens at 3 coins. How many coins do 12 pens cost, and 5 more?"
NAMES = {"math-shepherd": "math-shepherd", "rlhflow": "rlhflow", "outcome": None, "outcome-qwen": None}
CLOSE = 1e-4


def words(count, seed):
    made = random.Random(seed)
    return " ".join(
        made.choice(["3*4", "= 12.", "so", "we", "add", "x^2", "\\boxed{7}", "then\nif"]) for _ in range(count)
    )


def path(steps, seed=0):
    return [words(random.Random(1000 * seed + i).randint(1, 15), 100 * seed + i) for i in range(steps)]


def request(steps, question=QUESTION):
    return ScoreRequest(Prompt(question, (0,)), tuple(steps), ((0,),) * len(steps))


def prefixes(steps):
    return [request(steps[:end]) for end in range(1, len(steps) + 1)]


@pytest.fixture(scope="module", params=tiny_prms.KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(kind, tmp_path_factory):
    return tiny_prms.make(kind, tmp_path_factory.mktemp("prm") / "a-checkpoint", max_position_embeddings=4096)


@pytest.fixture(scope="module")
def reference(kind, checkpoint):
    return Reference(kind, checkpoint)


@pytest.fixture(scope="module")
def prm(kind, checkpoint):
    model = LocalPRM(checkpoint, name=NAMES.get(kind), kv_tokens=6000, threads=1)
    asyncio.run(model.start())  # its engine serves any number of event loops
    yield model
    asyncio.run(model.close())


def scores(got):
    return [score.score for score in got]


# -- the same scores ---------------------------------------------------------------------------------------------------


async def test_a_path_that_grows_has_the_scores_of_the_whole_sequence(kind, prm, reference):
    steps, before = path(12, seed=1), 0
    got = []
    for end in range(1, 13):
        (score,) = await prm.score([request(steps[:end])])
        got.append(score.score)
        length = score.computed + score.cached
        # The step's own tokens pass the model, and none that were there before; an outcome model's chat is closed anew.
        assert score.cached >= before - (6 if kind.startswith("outcome") else 0)
        before = length
    assert got == pytest.approx(reference.scores(QUESTION, steps), abs=CLOSE)
    assert max(got) - min(got) > 0.1, "scores that are all alike would show nothing"


async def test_ragged_batches_have_the_scores_of_padded_ones(kind, prm, reference):
    paths = [path(length, seed) for seed, length in enumerate((3, 1, 12, 7, 5), 20)]
    got = await prm.score([request(steps) for steps in paths])
    for side in ("left", "right"):
        padded = reference.scores_in_a_batch([(QUESTION, steps) for steps in paths], side)
        assert scores(got) == pytest.approx([of_path[-1] for of_path in padded], abs=CLOSE)


async def test_all_steps_of_a_path_at_once(prm, reference):
    steps = path(7, seed=9)
    got = await prm.score(prefixes(steps))
    assert scores(got) == pytest.approx(reference.scores(QUESTION, steps), abs=CLOSE)


async def test_the_order_of_a_batch_and_what_else_is_in_it_do_not_matter(prm):
    requests = [request(path(length, seed), f"{QUESTION} {seed % 2}") for seed, length in enumerate((2, 6, 1, 4))]
    alone = [(await prm.score([one]))[0].score for one in requests]
    assert scores(await prm.score(requests[::-1]))[::-1] == pytest.approx(alone, abs=1e-5)


async def test_the_same_path_twice_is_computed_once(prm):
    steps = path(3, seed=40)
    first, second = await prm.score([request(steps), request(steps)])
    assert first.score == second.score and first.computed > 0 == second.computed
    assert first.computed + first.cached == second.cached


ODD = [
    "ки",
    "<extra_0>",
    "+",
    "-\n+",
    "",
    " ",
    "\x07\x1b[31m",
    "\u202eשלום",
    "é" * 40,
    "\\boxed{}",
    "<s></s>",
    "\u200b",
]


async def test_odd_steps_have_a_score_each_and_change_none_before_them(prm):
    got = await prm.score(prefixes([*ODD, "x = 1 " * 1700]))
    assert len(got) == len(ODD) + 1
    assert all(0.0 <= score.score <= 1.0 for score in got)
    again = await prm.score(prefixes(ODD[:5]))
    assert scores(again) == pytest.approx(scores(got)[:5], abs=1e-5)
    assert got[-1].unseen > 0, "a step of 10 000 characters does not fit this context as a whole"


async def test_a_tag_in_a_question_moves_no_score(kind, prm, reference):
    tag = {"math-shepherd": " ки", "qwen": "<extra_0>", "rlhflow": " +", "trl": "\n", "skywork": "\n"}.get(kind, "+")
    question = f"{QUESTION}{tag} x"
    got = await prm.score([request(path(3)[:end], question) for end in (1, 2, 3)])
    assert len(got) == 3
    if kind in ("rlhflow", "trl", "skywork"):  # the official code is not led astray by these
        assert scores(got) == pytest.approx(reference.scores(question, path(3)), abs=CLOSE)


@pytest.mark.parametrize("kind", ["math-shepherd", "skywork"])
async def test_the_paper_s_layout(kind, tmp_path):
    checkpoint = tiny_prms.make(kind, tmp_path)
    model = LocalPRM(checkpoint, name=kind, layout="paper", threads=1)
    await model.start()
    try:
        got = await model.score(prefixes(path(4)))
    finally:
        await model.close()
    assert scores(got) == pytest.approx(Reference(kind, checkpoint, "paper").scores(QUESTION, path(4)), abs=CLOSE)
    assert scores(got) != pytest.approx(Reference(kind, checkpoint).scores(QUESTION, path(4)), abs=CLOSE)


async def test_an_outcome_is_read_where_transformers_reads_it(tmp_path):
    folder = tiny_prms.make("outcome", tmp_path, pad_token_id=128009)  # the token that closes a turn is padding, too
    model = LocalPRM(folder, threads=1)
    await model.start()
    (got,) = await model.score([request(path(2))])
    await model.close()
    plain = Reference("outcome", folder)
    ids = torch.tensor([plain.input(QUESTION, path(2)).ids])
    network = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        (logit,) = network(ids).logits[0].tolist()
    assert got.score == pytest.approx(1 / (1 + math.exp(-logit)), abs=CLOSE)


async def test_half_precision_and_the_attention_of_a_gpu_are_not_taken_for_a_fault(monkeypatch, tmp_path):
    monkeypatch.setattr(attention, "_attend", attention.attend_by_matmul)
    folder = tiny_prms.make("qwen", tmp_path)
    whole = load_file(folder / "model.safetensors")
    whole["model.norm.weight"][::16] *= 40  # channels that are far larger than the others, as real models have
    save_file(whole, folder / "model.safetensors")
    model = LocalPRM(folder, threads=1, dtype="bfloat16")
    await model.start()
    got = await model.score(prefixes(path(4)))
    await model.close()
    assert all(0 <= score.score <= 1 for score in got)


async def test_a_network_that_puts_out_no_numbers_gives_no_score(tmp_path):
    folder = tiny_prms.make("skywork", tmp_path)
    whole = load_file(folder / "model.safetensors")
    whole["v_head.summary.bias"][0] = float("nan")
    save_file(whole, folder / "model.safetensors")
    model = LocalPRM(folder, threads=1)
    await model.start()
    with pytest.raises(BackendBadResponse, match="gives no number for the step 'so it is'"):
        await model.score([request(["so it is"])])
    await model.close()


def engines():
    return sum(thread.name == "tts-engine" for thread in threading.enumerate())


async def test_a_start_that_was_cancelled_leaves_nothing(tmp_path):
    model = LocalPRM(tiny_prms.make("qwen", tmp_path), threads=1)
    before = engines()
    start = asyncio.create_task(model.start())
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await model.close()
    await model.start()  # waits for the other one, so that two networks are never in memory
    (score,) = await model.score([request(path(1))])
    await model.close()
    assert 0 <= score.score <= 1
    assert engines() == before


# -- in a search -------------------------------------------------------------------------------------------------------


def writes(path, draw):
    return f"{words(4, draw % 50)}\n\n" if len(path) < 3 else f"The answer is \\boxed{{{draw % 3}}}."


async def test_a_search_computes_each_token_once(kind, checkpoint):
    model = LocalPRM(checkpoint, name=NAMES.get(kind), kv_tokens=6000, threads=1)
    events = []
    async with Solver(ScriptedPolicy(writes), model) as solver:
        result = await solver.solve(QUESTION, solver.plan("beam", n=8, m=4), sinks=[events.append])
    assert result.answer is not None and not any(isinstance(event, ScoreFailed) for event in events)
    assert result.tree.start.prm.parameters > 50_000 and result.tree.start.prm.name == "a-checkpoint"
    scored = {event.node: event for event in events if isinstance(event, StepScored)}
    for node, event in scored.items():
        parent = result.tree.nodes[node].parent
        if parent.id in scored:
            known = scored[parent.id].computed + scored[parent.id].cached
            assert event.cached >= known - (6 if kind.startswith("outcome") else 0)


async def test_a_path_that_grows_out_of_the_context_is_scored_by_its_last_steps(kind, checkpoint, tmp_path):
    small = tiny_prms.make(kind, tmp_path / "small", max_position_embeddings=300)
    model = LocalPRM(small, name=NAMES.get(kind), threads=1)
    await model.start()
    try:
        assert model.info.context == 300
        got = await model.score(prefixes([f"step {i} " + "says more " * 10 for i in range(30)]))
    finally:
        await model.close()
    assert got[0].unseen == 0 and got[-1].unseen > 10
    assert all(score.computed + score.cached <= 300 for score in got)


# -- at load -----------------------------------------------------------------------------------------------------------


async def refused(folder, said, error=BackendUnavailable, **options):
    model = LocalPRM(folder, threads=1, **options)
    with pytest.raises(error, match=said):
        await model.start()
    await model.close()


async def test_recognised_by_the_class_in_its_configuration(kind, checkpoint):
    if kind in ("math-shepherd", "rlhflow"):
        assert LocalPRM(checkpoint).profile == ""
        await refused(checkpoint, "it is not known which PRM .* adapters are math-shepherd", UsageError)
        return
    model = LocalPRM(checkpoint, threads=1)
    assert model.profile  # before anything is loaded, so that a plan can suit it
    await model.start()
    assert model.profile == {"skywork": "skywork-7b", "qwen": "qwen-7b", "trl": "trl"}.get(kind, "outcome")
    await model.close()


async def test_recognised_by_the_name_of_its_folder(tmp_path):
    folder = tiny_prms.make("math-shepherd", tmp_path / "math-shepherd-mistral-7b-prm")
    model = LocalPRM(folder, threads=1)
    assert model.profile == "math-shepherd"
    await model.start()
    assert model.info.context == 4096, "as long as the window of attention, in which it changes nothing"
    await model.close()


async def test_a_head_that_is_missing_or_of_another_shape_is_one_sentence(kind, checkpoint, tmp_path):
    head = {"math-shepherd": "lm_head", "rlhflow": "lm_head", "skywork": "v_head.summary", "qwen": "score.2"}
    name = f"{head.get(kind, 'score')}.weight"
    whole = load_file(checkpoint / "model.safetensors")
    folder = shutil.copytree(checkpoint, tmp_path / "bad")
    adapter = {"outcome-qwen": "outcome"}.get(kind, kind)
    save_file({key: value for key, value in whole.items() if key != name}, folder / "model.safetensors")
    await refused(folder, f"has no tensor {name}", name=adapter)
    save_file({**whole, name: torch.zeros(3, 32)}, folder / "model.safetensors")
    await refused(folder, f"{name} in .* is 3 x 32 and not .* x 64", name=adapter)


async def test_a_network_that_lacks_a_tensor_is_refused(tmp_path):
    folder = tiny_prms.make("qwen", tmp_path / "bad")
    whole = load_file(folder / "model.safetensors")
    del whole["model.layers.1.mlp.up_proj.weight"]
    save_file(whole, folder / "model.safetensors")
    await refused(folder, r"is not whole: .*layers\.1\.mlp\.up_proj\.weight is missing")


async def test_labels_the_other_way_round_are_refused(tmp_path):
    for number, called in enumerate([("correct", "incorrect"), ("+", "no"), ("good", "error"), ("+", "-")]):
        folder = tiny_prms.make("trl", tmp_path / str(number), id2label=dict(zip("01", called, strict=True)))
        await refused(folder, f"calls its label 1 {called[1]!r}")
    named = LocalPRM(tiny_prms.make("trl", tmp_path / "named", id2label={"0": "step-wrong", "1": "step-correct"}))
    await named.start()
    await named.close()


async def test_pickled_weights_need_a_word(tmp_path):
    folder = tiny_prms.make("math-shepherd", tmp_path / "math-shepherd-mistral-7b-prm")
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    plain = LocalPRM(folder, threads=1)
    await plain.start()
    (want,) = await plain.score([request(path(2))])
    await plain.close()
    (folder / "model.safetensors").unlink()
    await refused(folder, "only pickled weights, which can run code: .* --allow-pickle")
    pickled = LocalPRM(folder, allow_pickle=True, threads=1)
    await pickled.start()
    (got,) = await pickled.score([request(path(2))])
    await pickled.close()
    assert got.score == pytest.approx(want.score, abs=1e-6)


async def test_folders_that_hold_no_checkpoint(tmp_path):
    await refused(tmp_path / "none", "there is no folder")
    (tmp_path / "config.json").write_text("{}")
    await refused(tmp_path, "has no weights")
    (tmp_path / "config.json").write_text("{")
    await refused(tmp_path, "cannot be read")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    await refused(tmp_path, "is damaged or not whole .*: download it again", name="qwen")


async def test_what_is_not_running_scores_nothing(tmp_path):
    model = LocalPRM(tmp_path)
    with pytest.raises(BackendError, match="not running"):
        await model.score([request(["x"])])
    with pytest.raises(BackendError, match="not been started"):
        _ = model.info
