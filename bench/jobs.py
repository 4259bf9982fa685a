"""What the load generator is told, and what it tells when it is done; both travel as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.machine import CPU_TICK_SECONDS

_BINARY = ("request", "expected")


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement.

    Closed loop: `concurrency` callers, each with one call at a time. Open loop: calls begin at random moments,
    `calls_per_second` on average, however long the earlier ones take. A call whose last message does not contain
    `expected` has failed. With `restless` a tenth of the callers read slowly and a twentieth leave in the middle, which
    is no failure. A server takes 100 calls on one connection, so that a crowd needs several.
    """

    target: str
    method: str
    request: bytes
    expected: bytes
    stream: bool
    server_pid: int
    seconds: float
    warmup_seconds: float = 0.4
    concurrency: int = 32
    calls_per_second: float = 0.0
    restless: bool = False
    connections: int = 1
    key: str = ""
    """The caller's key, if it needs one."""

    def to_json(self) -> str:
        """For the load generator's standard input."""
        packed = {name: base64.b64encode(getattr(self, name)).decode() for name in _BINARY}
        return json.dumps(asdict(self) | packed)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The same job again."""
        fields = json.loads(text)
        return cls(**fields | {name: base64.b64decode(fields[name]) for name in _BINARY})


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of durations in seconds; all 0 when there was none."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles:
        """The nearest ranks."""
        ranked = sorted(values) or [0.0]
        return cls(*(ranked[min(len(ranked) - 1, int(len(ranked) * share))] for share in (0.50, 0.95, 0.99)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened between the end of the warm-up and the end of the measurement.

    `server_cpu_seconds` and `load_cpu_seconds` are processor time. `first_token_added` is what everything between
    caller and upstream added to the time of the first text, for paced streams.
    """

    seconds: float
    calls: int
    messages: int
    failures: int
    server_cpu_seconds: float
    load_cpu_seconds: float
    latency: Percentiles
    first_token_added: Percentiles

    def cpu_micros_each(self, things: int) -> float:
        """The server's processor time for each of so many things, at least a clock tick for all of them."""
        return max(self.server_cpu_seconds, CPU_TICK_SECONDS) / max(things, 1) * 1e6

    def to_json(self) -> str:
        """For the load generator's standard output."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """The same outcome again."""
        fields = json.loads(text)
        for name in ("latency", "first_token_added"):
            fields[name] = Percentiles(**fields[name])
        return cls(**fields)
