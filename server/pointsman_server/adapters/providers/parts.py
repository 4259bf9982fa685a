"""How parts of messages are said where several vendors say them alike."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import ImagePart, Part, TextPart


def content_of(blocks: Sequence[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """The content of a chat message, a plain text where it is one."""
    # Many servers take a list from users only, and some not even there: say it plainly where it can be.
    if len(blocks) == 1 and blocks[0].get("type") == "text":
        return str(blocks[0]["text"])
    return list(blocks)


def user_block(part: Part) -> dict[str, Any]:
    """A user's text or image in a chat message; raises `ProviderFault` for anything else."""
    if isinstance(part, ImagePart):
        return {"type": "image_url", "image_url": {"url": data_url(part)}}
    return text_block(part, "a user message")


def text_block(part: Part, where: str) -> dict[str, Any]:
    """A text in a chat message; raises `ProviderFault`, with `where`, for anything else."""
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    raise unsayable(part, where)


def data_url(image: ImagePart) -> str:
    """The image as a URL that holds it."""
    return f"data:{image.media_type};base64,{b64encode(image.data).decode('ascii')}"


def unsayable(part: Part, where: str) -> ProviderFault:
    """The fault for a part that the dialect has no place for."""
    name = type(part).__name__.removesuffix("Part").lower()
    return ProviderFault(FaultKind.INVALID_REQUEST, f"messages: this provider takes no {name} part in {where}")
