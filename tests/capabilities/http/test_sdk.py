"""A real SDK over the guarded client: openai accepts a client of httpx or httpx2, and works unchanged."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nyx_stream.errors import NetworkDenied
from tests.capabilities.http.loopback import Received, Server, loopback, reply

openai = pytest.importorskip("openai", reason="the openai SDK is not installed")

_CHUNK = {
    "id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
    "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}],
}  # fmt: skip
_WHOLE = {
    "id": "1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
}  # fmt: skip
_ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "say hi"}]}


async def _streamed() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    for _ in range(3):
        yield b"data: " + json.dumps(_CHUNK).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def _api(request: Received) -> bytes | AsyncIterator[bytes]:
    if json.loads(request.body).get("stream"):
        return _streamed()
    return reply(200, json.dumps(_WHOLE).encode(), content_type="application/json")


async def test_the_sdk_works_unchanged(kind: Any) -> None:
    """A completion at once and a streamed one, over the plugin's own client."""
    async with Server(_api) as server:
        plugin = loopback(server, kind=kind)
        async with plugin.client() as http:
            client = openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1", http_client=http, max_retries=0)
            whole = await client.chat.completions.create(**_ASK)
            assert whole.choices[0].message.content == "hello"
            stream = await client.chat.completions.create(**_ASK, stream=True)
            assert "".join([chunk.choices[0].delta.content async for chunk in stream]) == "hihihi"
        assert server.requests[0].target == "/v1/chat/completions"
        assert plugin.denials == []


async def test_the_sdk_reports_a_denial_as_its_cause(kind: Any) -> None:
    """Pointed at a host that is not granted, the SDK raises its connection error because of ours."""
    async with Server(_api) as server:
        async with loopback(server, kind=kind).client() as http:
            client = openai.AsyncOpenAI(
                api_key="k", base_url="https://api.openai.example/v1", http_client=http, max_retries=0
            )
            with pytest.raises(openai.APIConnectionError) as caught:
                await client.chat.completions.create(**_ASK)
            assert isinstance(caught.value.__cause__, NetworkDenied)
        assert server.accepted == 0


async def test_server_sent_events_of_httpx2() -> None:
    """What httpx2 has beyond httpx works over the guarded client too."""
    pytest.importorskip("httpx2", reason="httpx2 is not installed")
    async with Server(lambda _: _streamed()) as server, loopback(server).client() as client:
        async with client.as_httpx2().sse(server.url) as source:
            events = [event async for event in source]
        assert [event.data for event in events][-1] == "[DONE]"
