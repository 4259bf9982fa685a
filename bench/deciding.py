"""The decision alone, without gRPC: tokens estimated, deployments sifted and ranked."""

from __future__ import annotations

import time
from pathlib import Path

from bench.jobs import Percentiles
from bench.machine import cores, on_core
from bench.payloads import route_request
from pointsman.v1.router_service_pb2 import RouteRequest
from pointsman_server.config.policy_file import load_policy
from pointsman_server.decision.engine import decide
from pointsman_server.decision.tokens import estimate_tokens
from pointsman_server.domain.health import HealthView
from pointsman_server.rpc.request import read_request


def measure_decision(policy_file: Path, seconds: float) -> Percentiles:
    """How long a decision about the prompt takes, in seconds."""
    snapshot = load_policy(policy_file, {"BENCH_KEY": "bench"}).snapshot
    request = read_request(RouteRequest.FromString(route_request()))
    health = HealthView()
    latencies: list[float] = []
    pair = cores()
    with on_core(pair[0] if pair else None):
        ends_at = time.perf_counter() + seconds
        started_at = time.perf_counter()
        while started_at < ends_at:
            decide(request, snapshot, health, estimate_tokens(request))
            ended_at = time.perf_counter()
            latencies.append(ended_at - started_at)
            started_at = time.perf_counter()
    return Percentiles.of(latencies)
