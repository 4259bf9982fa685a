"""The official OpenAI SDK, made to read a recorded body: a real client over a transport that answers from memory."""

from __future__ import annotations

from typing import Any

import pytest

from kit.traffic import Exchange

openai = pytest.importorskip("openai", reason="the official openai SDK is not installed")
httpx2 = pytest.importorskip("httpx2", reason="httpx2, which the openai SDK speaks through, is not installed")


def sdk_client(exchange: Exchange) -> Any:
    """A client whose next answer is the recorded one."""
    sse = exchange.wire == "sse"
    headers = {"content-type": "text/event-stream" if sse else "application/json"}
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(exchange.status, headers=headers, content=exchange.body)
    )
    http = httpx2.Client(transport=transport)
    return openai.OpenAI(api_key="key", base_url="http://openai.invalid/v1", http_client=http, max_retries=0)


def sdk_error(exchange: Exchange) -> Any:
    """The exception that the SDK raises for a recorded error."""
    with pytest.raises(openai.APIStatusError) as caught:
        sdk_client(exchange).chat.completions.create(model="m", messages=[])
    return caught.value


def extra(model: Any, name: str) -> Any:
    """A field that the SDK passes on without knowing it."""
    return (getattr(model, "model_extra", None) or {}).get(name)
