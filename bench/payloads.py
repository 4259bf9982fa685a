"""What is sent: the same thousand characters everywhere, as a contract's request or as a provider's."""

from __future__ import annotations

import json
import re

from pointsman.v1.completion_pb2 import ROLE_USER, CompletionSpec, Message, Part
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest

_PARAGRAPH = (
    "Our warehouse sends two reports every evening. The first one lists the orders of the day with their weight, "
    "their destination and the carrier that took them. The second one lists what came back, with a short remark of "
    "the person who opened the parcel. Please summarise both for the morning meeting, compare the returns with those "
    "of the week before, and name at most three carriers that deserve a call. Keep the tone plain. "
)


def prose(characters: int) -> str:
    """So many characters of prose."""
    return (_PARAGRAPH * (characters // len(_PARAGRAPH) + 1))[:characters]


PROMPT = prose(1_000)
"""What is asked wherever nothing else is said."""

COUNTED = b"0000000000"
"""Stands in a request for a number that is another in each call, so that no two texts are the same."""

COUNTED_PROMPT = f"Ticket {COUNTED.decode()}. {PROMPT}"[:1_000]

THINKING_MARK = re.compile(rb"@(\d{16})@")
"""In the first piece of a paced answer: the nanoseconds between the upstream's reading and its first writing."""


def route_request(prompt: str = PROMPT) -> bytes:
    """A `RouteRequest` that leaves the decision to the router."""
    return RouteRequest(completion=_spec("", prompt)).SerializeToString()


def complete_request(deployment: str) -> bytes:
    """A `CompleteRequest` for one deployment."""
    return CompleteRequest(completion=_spec(deployment)).SerializeToString()


def stream_request(deployment: str) -> bytes:
    """A `StreamCompleteRequest` for one deployment."""
    return StreamCompleteRequest(completion=_spec(deployment)).SerializeToString()


def chat_body(*, stream: bool) -> bytes:
    """An OpenAI chat request."""
    messages = [{"role": "user", "content": PROMPT}]
    return json.dumps({"model": "bench", "messages": messages, "stream": stream}, separators=(",", ":")).encode()


def messages_body(*, stream: bool) -> bytes:
    """An Anthropic messages request."""
    messages = [{"role": "user", "content": PROMPT}]
    body = {"model": "bench", "max_tokens": 1024, "messages": messages, "stream": stream}
    return json.dumps(body, separators=(",", ":")).encode()


def _spec(deployment: str, prompt: str = PROMPT) -> CompletionSpec:
    return CompletionSpec(messages=[Message(role=ROLE_USER, parts=[Part(text=prompt)])], deployment=deployment)
