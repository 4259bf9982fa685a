"""The contract's own stubs, with the client's API key, metadata and deadlines as defaults."""

from __future__ import annotations

from typing import Any, TypeVar

from pointsman_client._settings import CallDefaults

Stub = TypeVar("Stub")


def with_defaults(stub: Stub, defaults: CallDefaults) -> Stub:
    """The stub with the defaults put into each of its methods."""
    for name, method in list(vars(stub).items()):
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
