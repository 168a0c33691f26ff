"""PRMs on real SGLang servers against a plain reference: whole sequences, transformers' classes, no cache."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from safetensors.torch import load_file, save_file

from tests.prm_reference import Reference
from tests.scripted import ScriptedPolicy
from tests.servers import Server, free_port
from tts_tui import Solver
from tts_tui.backends.sglang.reward_model import SGLangPRM
from tts_tui.errors import BackendUnavailable
from tts_tui.protocols import Prompt, ScoreRequest
from tts_tui.tree.events import ScoreFailed, StepScored

pytestmark = [pytest.mark.sglang, pytest.mark.tokenizers, pytest.mark.timeout(600)]

QUESTION = "A shop sells pens at 3 coins. How many coins do 12 pens cost, and 5 more?"
CLOSE = 1e-3
KINDS = ("math-shepherd", "rlhflow", "skywork", "qwen", "trl", "outcome")


def path(length, seed=0):
    """Steps of words that are not the same anywhere."""
    made = random.Random(seed)
    words = ["3*4", "= 12.", "so", "we", "add", "x^2", "\\boxed{7}", "then\nif"]
    return [" ".join(made.choice(words) for _ in range(made.randint(2, 15))) for _ in range(length)]


def request(steps, question=QUESTION):
    return ScoreRequest(Prompt(question, (0,)), tuple(steps), ((0,),) * len(steps))


def writes(path, draw):
    return f"{draw % 50} and {len(path)} are more.\n\n" if len(path) < 3 else f"The answer is \\boxed{{{draw % 3}}}."


def size(score):
    return score.computed + score.cached


@pytest.fixture(scope="module", params=KINDS)
def served(request, sglang_python, tiny_prm):
    """A kind of PRM, its checkpoint, and a server of it."""
    folder = tiny_prm(request.param)
    with Server.start(folder, kind="prm", context_length=2048) as server:
        yield request.param, folder, server


@pytest.fixture
async def prm(served):
    kind, _, server = served
    # Language models are not told apart by their class, and outcome models are named by nothing else.
    model = SGLangPRM(server.url, name=kind if kind in ("math-shepherd", "rlhflow") else None)
    await model.start()
    yield model
    await model.close()


async def test_a_path_that_grows_has_the_scores_of_the_whole_sequence(served, prm):
    kind, folder, _ = served
    steps, before, got = path(8), 0, []
    for end in range(1, 9):
        (score,) = await prm.score([request(steps[:end])])
        got.append(score.score)
        # The last token that was read is computed again; an outcome model's chat was closed behind it.
        assert score.cached >= before - (4 if kind == "outcome" else 1)
        before = size(score)
    assert got == pytest.approx(Reference(kind, folder).scores(QUESTION, steps), abs=CLOSE)
    assert max(got) - min(got) > 0.05, "scores that are all alike would show nothing"


async def test_a_whole_path_at_once_is_computed_once(served, prm):
    kind, folder, _ = served
    steps = path(6, seed=1)
    requests = [request(steps[:end], QUESTION + " Or 6?") for end in range(1, 7)]
    got = await prm.score(requests[::-1])
    reference = Reference(kind, folder).scores(QUESTION + " Or 6?", steps)
    assert [score.score for score in got[::-1]] == pytest.approx(reference, abs=CLOSE)
    assert sum(score.computed for score in got) <= size(got[0]) + len(steps) * (6 if kind == "outcome" else 1)


async def test_siblings_that_come_together_compute_the_question_once(served, prm):
    question = "This question is a long one. " * 80
    steps = [path(1, seed)[0] for seed in range(2, 18)]
    got = await prm.score([request([step], question) for step in steps])
    assert len({score.score for score in got}) == 16
    shared = min(map(size, got)) - 40
    assert shared > 400 and sum(score.computed for score in got) < shared + 16 * 100


async def test_the_longest_input_is_taken_and_a_longer_one_is_cut_here(prm):
    steps = path(120, seed=3)
    (score,) = await prm.score([request(steps)])
    assert prm.info.context == 2041
    assert score.unseen > 0 and prm.info.context // 2 - 60 < size(score) <= prm.info.context
    long = "so " * 3000
    (score,) = await prm.score([request([long])])
    assert score.unseen == 1 and size(score) > prm.info.context - 10


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_a_search_outlives_its_servers_death(sglang_python, tiny_prm):
    folder, port, events, policy = tiny_prm("outcome-qwen"), free_port(), [], ScriptedPolicy(writes)
    scored, failed = asyncio.Event(), asyncio.Event()

    def see(event):
        events.append(event)
        if isinstance(event, StepScored) and not scored.is_set():
            policy.hold = asyncio.Event()
            scored.set()
        if isinstance(event, ScoreFailed):
            failed.set()

    with Server.start(folder, kind="prm", port=port) as server:
        prm, steps = SGLangPRM(server.url), path(5)
        await prm.start()
        got = [(await prm.score([request(steps[:end])]))[0].score for end in range(1, 6)]
        assert got == pytest.approx(Reference("outcome-qwen", folder).scores(QUESTION, steps), abs=CLOSE)
        await prm.close()
        async with Solver(policy, SGLangPRM(server.url, patience=120)) as solver, asyncio.timeout(300):
            search = asyncio.create_task(solver.solve(QUESTION, solver.plan("beam", n=4, m=2), sinks=[see]))
            await scored.wait()
            await asyncio.to_thread(server.kill)
            policy.hold.set()
            await failed.wait()
            with await asyncio.to_thread(Server.start, folder, kind="prm", port=port):
                result = await search
    assert result.answer is not None
    failures = [event for event in events if isinstance(event, ScoreFailed)]
    assert all(event.retry for event in failures) and "start one with `tts-tui serve" in failures[0].error
    assert all(node.score is not None for node in result.tree.solutions)


async def test_a_checkpoint_without_its_head_does_not_start(sglang_python, tiny_prm, tmp_path):
    whole = tiny_prm("qwen")
    for file in whole.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "model.safetensors").unlink()
    tensors = load_file(whole / "model.safetensors")
    del tensors["score.2.bias"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackendUnavailable, match=r"the checkpoint lacks score\.2\.bias: it is no Qwen2ForProcess"):
        Server.start(tmp_path, kind="prm")
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"]
