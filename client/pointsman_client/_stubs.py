"""The contract's own stubs, with the client's API key, metadata and deadlines as defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pointsman_client._options import ClientOptions, MetadataItems, checked_timeout

Stub = TypeVar("Stub")

_STREAMS = frozenset({"StreamComplete"})


@dataclass(frozen=True, slots=True)
class CallDefaults:
    """What every call of a client carries unless it says otherwise."""

    timeout_seconds: float
    stream_timeout_seconds: float
    api_key: str
    more_metadata: Callable[[], MetadataItems]

    @classmethod
    def of(cls, options: ClientOptions) -> CallDefaults:
        """The defaults that a client's options name; raises ValueError for a deadline that is none."""
        api_key = options.get("api_key", "")
        if not api_key.isascii() or not api_key.isprintable() or api_key != api_key.strip():
            raise ValueError("api_key must be printable ASCII without blanks around it")
        return cls(
            timeout_seconds=checked_timeout(options.get("timeout_seconds", 60.0)),
            stream_timeout_seconds=checked_timeout(options.get("stream_timeout_seconds", 300.0)),
            api_key=api_key,
            more_metadata=options.get("metadata", tuple),
        )

    def metadata(self, of_call: MetadataItems) -> tuple[tuple[str, str | bytes], ...]:
        """All metadata of a call. A key that a call sets itself is not sent twice: servers refuse two credentials."""
        items: list[tuple[str, str | bytes]] = [(key.lower(), value) for key, value in of_call]
        for source in (self.more_metadata(), self._credentials()):
            taken = {key for key, _ in items}
            items += [(key.lower(), value) for key, value in source if key.lower() not in taken]
        return tuple(items)

    def timeout(self, method: str) -> float:
        """The deadline in seconds of a method that is called without one."""
        return self.stream_timeout_seconds if method in _STREAMS else self.timeout_seconds

    def _credentials(self) -> MetadataItems:
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def __repr__(self) -> str:
        return "CallDefaults(...)"  # the key must not reach a log


def with_defaults(stub: Stub, defaults: CallDefaults) -> Stub:
    """The stub with the defaults put into each of its methods."""
    methods: Mapping[str, Any] = vars(stub)
    for name, method in list(methods.items()):
        setattr(stub, name, _Defaulted(method, defaults, name))
    return stub


class _Defaulted:
    """A method of a stub that fills in what its caller leaves out; sync and async ones are called alike."""

    def __init__(self, method: Any, defaults: CallDefaults, name: str) -> None:
        self._method = method
        self._defaults = defaults
        self._name = name

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        return self._method(request, **self._filled(timeout, metadata), **options)

    def with_call(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """The response and the call that brought it, of a sync method."""
        return self._method.with_call(request, **self._filled(timeout, metadata), **options)

    def future(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """The response to come, of a sync method."""
        return self._method.future(request, **self._filled(timeout, metadata), **options)

    def _filled(self, timeout: float | None, metadata: Any) -> dict[str, Any]:
        return {
            "timeout": self._defaults.timeout(self._name) if timeout is None else timeout,
            "metadata": self._defaults.metadata(metadata or ()),
        }
