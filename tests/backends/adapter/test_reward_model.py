"""The PRM that is an adapter: scores as a plain forward gives them, no token run twice, weights in memory once."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
import torch
from torch import Tensor

from tests.backends import tiny
from tests.backends.adapter.test_lora import changed
from tests.scripted import ScriptedPolicy
from tts_tui import Solver, registry
from tts_tui.backends.adapter import file
from tts_tui.backends.adapter.file import Adapter, AdapterHead, ScoreModel, Shape, Sums
from tts_tui.backends.adapter.lora import adapted, fingerprint, put
from tts_tui.backends.adapter.reward_model import TITLE, AdapterPRM, shipped
from tts_tui.backends.adapter.text import AdapterText, stated
from tts_tui.backends.local import download
from tts_tui.backends.local.embedded import EmbeddedPolicy
from tts_tui.backends.local.policy import LocalPolicy
from tts_tui.errors import BackendError, BackendUnavailable, ContextExceeded, UsageError
from tts_tui.protocols import Prompt, ScoreRequest

LAYOUT = AdapterText(tiny.TOKENIZER)
HEAD = AdapterHead(
    Shape(2, 1, rank=3, scale=0.5),
    "",
    "",
    step=ScoreModel(2.0, 0.3, 0.02, 0.1, 0.01),
    answer=ScoreModel(3.0, 0.2, 0.03, 0.15, 0.01),
    defaults={"score": "min", "vote": "prm-max"},
)
STEPS = ("Step 1: 7 + 8 = 15\n\n", "Step 2: 15 - 6 = 9\n\n", "So \\boxed{9}")
CHOICES = tuple(sorted(set(tiny.ids_of("Step 0123456789:+-=\n"))))


def a_model(seed: int = 0) -> torch.nn.Module:
    """A model whose norms are its own, as those of trained models are."""
    model = tiny.llama(seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith("norm.weight"):
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=draw))
    return model


MODEL = a_model()


def write(path: Path, base: Path, **changes: object) -> Path:
    """An adapter of `MODEL`, which lies in the folder `base`."""
    head = msgspec.structs.replace(HEAD, base=f"hf:{base}", fingerprint=fingerprint(MODEL), **changes)  # type: ignore[type-var]
    file.save(Adapter(head, torch.tensor(CHOICES), changed(MODEL, HEAD.shape)), path)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(MODEL, tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def path(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("adapter") / "tiny.safetensors", base)


@asynccontextmanager
async def running(path: Path, policy: object = None) -> AsyncIterator[AdapterPRM]:
    prm = AdapterPRM(policy, path=path, dtype="float32", kv_tokens=2000, threads=1)  # type: ignore[arg-type]
    try:
        await prm.start()
        yield prm
    finally:
        await prm.close()


def request(*steps: str, problem: str = "What is 7 + 8 - 6?") -> ScoreRequest:
    return ScoreRequest(Prompt(problem, (1, 2, 3)), steps, tuple((1,) for _ in steps))


def prefixes(*steps: str, **options: str) -> list[ScoreRequest]:
    return [request(*steps[:end], **options) for end in range(1, len(steps) + 1)]


def tokens(asked: ScoreRequest) -> int:
    return len(LAYOUT.prompt(asked.prompt.problem)) + sum(len(LAYOUT.step(step)) for step in asked.steps)


def sums_by_hand(problem: str, steps: tuple[str, ...], path: Path) -> list[Sums]:
    """The sums of every step, from one plain forward of transformers over the whole path."""
    model = adapted(MODEL, HEAD.shape)
    put(model, file.load(path).tensors)
    ids = list(LAYOUT.prompt(problem))
    spans = []
    for step in steps:
        own = LAYOUT.step(step)
        spans.append(range(len(ids), len(ids) + len(own)))
        ids += own
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([ids]), use_cache=False).logits[0]
    sums = []
    for span in spans:
        ratios = [float(logits[at - 1][ids[at]] - logits[at - 1][list(CHOICES)].max()) for at in span]
        sums.append(Sums.of([min(0.0, max(-12.0, ratio)) for ratio in ratios]))
    return sums


def by_hand(asked: ScoreRequest, path: Path, answer: str | None = None) -> float:
    """The score of the last step; `answer` is the answer in it."""
    head = file.peek(path)
    *earlier, last = sums_by_hand(asked.prompt.problem, asked.steps, path)
    before = Sums()
    for own in earlier:
        before = before.then(own)
    if asked.steps[-1].endswith("\n"):
        return head.step.score(last, before)
    alone = -6.0
    if answer is not None:
        (own,) = sums_by_hand(asked.prompt.problem, (stated(answer),), path)
        alone = max(alone, own.total)
    return head.answer.score(last, before, alone)


async def scores(prm: AdapterPRM, requests: list[ScoreRequest]) -> list[float]:
    return [score.score for score in await prm.score(requests)]


# --- scores -----------------------------------------------------------------------------------------------------------


async def test_scores_are_those_of_a_plain_forward(path: Path) -> None:
    requests = [*prefixes(*STEPS), *prefixes("Step 1: 7 - 8 = 1\n\n", "2", problem="And 3?")]
    async with running(path) as prm:
        found = await scores(prm, requests)
    assert found == pytest.approx([by_hand(one, path) for one in requests], abs=1e-4)
    assert len({round(score, 3) for score in found}) == len(found) and all(0.0 < score < 1.0 for score in found)


async def test_an_answer_counts_from_the_question_alone_too(base: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "alone.safetensors", base, answer=ScoreModel(3.0, 0.2, 0.03, 0.15, 0.01, 0.5))
    asked = [
        request(*STEPS),
        request(*STEPS[:2]),
        request(*STEPS[:2], "I give up."),
        request("\\boxed{9}"),
        request("?"),
    ]
    answers = ["9", None, "9", "9", None]  # whoever gives up has the last number as an answer
    async with running(path) as prm:
        found = await prm.score(asked)
        again = await prm.score(asked)
    expected = [by_hand(one, path, answer) for one, answer in zip(asked, answers, strict=True)]
    assert [score.score for score in found] == pytest.approx(expected, abs=1e-4)
    assert [score.score for score in again] == pytest.approx(expected, abs=1e-4)
    # The answer alone is run once for all who have it.
    alone = len(LAYOUT.prompt("What is 7 + 8 - 6?")) + len(LAYOUT.step(stated("9")))
    for one, answer, score in zip(asked, answers, found, strict=True):
        assert score.computed + score.cached == tokens(one) + (alone if answer else 0)
    assert [score.computed for score in again] == [0] * 5
    assert (
        0
        < sum(score.computed for score in found)
        < tokens(asked[0])
        + sum(len(LAYOUT.step(step)) for step in (STEPS[1], STEPS[2], "I give up.", "\\boxed{9}", "?", stated("9")))
    )


async def test_a_solution_that_is_nothing_but_its_answer_is_run_and_counted_once(base: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "alone.safetensors", base, answer=ScoreModel(3.0, 0.2, 0.03, 0.15, 0.01, 0.5))
    asked = request(stated("9"))
    async with running(path) as prm:
        (score,) = await prm.score([asked])
    assert (score.computed, score.cached) == (tokens(asked), tokens(asked))
    assert score.score == pytest.approx(by_hand(asked, path, "9"), abs=1e-4)


async def test_the_order_of_a_batch_changes_no_score(path: Path) -> None:
    requests = prefixes(*STEPS) + prefixes("Step 1: 3 * 4 = 12\n\n", "Step 2: 12 + 5 = 17\n\n", problem="What is that?")
    async with running(path) as prm:
        first = await scores(prm, requests)
    order = random.Random(0).sample(range(len(requests)), len(requests))
    async with running(path) as prm:
        shuffled = await scores(prm, [requests[place] for place in order])
        assert shuffled == pytest.approx([first[place] for place in order], abs=1e-5)
        assert await scores(prm, requests) == pytest.approx(first, abs=1e-5)


async def test_of_a_path_that_grows_only_the_new_step_is_run(path: Path) -> None:
    async with running(path) as prm:
        for asked in prefixes(*STEPS):
            (score,) = await prm.score([asked])
            new = len(LAYOUT.step(asked.steps[-1]))
            if len(asked.steps) == 1:
                new = tokens(asked)
            assert (score.computed, score.cached) == (new, tokens(asked) - new)
            (again,) = await prm.score([asked])
            assert (again.score, again.computed, again.cached) == (score.score, 0, tokens(asked))


async def test_a_step_whose_earlier_steps_were_never_scored_has_the_same_score(path: Path) -> None:
    async with running(path) as prm:
        grown = await scores(prm, [prefixes(*STEPS)[0]])
        grown += await scores(prm, [prefixes(*STEPS)[1]])
        grown += await scores(prm, [prefixes(*STEPS)[2]])
    async with running(path) as prm:
        (score,) = await prm.score([request(*STEPS)])
        assert score.computed == tokens(request(*STEPS))
        assert score.score == pytest.approx(grown[2], abs=1e-5)
        # Its earlier steps are in the pool by now, but their sums are not known.
        (earlier,) = await prm.score([request(*STEPS[:2])])
        assert (earlier.score, earlier.computed) == (pytest.approx(grown[1], abs=1e-5), 0)


async def test_what_is_asked_for_twice_in_a_batch_is_run_once(path: Path) -> None:
    async with running(path) as prm:
        one, two, three = await prm.score([request(STEPS[0]), request(STEPS[0]), request(STEPS[0].rstrip() + "\n")])
    assert one.score == two.score == three.score
    assert [score.computed for score in (one, two, three)] == [tokens(request(STEPS[0])), 0, 0]
    assert {score.computed + score.cached for score in (one, two, three)} == {tokens(request(STEPS[0]))}


async def test_old_sums_are_forgotten_without_harm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts_tui.backends.adapter.reward_model._REMEMBERED", 2)
    requests = prefixes(*STEPS) + prefixes("Step 1: 1\n\n", "Step 2: 2\n\n")
    async with running(path) as prm:
        first = await scores(prm, requests)
        assert len(prm._sums) == 2
        assert await scores(prm, requests) == pytest.approx(first, abs=1e-5)
    assert first == pytest.approx([by_hand(one, path) for one in requests], abs=1e-4)


async def test_requests_that_cannot_be_scored(path: Path) -> None:
    async with running(path) as prm:
        assert await prm.score([]) == []
        with pytest.raises(BackendError, match="there is no step to score"):
            await prm.score([request(STEPS[0]), request()])
        with pytest.raises(ContextExceeded, match="context of 256 tokens"):
            await prm.score([request("long " * 60 + "\n\n")])
        assert len(await prm.score([request(STEPS[0])])) == 1


async def test_it_must_be_started_and_is_closed_twice(path: Path) -> None:
    prm = AdapterPRM(path=path, dtype="float32")
    with pytest.raises(BackendError, match="the PRM has not been started"):
        await prm.score([request(STEPS[0])])
    with pytest.raises(BackendError, match="the PRM has not been started"):
        _ = prm.info
    await prm.close()
    await prm.start()
    await prm.close()
    await prm.close()
    with pytest.raises(BackendError, match="the PRM has not been started"):
        await prm.score([request(STEPS[0])])


# --- its base model ---------------------------------------------------------------------------------------------------


async def test_it_shares_the_weights_of_its_own_base_and_loads_it_for_another_policy(
    path: Path, base: Path, tmp_path: Path
) -> None:
    other = tiny.save(a_model(1), tmp_path / "other")
    found = {}
    for name, folder in (("same", base), ("other", other)):
        policy = LocalPolicy(folder, dtype="float32", kv_tokens=500, threads=1)
        await policy.start()
        try:
            table = policy.network[1].get_input_embeddings().weight
            async with running(path, policy) as prm:
                assert prm._made is not None
                shared = prm._made.engine.network.get_input_embeddings().weight.data_ptr() == table.data_ptr()
                assert shared == (name == "same")
                found[name] = await scores(prm, prefixes(*STEPS))
                assert prm.info.name == "tiny.safetensors" and prm.info.family == "adapter"
                assert prm.info.context == tiny.CONTEXT
            # The policy goes on without its PRM.
            assert (await tiny.ask(policy.engine, tiny.request((1, 2, 3), 4))).ids
        finally:
            await policy.close()
    async with running(path, ScriptedPolicy(lambda path, draw: "")) as prm:
        found["scripted"] = await scores(prm, prefixes(*STEPS))
    assert found["other"] == pytest.approx(found["same"], abs=1e-5)
    assert found["scripted"] == found["other"]


async def test_a_policy_says_the_same_with_the_prm_beside_it(path: Path, base: Path) -> None:
    policy = LocalPolicy(base, dtype="float32", kv_tokens=500, threads=1)
    await policy.start()
    try:
        asked = tiny.request(tiny.ids_of("What is 7 + 8?"), 12)
        before = (await tiny.ask(policy.engine, asked)).ids
        async with running(path, policy) as prm:
            await prm.score([request(STEPS[0])])
            assert (await tiny.ask(policy.engine, asked)).ids == before
        assert before == tiny.likeliest(MODEL, asked.ids, before)
    finally:
        await policy.close()


async def test_a_base_that_has_other_weights_is_refused(base: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.safetensors", base)
    adapter = file.load(path)
    file.save(msgspec.structs.replace(adapter, head=msgspec.structs.replace(adapter.head, fingerprint="f" * 16)), path)
    with pytest.raises(BackendUnavailable, match=r"PRM mine\.safetensors was trained on other weights than hf:.* has"):
        async with running(path):
            pass


async def test_a_base_that_is_gone_is_named_with_the_prm_that_needs_it(base: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.safetensors", base)
    adapter = file.load(path)
    file.save(msgspec.structs.replace(adapter, head=msgspec.structs.replace(adapter.head, base="hf:./gone")), path)
    with pytest.raises(BackendUnavailable, match=r"PRM mine\.safetensors is made on hf:\./gone: there is no folder"):
        async with running(path):
            pass


async def test_an_adapter_that_does_not_fit_its_base_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="layers 1 to 2, and the model has 2"):
        async with running(write(tmp_path / "deep.safetensors", base, shape=Shape(3, 1, 3))):
            pass
    with pytest.raises(BackendUnavailable, match="rank 5"):
        async with running(write(tmp_path / "wide.safetensors", base, shape=Shape(2, 1, 5))):
            pass
    with pytest.raises(BackendUnavailable, match="cannot be read"):
        async with running(tmp_path / "missing.safetensors"):
            pass


# --- what it says of itself -------------------------------------------------------------------------------------------


def damaged(path: Path, base: Path, what: str) -> Path:
    """An adapter with one fault."""
    head = msgspec.structs.replace(HEAD, base=f"hf:{base}", fingerprint=fingerprint(MODEL))
    tensors = changed(MODEL, HEAD.shape)
    vocabulary = torch.tensor(CHOICES)
    if what == "weights that are not numbers":
        tensors[next(iter(tensors))][0, 0] = float("nan")
    elif what == "an enormous rank":
        head = msgspec.structs.replace(head, shape=msgspec.structs.replace(HEAD.shape, rank=10**9))
    elif what == "no vocabulary":
        vocabulary = vocabulary[:0]
    elif what == "ids beyond the model":
        vocabulary = torch.tensor([*CHOICES, 10**6])
    elif what == "negative ids":
        vocabulary = torch.tensor([*CHOICES, -1])
    elif what == "an infinite scale":
        head = msgspec.structs.replace(head, shape=msgspec.structs.replace(HEAD.shape, scale=1e39 * 1e300))
    file.save(Adapter(head, vocabulary, tensors), path)
    return path


@pytest.mark.parametrize(
    "what",
    [
        "weights that are not numbers",
        "an enormous rank",
        "no vocabulary",
        "ids beyond the model",
        "negative ids",
        "an infinite scale",
    ],
)
async def test_a_damaged_adapter_is_refused_when_it_is_loaded_and_named(base: Path, tmp_path: Path, what: str) -> None:
    path = damaged(tmp_path / "broken.safetensors", base, what)
    with pytest.raises(BackendUnavailable, match=r"broken\.safetensors"):
        async with running(path):
            pass


def test_its_file_says_how_to_vote(path: Path, base: Path, tmp_path: Path) -> None:
    prm = AdapterPRM(path=path)
    assert prm.defaults == {"score": "min", "vote": "prm-max"}
    assert prm.profile == ""
    policy = ScriptedPolicy(lambda path, draw: "")
    plan = Solver(policy, prm).plan("beam")
    assert (plan.score, plan.vote) == ("min", "prm-max")
    plan = Solver(policy, prm).plan("beam", vote="majority")
    assert (plan.score, plan.vote) == ("min", "majority")
    assert Solver(policy, prm).plan("majority").vote == "majority"
    silent = AdapterPRM(path=write(tmp_path / "silent.safetensors", base, defaults={}))
    unreadable = AdapterPRM(path=tmp_path / "missing.safetensors")
    assert silent.defaults == unreadable.defaults == {}
    usual = Solver(policy, silent).plan("beam")
    assert Solver(policy, unreadable).plan("beam") == usual and usual != Solver(policy, prm).plan("beam")


def test_a_spec_names_its_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prm = registry.reward_model(f"adapter:{path}")
    assert isinstance(prm, AdapterPRM) and prm.defaults == HEAD.defaults
    monkeypatch.setenv("HOME", str(path.parent))
    at_home = registry.reward_model(f"adapter:~/{path.name}")
    assert isinstance(at_home, AdapterPRM) and at_home.defaults == HEAD.defaults
    with pytest.raises(UsageError, match="'adapter:' names no model: write adapter:FILE"):
        registry.reward_model("adapter:")
    with pytest.raises(UsageError, match="--allow-pickle can be given for a reward model"):
        registry.reward_model(f"adapter:{path}", allow_pickle=True)
    of_the_package = registry.reward_model("embedded")
    assert isinstance(of_the_package, AdapterPRM) and of_the_package.profile == "embedded"


def test_the_shipped_one_is_small_and_for_the_embedded_model() -> None:
    assert shipped().stat().st_size < 20_000_000
    adapter = file.load(shipped())
    assert adapter.head.base == download.EMBEDDED.name
    assert adapter.head.fingerprint == "0a0c78f1b4665e76"
    assert all(torch.isfinite(tensor).all() for tensor in adapter.tensors.values())
    assert adapter.head.defaults.keys() == {"score", "vote"}
    Solver(ScriptedPolicy(lambda path, draw: ""), AdapterPRM()).plan("beam")


# --- with the embedded model ------------------------------------------------------------------------------------------

embedded = pytest.mark.embedded
module_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def policy() -> AsyncIterator[EmbeddedPolicy]:
    policy = EmbeddedPolicy(kv_tokens=4000, threads=1)
    await policy.start()
    yield policy
    await policy.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prm(policy: EmbeddedPolicy) -> AsyncIterator[AdapterPRM]:
    prm = AdapterPRM(policy, kv_tokens=4000, threads=1)
    await prm.start()
    yield prm
    await prm.close()


@embedded
@module_loop
async def test_the_real_weights_are_the_reference_ones(policy: EmbeddedPolicy) -> None:
    # Checked against transformers' own GGUF conversion, all 272 tensors equal; here, that it stays so.
    assert fingerprint(policy.network[1]) == "0a0c78f1b4665e76"


@embedded
@module_loop
async def test_the_shipped_one_shares_the_embedded_policys_weights(policy: EmbeddedPolicy, prm: AdapterPRM) -> None:
    network = policy.network[1]
    places = {tensor.data_ptr() for tensor in network.parameters()}
    made = prm._made
    assert made is not None
    own = sum(tensor.numel() for tensor in made.engine.network.parameters() if tensor.data_ptr() not in places)
    assert own == file.load(shipped()).parameters < 10_000_000
    assert prm.info.name == TITLE and prm.info.parameters > policy.info.parameters


@embedded
@module_loop
async def test_a_right_step_scores_above_a_wrong_one(prm: AdapterPRM) -> None:
    """Not for every problem, but for the plainest ones."""
    requests = [
        request(f"Step 1: {a} + 2 = {value}\n\n", problem=f"What is {a} + 2 + 3?")
        for a in range(2, 8)
        for value in (a + 2, a + 3)
    ]
    found = await scores(prm, requests)
    assert sum(right > wrong for right, wrong in zip(found[::2], found[1::2], strict=True)) >= 5


@embedded
@module_loop
async def test_a_right_answer_scores_above_a_wrong_one_and_nothing_is_run_twice(prm: AdapterPRM) -> None:
    steps = ("Step 1: 7 + 8 = 15\n\n", "Step 2: 15 - 6 = 9\n\n")
    await prm.score(prefixes(*steps))
    right, wrong = await prm.score([request(*steps, f"The answer is \\boxed{{{answer}}}.") for answer in (9, 8)])
    assert right.score > wrong.score
    # The ten tokens of the answer behind the steps, and the same ones behind the question alone.
    assert 0 < right.computed + wrong.computed <= 40 and max(right.computed, wrong.computed) <= 20
