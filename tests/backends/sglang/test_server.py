"""What stands at an address: a router whose workers live or not, or something with a list of its own."""

from __future__ import annotations

import pytest
from aiohttp import web

from tests.fake_sglang import FakeSGLang
from tts_tui.backends.local import download
from tts_tui.backends.remote.http import Http
from tts_tui.backends.sglang.policy import SGLangPolicy
from tts_tui.backends.sglang.server import SGLangServer
from tts_tui.errors import BackendUnavailable


def says(value):
    async def answer(request):
        return web.json_response(value)

    return answer


async def test_a_router_without_a_healthy_worker_is_not_alive():
    async with FakeSGLang() as worker, FakeSGLang() as router:
        router.answers["/workers"] = says({"workers": [{"url": worker.url, "is_healthy": True}]})
        server = SGLangServer(Http(router.url))
        await server.start()
        await server.alive()
        assert server.is_router
        router.answers["/workers"] = says({"workers": [{"url": worker.url, "is_healthy": False}]})
        with pytest.raises(BackendUnavailable, match="is healthy: start one"):
            await server.alive()
        await server.close()


async def test_a_router_that_takes_a_dead_worker_for_a_healthy_one_is_not_alive():
    async with FakeSGLang() as worker, FakeSGLang() as router:
        router.answers["/workers"] = says({"workers": [{"url": worker.url, "is_healthy": True}]})
        server = SGLangServer(Http(router.url))
        await server.start()
        await worker.stop()
        with pytest.raises(BackendUnavailable):
            await server.alive()
        await server.close()


@pytest.mark.parametrize(
    "listed", [None, [], {}, {"workers": 3}, {"workers": ["a"]}, {"workers": [{}]}, {"workers": [{"url": "grpc://a"}]}]
)
async def test_a_server_with_another_list_of_workers_is_one_server(listed):
    async with FakeSGLang() as fake:
        fake.answers["/workers"] = says(listed)
        server = SGLangServer(Http(fake.url))
        await server.start()
        assert not server.is_router
        await server.close()


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/fake", "fake"), (f"/models/{download.EMBEDDED.folder}", download.EMBEDDED.title), ("/models/mine/", "mine")],
)
async def test_the_embedded_model_has_its_name_wherever_it_is_served(path, name):
    async with FakeSGLang(model={"model_path": path}) as fake:
        policy = SGLangPolicy(fake.url)
        await policy.start()
        assert policy.info.name == name
        await policy.close()
