"""The HTTP application of the simulator: routes, and the journey of one call."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from aiohttp import web

from pointsman_server.simulator import magic
from pointsman_server.simulator.answer import Answer, make_answer, write_nan
from pointsman_server.simulator.ask import Ask, RejectedError
from pointsman_server.simulator.behaviour import Behaviour, Dialect, Fault, Rule, Script
from pointsman_server.simulator.calls import CallLog, ReceivedCall, split_headers
from pointsman_server.simulator.delivery import Delivery, streamed, whole
from pointsman_server.simulator.dialects.anthropic import AnthropicMessages
from pointsman_server.simulator.dialects.cohere import Cohere
from pointsman_server.simulator.dialects.dialect import Envelope, ErrorWords, Failure, Frame, WireDialect
from pointsman_server.simulator.dialects.embeddings import CohereEmbeddings, GeminiEmbeddings, OpenAIEmbeddings
from pointsman_server.simulator.dialects.gemini import Gemini
from pointsman_server.simulator.dialects.openai_chat import OpenAIChat
from pointsman_server.simulator.dialects.openai_responses import OpenAIResponses
from pointsman_server.simulator.faults import WHOLE_BODY_FAULTS, Setting, answer_without_content, distort
from pointsman_server.simulator.sending import Pace, send

MAX_REQUEST_BYTES = 64_000_000
_GENERATE = "generateContent"
_STREAM_GENERATE = "streamGenerateContent"
_EMBED = "batchEmbedContents"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Simulation:
    """The state of one running simulator: its script, how often each rule was met, and what was received."""

    def __init__(self, script: Script) -> None:
        self.calls = CallLog()
        self.open_connections = 0
        self.use(script)

    def use(self, script: Script) -> None:
        """Follows this script from now on, with all counters at the start."""
        self._rules: tuple[Rule, ...] = script.rules
        self._met = [0] * len(script.rules)
        self._random = random.Random(script.seed)  # noqa: S311 - ids that repeat with the seed, nothing secret

    def envelope(self) -> Envelope:
        """A fresh one."""
        return Envelope(f"{self._random.getrandbits(128):032x}", int(time.time()))

    def behaviour_for(self, ask: Ask) -> Behaviour:
        """What the first rule that fits says, otherwise what the model's name says."""
        chosen: Behaviour | None = None
        for index, rule in enumerate(self._rules):
            if rule.fits(ask.dialect, ask.model):
                self._met[index] += 1
                if chosen is None and rule.covers(self._met[index]):
                    chosen = rule.behaviour
        return magic.behaviour_for(ask) if chosen is None else chosen


SIMULATION = web.AppKey("simulation", Simulation)


@dataclass(frozen=True, slots=True)
class _Target:
    """What the path says: the model and the way to answer, where the dialect puts them there."""

    model: str = ""
    stream: bool | None = None
    as_array: bool = False


def build_app(script: Script | None = None) -> web.Application:
    """The application; it follows the script, and where the script says nothing, the model names (see `magic`)."""
    app = web.Application(client_max_size=MAX_REQUEST_BYTES)
    app[SIMULATION] = Simulation(script or Script())
    app.router.add_get("/healthz", _health)
    app.router.add_get("/v1/models", _list_models)
    app.router.add_get("/v1beta/models", _list_gemini_models)
    app.router.add_post("/v1/messages", _serve_at(AnthropicMessages()))
    app.router.add_post("/v1/chat/completions", _serve_at(OpenAIChat()))
    app.router.add_post("/v1/responses", _serve_at(OpenAIResponses()))
    app.router.add_post("/v2/chat", _serve_at(Cohere()))
    app.router.add_post("/v1/embeddings", _serve_at(OpenAIEmbeddings()))
    app.router.add_post("/v2/embed", _serve_at(CohereEmbeddings()))
    gemini = _serve_gemini(Gemini(), GeminiEmbeddings())
    for version in ("v1beta", "v1"):
        app.router.add_post(f"/{version}/models/{{target:[^/]+}}", gemini)
    return app


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _list_models(request: web.Request) -> web.Response:
    names = magic.MODEL_NAMES
    if "anthropic-version" in request.headers:
        since = "2026-01-01T00:00:00Z"
        listed = [{"type": "model", "id": name, "display_name": name, "created_at": since} for name in names]
        page = {"has_more": False, "first_id": names[0], "last_id": names[-1]}
        return web.json_response({"data": listed, **page})
    rows = [{"id": name, "object": "model", "created": 0, "owned_by": "simulated"} for name in names]
    return web.json_response({"object": "list", "data": rows})


async def _list_gemini_models(request: web.Request) -> web.Response:
    methods = [_GENERATE, _EMBED]
    rows = [{"name": f"models/{name}", "supportedGenerationMethods": methods} for name in magic.MODEL_NAMES]
    return web.json_response({"models": rows})


def _serve_at(wire: WireDialect) -> _Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await _serve(request, wire, _Target())

    return handle


def _serve_gemini(wire: WireDialect, embeddings: WireDialect) -> _Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        model, _, method = request.match_info["target"].rpartition(":")
        if method == _EMBED:
            return await _serve(request, embeddings, _Target(model, stream=False))
        if method not in (_GENERATE, _STREAM_GENERATE):
            raise web.HTTPNotFound
        stream = method == _STREAM_GENERATE
        as_array = stream and request.query.get("alt") != "sse"
        return await _serve(request, wire, _Target(model, stream, as_array))

    return handle


