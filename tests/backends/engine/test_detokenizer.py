"""Steps in words: each policy turns them into ids that say the same, so that the search can go on from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends import tiny
from tests.fake_sglang import FakeSGLang
from tests.scripted import encode
from tts_tui.backends.local.embedded import EmbeddedPolicy
from tts_tui.backends.local.policy import LocalPolicy
from tts_tui.backends.openai.policy import OpenAIPolicy
from tts_tui.backends.openai.stream import unpack
from tts_tui.backends.sglang.policy import SGLangPolicy
from tts_tui.errors import BackendError
from tts_tui.protocols import EncodesText

STEP = "Let x = 3.\n\n"


async def test_a_local_model(tmp_path: Path) -> None:
    policy = LocalPolicy(tiny.save(tiny.llama(), tmp_path))
    with pytest.raises(BackendError, match="not been started"):
        await policy.encode(STEP)
    await policy.start()
    try:
        assert isinstance(policy, EncodesText)
        assert tiny.decode(list(await policy.encode(STEP))) == STEP
    finally:
        await policy.close()


async def test_an_openai_server_takes_texts_as_they_are() -> None:
    policy = OpenAIPolicy("http://127.0.0.1:1")
    assert isinstance(policy, EncodesText)
    assert unpack(await policy.encode(STEP)) == STEP


async def test_an_sglang_server_is_asked_for_ids() -> None:
    async with FakeSGLang() as server:
        policy = SGLangPolicy(server.url)
        await policy.start()
        try:
            assert isinstance(policy, EncodesText)
            assert await policy.encode(STEP) == tuple(encode(STEP))
        finally:
            await policy.close()


@pytest.mark.embedded
async def test_the_embedded_model_gets_them_as_it_writes_them() -> None:
    policy = EmbeddedPolicy()
    await policy.start()
    try:
        newline = policy.ids_of("\n")
        assert await policy.encode(STEP) == policy.ids_of("Let x = 3.") + newline + newline
        assert await policy.encode("It is \\boxed{3}") == (*policy.ids_of("It is \\boxed{3}"), policy.end_of_answer)
    finally:
        await policy.close()
