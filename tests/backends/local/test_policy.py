"""A folder becomes a policy, or one sentence says why it cannot."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

from tests.backends import tiny
from tests.backends.tiny import Answer, ids_of, request
from tts_tui.backends.local.policy import LocalPolicy
from tts_tui.errors import BackendError, BackendUnavailable
from tts_tui.protocols import ExposesHiddenStates, Policy, Usage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.llama(), tmp_path_factory.mktemp("models") / "tiny-llama")


@asynccontextmanager
async def started(source: object, **options: object) -> AsyncIterator[LocalPolicy]:
    policy = LocalPolicy(source, threads=1, kv_tokens=1024, **options)  # type: ignore[arg-type]
    await policy.start()
    try:
        yield policy
    finally:
        await policy.close()


async def refuse(source: object, **options: object) -> str:
    with pytest.raises(BackendUnavailable) as caught:
        async with started(source, **options):
            pass
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


async def ask(policy: LocalPolicy, asked: object) -> Answer:
    return Answer([chunk async for chunk in policy.stream(asked)])  # type: ignore[arg-type]


async def test_a_folder_becomes_a_policy(folder: Path) -> None:
    async with started(f"hf:{folder}", messages=lambda problem: [{"role": "user", "content": problem}]) as policy:
        assert isinstance(policy, Policy)
        assert policy.info.name == "tiny-llama"
        assert policy.info.context == tiny.CONTEXT
        model = tiny.llama()
        table = model.get_input_embeddings().weight
        assert policy.info.parameters == sum(p.numel() for p in model.parameters()) - table.numel()
        prompt = await policy.prompt("1 + 1?")
        text = "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
        assert (prompt.problem, prompt.ids) == ("1 + 1?", ids_of(text))
        answer = await ask(policy, request(prompt.ids, 10))
        assert answer.ids == tiny.likeliest(model, prompt.ids, answer.ids)
        assert answer.text == tiny.decode(answer.ids)


async def test_the_prompt_of_the_models_family(folder: Path) -> None:
    async with started(folder, name="tiny-qwen") as policy:
        text = tiny.decode(list((await policy.prompt("1 + 1?")).ids))
        assert "put your final answer within \\boxed{}" in text


async def test_it_starts_again_after_it_was_closed(folder: Path) -> None:
    async with started(folder) as policy:
        await policy.close()
        await policy.close()
        with pytest.raises(BackendError, match="not running"):
            await ask(policy, request((1,), 2))
        await policy.start()
        assert len((await ask(policy, request((1,), 2))).ids) == 2


async def test_before_it_starts_it_says_so(folder: Path) -> None:
    policy = LocalPolicy(folder)
    with pytest.raises(BackendError, match="not been started"):
        _ = policy.info
    with pytest.raises(BackendError, match="not been started"):
        await policy.prompt("?")
    await policy.close()


async def test_a_start_that_is_cancelled_leaves_no_thread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = LocalPolicy(folder, kv_tokens=64)
    load, entered, go_on, made = policy._load, threading.Event(), threading.Event(), []

    def slowly() -> Any:
        entered.set()
        assert go_on.wait(60)
        made.append(load())
        return made[0]

    monkeypatch.setattr(policy._loading, "_make", slowly)
    start = asyncio.create_task(policy.start())
    await asyncio.to_thread(entered.wait)
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    await policy.close()
    go_on.set()
    await asyncio.wait([policy._loading._work])
    thread = made[0][0]._thread
    await asyncio.to_thread(thread.join, 60)
    assert not thread.is_alive()


async def test_a_program_that_forgets_to_close_still_ends(folder: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from tts_tui.backends.local.policy import LocalPolicy\n"
        "from tts_tui.protocols import Sampling, StepRequest\n"
        "async def main():\n"
        "    policy = LocalPolicy(sys.argv[1], kv_tokens=300, threads=1)\n"
        "    await policy.start()\n"
        "    chunks = policy.stream(StepRequest((1, 2), Sampling(1.0), 200, rollout=True))\n"
        "    await anext(chunks)\n"
        "    print('wrote')\n"
        "    sys.exit(7)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (7, b"wrote\n", b"")


async def test_importing_it_loads_no_model_library() -> None:
    code = (
        "import sys, tts_tui.backends.local.policy; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert (await process.communicate())[0] == b"[]\n"


async def test_what_is_no_model(tmp_path: Path, folder: Path) -> None:
    assert "there is no folder" in await refuse(tmp_path / "nowhere")
    assert "no config.json" in await refuse(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert "no *.safetensors" in await refuse(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "pickled weights" in await refuse(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    assert "cannot be loaded from its folder" in await refuse(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "cannot be loaded from its folder" in await refuse(tmp_path)


async def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sentence = await refuse("nobody/nothing-of-this-name")
    assert "download it, and give its folder" in sentence


async def test_a_model_without_a_chat_template(tmp_path: Path) -> None:
    tiny.save(tiny.llama(), tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    assert "has no chat template" in await refuse(tmp_path)


@pytest.mark.parametrize(
    ("options", "why"),
    [({"device": "abacus"}, "no device"), ({"device": "cuda"}, "no CUDA device"), ({"dtype": "int3"}, "no dtype")],
)
async def test_devices_that_are_none(
    folder: Path, options: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why in await refuse(folder, **options)


SMALL = {
    "vocab_size": tiny.VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


async def test_sliding_windows_are_refused(tmp_path: Path) -> None:
    model = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=16))
    assert "sliding window of 16 tokens" in await refuse(tiny.save(model, tmp_path / "mistral"))
    assert "sliding_attention" in await refuse(tiny.save(Gemma2ForCausalLM(Gemma2Config(**SMALL)), tmp_path / "gemma"))


FAMILIES = {
    "Qwen3ForCausalLM": SMALL,
    "GemmaForCausalLM": SMALL,
    "Gemma3ForCausalLM": {**SMALL, "layer_types": ["full_attention"] * 2},
    "MistralForCausalLM": {**SMALL, "sliding_window": None},
    "MixtralForCausalLM": {**SMALL, "num_local_experts": 4},
    "Phi3ForCausalLM": {**SMALL, "pad_token_id": 0, "sliding_window": None},
    "Olmo2ForCausalLM": {**SMALL, "pad_token_id": 0},
    "GraniteForCausalLM": {**SMALL, "logits_scaling": 3.0},
    "CohereForCausalLM": {**SMALL, "logit_scale": 0.5, "pad_token_id": 0},
    "GPT2LMHeadModel": {"vocab_size": tiny.VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}


@pytest.mark.parametrize("name", FAMILIES)
async def test_families_that_it_runs(name: str) -> None:
    torch.manual_seed(1)
    kind = getattr(transformers, name)
    config = kind.config_class(**FAMILIES[name], initializer_range=0.3, bos_token_id=0, eos_token_id=tiny.EOS)
    reference, served = kind(config).eval(), kind(copy.deepcopy(config)).eval()
    served.load_state_dict(reference.state_dict())
    engine = tiny.engine(served, slots=256)
    try:
        asked = [request(range(k, 20 + 2 * k), 8) for k in range(4)]
        answers = await asyncio.gather(*(tiny.ask(engine, one) for one in asked))
        for one, answer in zip(asked, answers, strict=True):
            assert answer.ids == tiny.likeliest(reference, one.ids, answer.ids)
        state = (await engine.states([asked[0].ids]))[0]
        assert state.features.shape == (1, 32)
    finally:
        await engine.close()


async def test_what_the_attention_cannot_do_is_refused(tmp_path: Path) -> None:
    config = Gemma2Config(**SMALL, layer_types=["full_attention"] * 2)
    assert "softcap" in await refuse(tiny.save(Gemma2ForCausalLM(config), tmp_path))


async def test_a_window_that_is_switched_off_is_none(tmp_path: Path) -> None:
    model = tiny.qwen2(use_sliding_window=False, sliding_window=16)
    async with started(tiny.save(model, tmp_path)) as policy:
        answer = await ask(policy, request(ids_of("a" * 40), 10))
        assert answer.ids == tiny.likeliest(model, ids_of("a" * 40), answer.ids)


async def test_half_precision(folder: Path) -> None:
    async with started(folder, dtype="bfloat16") as policy:
        assert len((await ask(policy, request((1, 2, 3), 5))).ids) == 5


async def test_reading_a_prompt_gives_the_mean_state_of_the_problem_and_leaves_it_cached(folder: Path) -> None:
    def chat(problem: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": "be brief"}, {"role": "user", "content": problem}]

    async with started(folder, messages=chat) as policy:
        assert isinstance(policy, ExposesHiddenStates)
        prompt = await policy.prompt("what is this")
        reading = await policy.encode_prompt(prompt)
        assert reading.usage == Usage(prompt_computed=len(prompt.ids))
        own = policy._own_tokens(prompt)
        behind = policy._text("what is this").partition("what is this")[2]
        assert own == len(policy._ids("what is this" + behind)) < len(prompt.ids)
        (state,) = await policy.engine.states([prompt.ids], [own])
        mean = state.features.mean(0)
        assert torch.tensor(reading.hidden_state) == pytest.approx(mean / mean.norm(), abs=1e-5)
        assert sum(value * value for value in reading.hidden_state) == pytest.approx(1.0, abs=1e-4)
        other = await policy.encode_prompt(await policy.prompt("who goes there"))
        assert other.hidden_state != reading.hidden_state
        asked = await ask(policy, request(prompt.ids, 2))
        assert asked.usage.prompt_computed == 0


async def test_a_problem_that_the_template_changes_is_read_all_the_same(folder: Path) -> None:
    async with started(folder, messages=lambda problem: [{"role": "user", "content": problem.upper()}]) as policy:
        reading = await policy.encode_prompt(await policy.prompt("what is this"))
        assert len(reading.hidden_state) == tiny.llama().config.hidden_size
