from __future__ import annotations

import pytest

from pointsman_server.adapters.providers.parts import content_of, data_url, text_block, unsayable, user_block
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import ImagePart, ReasoningPart, TextPart, ToolResultPart

IMAGE = ImagePart(b"\x89PNG", "image/png")
HELLO = {"type": "text", "text": "Hello"}
SHOWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}


def test_data_url() -> None:
    assert data_url(IMAGE) == "data:image/png;base64,iVBORw=="


def test_what_a_user_says() -> None:
    assert [user_block(TextPart("Hello")), user_block(IMAGE)] == [HELLO, SHOWN]


def test_one_text_is_said_plainly() -> None:
    assert content_of([HELLO]) == "Hello"


@pytest.mark.parametrize("blocks", [[], [SHOWN], [HELLO, HELLO], [HELLO, SHOWN]])
def test_everything_else_is_a_list(blocks: list[dict[str, object]]) -> None:
    assert content_of(blocks) == blocks


def test_what_has_no_place_is_named_and_not_quoted() -> None:
    with pytest.raises(ProviderFault) as caught:
        text_block(IMAGE, "a system message")
    assert caught.value.kind is FaultKind.INVALID_REQUEST
    assert caught.value.detail == "messages: this provider takes no image part in a system message"
    with pytest.raises(ProviderFault, match="no reasoning part in a user message"):
        user_block(ReasoningPart("secret"))
    assert "toolresult part in a tool message" in unsayable(ToolResultPart("c", "secret"), "a tool message").detail
