"""Simulated vectors, asked for by the vendors' own SDKs."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import cohere
import openai
import pytest
from google import genai
from google.genai import types

from pointsman_server.simulator.behaviour import Behaviour, Fault, Rule, Script, UsageOverride
from pointsman_server.simulator.server import RunningSimulator
from pointsman_server.simulator.vectors import vector_of

TEXTS = ["The invoice is due on Monday.", "Our invoices are due every Monday.", "Cats sleep all day."]
DIMENSIONS = 64


def close(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


class TestVectors:
    def test_are_of_length_one_and_the_same_for_the_same_text(self) -> None:
        for text in (*TEXTS, "", "?!", "数字"):
            vector = vector_of(text, DIMENSIONS)
            assert len(vector) == DIMENSIONS
            assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-6)
            assert vector == vector_of(text, DIMENSIONS)

    def test_texts_that_share_words_are_closer(self) -> None:
        first, alike, other = (vector_of(text, 256) for text in TEXTS)
        assert close(first, alike) > close(first, other) + 0.2


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:cohere")
class TestSdks:
    async def test_openai(self, simulator: RunningSimulator) -> None:
        async with openai.AsyncOpenAI(base_url=f"{simulator.base_url}/v1", api_key="sk-test") as client:
            for encoding in ("float", "base64"):
                options: Any = {"dimensions": DIMENSIONS, "encoding_format": encoding}
                answer = await client.embeddings.create(model="sim-fast", input=TEXTS, **options)
                assert [one.index for one in answer.data] == [0, 1, 2]
                assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
            plain = await client.embeddings.create(model="sim-fast", input=TEXTS[0])
            assert plain.data[0].embedding == pytest.approx(vector_of(TEXTS[0], 256), abs=1e-6)
            with pytest.raises(openai.BadRequestError):
                await client.embeddings.create(model="sim-fast", input=[""])

    async def test_cohere(self, simulator: RunningSimulator) -> None:
        client = cohere.AsyncClientV2(api_key="key", base_url=simulator.base_url)
        asked: Any = {"model": "sim-fast", "texts": TEXTS, "input_type": "search_document"}
        answer = await client.embed(**asked, embedding_types=["float"], output_dimension=DIMENSIONS)
        vectors: Any = answer.embeddings.float_
        assert vectors == [pytest.approx(vector_of(text, DIMENSIONS)) for text in TEXTS]
        assert answer.meta is not None
        assert answer.meta.billed_units is not None
        assert answer.meta.billed_units.input_tokens
        with pytest.raises(cohere.BadRequestError):
            await client.embed(**{**asked, "texts": ["x"] * 97}, embedding_types=["float"])

    async def test_gemini(self, simulator: RunningSimulator) -> None:
        options = types.HttpOptions(base_url=simulator.base_url)
        client = genai.Client(api_key="key", http_options=options)
        texts: Any = TEXTS
        config = types.EmbedContentConfig(output_dimensionality=DIMENSIONS)
        answer = await client.aio.models.embed_content(model="sim-fast", contents=texts, config=config)
        vectors = [one.values for one in answer.embeddings or ()]
        assert vectors == [pytest.approx(vector_of(text, DIMENSIONS)) for text in TEXTS]
        await client.aio.aclose()


@pytest.fixture
async def session(simulator: RunningSimulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(simulator.base_url) as session:
        yield session


class TestScripts:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/embeddings", {"model": "m", "input": ["x"], "encoding_format": "int8"}),
            ("/v1/embeddings", {"model": "m", "input": ["x"], "dimensions": 5_000}),
            ("/v1/embeddings", {"model": "m", "input": []}),
            ("/v2/embed", {"model": "m", "texts": ["x"], "embedding_types": ["float"]}),
            ("/v2/embed", {"model": "m", "texts": ["x"], "input_type": "search_query", "embedding_types": ["int8"]}),
            ("/v1beta/models/m:batchEmbedContents", {"requests": [{"model": "models/other"}]}),
            ("/v1beta/models/m:batchEmbedContents", {"requests": [{"model": "models/m"}] * 101}),
        ],
    )
    async def test_what_vendors_refuse(self, session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> None:
        async with session.post(path, json=body) as response:
            assert response.status == 400

    async def test_faults_and_counts_are_those_of_the_script(
        self, simulator: RunningSimulator, session: aiohttp.ClientSession
    ) -> None:
        body = {"model": "m", "input": ["x"]}
        rules = (
            Rule(Behaviour(fault=Fault.STATUS_429), last_call=1),
            Rule(Behaviour(fault=Fault.EMPTY_CHOICES), last_call=1),
            Rule(Behaviour(usage=UsageOverride(missing=True))),
        )
        simulator.use(Script(rules))
        seen = []
        for _ in range(2):
            async with session.post("/v1/embeddings", json=body) as response:
                seen.append((response.status, await response.json()))
        assert seen[0][0] == 429
        assert "usage" not in seen[1][1]
        simulator.use(Script((Rule(Behaviour(fault=Fault.EMPTY_CHOICES)),)))
        async with session.post("/v1/embeddings", json=body) as response:
            assert (await response.json())["data"] == []
        for path, asked in (
            ("/v2/embed", {"model": "m", "texts": ["x"], "input_type": "search_query", "embedding_types": ["float"]}),
            ("/v1beta/models/m:batchEmbedContents", {"requests": [
                {"model": "models/m", "content": {"parts": [{"text": "x"}]}}]}),
        ):  # fmt: skip
            simulator.use(Script((Rule(Behaviour(usage=UsageOverride(missing=True))),)))
            async with session.post(path, json=asked) as response:
                assert response.status == 200
                assert "usageMetadata" not in (told := await response.json())
                assert "billed_units" not in told.get("meta", {})
