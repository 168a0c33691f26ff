"""A server that cannot apply a chat template: its tokenizer is loaded here, with the same ids."""

from __future__ import annotations

import pytest

from tests.fake_sglang import FakeSGLang
from tts_tui.backends.local import download
from tts_tui.backends.remote.http import Http
from tts_tui.backends.sglang.server import SGLangServer
from tts_tui.backends.sglang.tokenizer import LocalTokenizer
from tts_tui.errors import WrongServer

CHAT = [{"role": "user", "content": "What is 2 + 3?"}]


@pytest.mark.embedded
@pytest.mark.parametrize("missing", [["/tokenize"], ["/tokenize", "/detokenize"]])
async def test_an_old_server_s_tokenizer_is_loaded_from_where_it_has_it(missing):
    async with FakeSGLang(missing=missing, model={"tokenizer_path": str(download.model_path())}) as fake:
        server = SGLangServer(Http(fake.url))
        await server.start()
        ids, _ = await server.tokenize(CHAT)
        assert server.is_old
        (text,) = await server.texts([ids])
        await server.close()
    assert "What is 2 + 3?" in text and "<|im_start|>" not in text


@pytest.mark.sglang
@pytest.mark.timeout(600)
async def test_its_ids_are_those_of_a_new_server(smollm2_server):
    server = SGLangServer(Http(smollm2_server.url))
    await server.start()
    ids, _ = await server.tokenize(CHAT)
    await server.close()
    assert LocalTokenizer(str(smollm2_server.model)).ids(CHAT) == ids


async def test_a_tokenizer_that_is_not_here_is_a_sentence():
    async with FakeSGLang(missing=["/tokenize"], model={"tokenizer_path": "no/such"}) as fake:
        server = SGLangServer(Http(fake.url))
        await server.start()
        with pytest.raises(WrongServer, match="update that SGLang"):
            await server.tokenize(CHAT)
        await server.close()
