"""A whole pointsman in the test's process: real sockets, real adapters, a policy made for the test."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from kit.fresh_database import fresh_database_url
from pointsman.v1 import completion_pb2, router_service_pb2_grpc
from pointsman_server.bootstrap.service import Service
from pointsman_server.config.policy_file import LoadedPolicy, compile_policy
from pointsman_server.config.settings import Address, Settings
from pointsman_server.domain.catalog import Snapshot

LOOPBACK = Address("127.0.0.1", 0)

MODEL: Mapping[str, Any] = {
    "tier": "standard",
    "context_window_tokens": 100_000,
    "max_output_tokens": 4_000,
    "capabilities": ["streaming", "tools", "json_schema", "seed", "sampling", "vision", "reasoning"],
    "quality": 0.5,
    "tokenizer": "o200k",
    "price": [{"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"}],
}
"""A model that can do everything; tests override what they are about."""

_TIMEOUTS = {"connect_seconds": 5, "first_token_seconds": 10, "idle_seconds": 10}
"""Far longer than anything here takes on a busy machine; tests of stalls set shorter ones."""


def load_for_test(policy: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> LoadedPolicy:
    """A policy given as a dict in the shape of the YAML file, compiled."""
    text = json.dumps({"version": 1, **policy}, indent=1)  # JSON is YAML
    return compile_policy(text.encode(), "test.yaml", environ or {}, datetime.now(UTC).date())


def compile_for_test(policy: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Snapshot:
    """The snapshot of a policy given as a dict in the shape of the YAML file."""
    return load_for_test(policy, environ).snapshot


def one_deployment_each(
    base_urls: Mapping[str, str],
    dialect: str = "openai_chat",
    timeouts: Mapping[str, float] | None = None,
    **model: Any,
) -> Snapshot:
    """A policy with one provider and deployment for each name; earlier names are cheaper and so asked first."""
    models = {
        f"{name}-model": {**MODEL, "price": [{"input_usd_per_mtok": place + 1, "output_usd_per_mtok": 2}], **model}
        for place, name in enumerate(base_urls)
    }
    return compile_for_test(
        {
            "providers": {name: {"dialect": dialect, "base_url": url} for name, url in base_urls.items()},
            "models": models,
            "deployments": {
                name: {
                    "provider": name,
                    "model": f"{name}-model",
                    "model_name": f"{name}-1",
                    "timeouts": {**_TIMEOUTS, **(timeouts or {})},
                }
                for name in base_urls
            },
        }
    )


def apart() -> dict[str, Any]:
    """Settings of a service that shares nothing with others: free ports, no state, a database of its own."""
    return {
        "grpc_address": LOOPBACK,
        "http_address": LOOPBACK,
        "state_dir": "",
        "database_url": fresh_database_url(),
    }


@asynccontextmanager
async def running_service(policy: Snapshot | LoadedPolicy, **settings: Any) -> AsyncGenerator[Service, None]:
    """A service on a free port of the loopback interface; it keeps no state unless it is told where to."""
    snapshot, record = (policy, None) if isinstance(policy, Snapshot) else (policy.snapshot, policy.record)
    chosen = replace(Settings(), **{**apart(), **settings})
    service = Service(chosen, snapshot, record)
    await service.start()
    try:
        yield service
    finally:
        await service.close()


@asynccontextmanager
async def connected(service: Service, **options: Any) -> AsyncGenerator[grpc.aio.Channel, None]:
    """A channel to the service."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}", options=list(options.items())) as channel:
        yield channel


def router(channel: grpc.aio.Channel) -> router_service_pb2_grpc.RouterServiceAsyncStub:
    """The stock stub."""
    return router_service_pb2_grpc.RouterServiceStub(channel)  # type: ignore[return-value]


def user(text: str) -> completion_pb2.Message:
    """A user's message."""
    return completion_pb2.Message(role=completion_pb2.ROLE_USER, parts=[completion_pb2.Part(text=text)])


def spec(text: str = "What is the capital of France?", **fields: Any) -> completion_pb2.CompletionSpec:
    """A request with one user message."""
    return completion_pb2.CompletionSpec(messages=[user(text)], **fields)


class RichError:
    """An error as the contract promises it: code, message, and each detail at most once."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code: grpc.StatusCode = error.code()
        self.message: str = error.details() or ""
        self.metadata: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
        status = status_pb2.Status.FromString(self.metadata["grpc-status-details-bin"])
        self.details: dict[str, Any] = {}
        for packed in status.details:
            name = packed.TypeName().rsplit(".", 1)[-1]
            assert name not in self.details, f"detail {name} twice"
            detail = getattr(error_details_pb2, name)()
            packed.Unpack(detail)
            self.details[name] = detail
        assert status.code == self.code.value[0]
        info = self.details["ErrorInfo"]
        assert info.domain == "pointsman.v1"
        assert info.metadata["requestId"] == self.metadata["x-request-id"]
        self.reason: str = info.reason

    @property
    def fields(self) -> list[str]:
        """Paths of the fields that are wrong."""
        return [violation.field for violation in self.details["BadRequest"].field_violations]

    def everything(self) -> str:
        """All text that left the server."""
        return f"{self.message} {self.details} {self.metadata}"