async def _serve(request: web.Request, wire: WireDialect, target: _Target) -> web.StreamResponse:
    """One call from its first byte to its last."""
    simulation = request.app[SIMULATION]
    simulation.open_connections += 1
    try:
        raw_body = await request.read()
        envelope = simulation.envelope()
        body = _json_object(raw_body)
        model = target.model or str((body or {}).get("model", ""))
        simulation.calls.add(_received(request, wire.dialect, model, raw_body))
        try:
            ask = wire.read(_need_body(body), target.model, target.stream)
            return await _respond(request, wire, ask, simulation.behaviour_for(ask), envelope, target.as_array)
        except RejectedError as error:
            return await send(request, _rejection(wire, envelope, error), Pace())
    except ConnectionResetError:
        # The caller has left: nobody is there to be answered.
        return web.Response()
    finally:
        simulation.open_connections -= 1


def _json_object(raw_body: bytes) -> Mapping[str, Any] | None:
    try:
        body = orjson.loads(raw_body)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def _need_body(body: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if body is None:
        raise RejectedError("We could not parse the JSON body of your request.")
    return body


def _received(request: web.Request, dialect: Dialect, model: str, raw_body: bytes) -> ReceivedCall:
    headers, key_sha256 = split_headers(request.headers, request.query.get("key", ""))
    return ReceivedCall(dialect, request.path, model, headers, key_sha256, raw_body)


def _rejection(wire: WireDialect, envelope: Envelope, error: RejectedError) -> Delivery:
    words = ErrorWords(error.message, error.param, error.code)
    body = wire.error(400, Failure.INVALID, "", envelope, words)
    headers = {"content-type": wire.json_type, **wire.headers(envelope), **wire.error_headers(Failure.INVALID, "")}
    return whole(400, headers, body)


async def _respond(
    request: web.Request, wire: WireDialect, ask: Ask, behaviour: Behaviour, envelope: Envelope, as_array: bool
) -> web.StreamResponse:
    if behaviour.latency_seconds:
        await asyncio.sleep(behaviour.latency_seconds)
    delivery = _without_content(wire, ask, behaviour, envelope)
    pace = Pace()
    if delivery is None:
        answer = make_answer(ask, behaviour)
        delivery, pace = _sound(wire, answer, behaviour, envelope)
        if delivery.announced_bytes is not None:
            await _wait_for_generation(answer, behaviour)
        delivery = _faulty(wire, ask, behaviour, envelope, delivery)
        if as_array and delivery.announced_bytes is None:
            delivery = _array(wire, delivery)
    if behaviour.headers:
        delivery = replace(delivery, headers={**delivery.headers, **behaviour.headers})
    return await send(request, delivery, pace)


def _without_content(wire: WireDialect, ask: Ask, behaviour: Behaviour, envelope: Envelope) -> Delivery | None:
    if behaviour.fault is None:
        return None
    return answer_without_content(behaviour.fault, Setting(wire, envelope, ask.model, ask.stream))


def _sound(wire: WireDialect, answer: Answer, behaviour: Behaviour, envelope: Envelope) -> tuple[Delivery, Pace]:
    fault = behaviour.fault
    is_stream = answer.ask.stream and fault not in WHOLE_BODY_FAULTS
    if is_stream or fault is Fault.STREAM_INSTEAD_OF_JSON:
        headers = {"content-type": wire.stream_type, "cache-control": "no-cache", **wire.headers(envelope)}
        frames = tuple(wire.stream(answer, envelope))
        if behaviour.usage.has_nan:
            frames = tuple(Frame(write_nan(data), tokens) for data, tokens in frames)
        return streamed(headers, frames), Pace(behaviour.first_token_seconds, behaviour.tokens_per_second)
    headers = {"content-type": wire.json_type, **wire.headers(envelope)}
    body = wire.whole(answer, envelope)
    return whole(200, headers, write_nan(body) if behaviour.usage.has_nan else body), Pace()


async def _wait_for_generation(answer: Answer, behaviour: Behaviour) -> None:
    """A whole answer is sent when all of it was generated."""
    seconds = behaviour.first_token_seconds
    if behaviour.tokens_per_second:
        seconds += answer.generated_tokens / behaviour.tokens_per_second
    if seconds:
        await asyncio.sleep(seconds)


def _faulty(wire: WireDialect, ask: Ask, behaviour: Behaviour, envelope: Envelope, sound: Delivery) -> Delivery:
    if behaviour.fault is None:
        return sound
    setting = Setting(wire, envelope, ask.model, is_stream=sound.announced_bytes is None)
    delivery = distort(behaviour.fault, sound, setting)
    return replace(delivery, ping_interval_seconds=behaviour.ping_interval_seconds)


def _array(wire: WireDialect, delivery: Delivery) -> Delivery:
    """A stream of events as the elements of one JSON array."""
    frames = [
        Frame((b",\r\n" if index else b"") + data.removeprefix(b"data: ").strip(), tokens)
        for index, (data, tokens) in enumerate(delivery.frames)
    ]
    headers = {**delivery.headers, "content-type": wire.json_type}
    return replace(delivery, headers=headers, frames=(Frame(b"["), *frames, Frame(b"]")))
