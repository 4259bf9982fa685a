"""What a client was told when it was made: where to connect, what every call carries, how to retry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pointsman.v1.completion_pb2 import CompletionSpec
from pointsman.v1.embedding_service_pb2 import EmbedRequest
from pointsman_client._connection import Connection
from pointsman_client._options import (
    CallOptions,
    ClientOptions,
    CompletionOptions,
    EmbedOptions,
    MetadataItems,
    Prompt,
    RouteOptions,
    StreamOptions,
    checked_timeout,
    completion_from,
    embed_from,
    metadata_from,
    refuse_unknown,
    timeout_from,
)
from pointsman_client._retrying import Attempts, Method, RetryPolicy

_CREDENTIALS = {"authorization", "x-api-key"}
"""Either carries a key; servers take one of them."""


@dataclass(frozen=True, slots=True)
class CallDefaults:
    """What every call of a client carries unless it says otherwise."""

    timeout_seconds: float
    stream_timeout_seconds: float
    api_key: str
    more_metadata: Callable[[], MetadataItems]

    @classmethod
    def of(cls, options: ClientOptions) -> CallDefaults:
        """The defaults that a client's options name; raises ValueError for a deadline or key that is none."""
        api_key = options.get("api_key") or ""
        if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
            raise ValueError("api_key must be printable ASCII without blanks")
        return cls(
            timeout_seconds=checked_timeout(options.get("timeout_seconds", 60.0)),
            stream_timeout_seconds=checked_timeout(options.get("stream_timeout_seconds", 300.0)),
            api_key=api_key,
            more_metadata=options.get("metadata", tuple),
        )

    def metadata(self, of_call: MetadataItems) -> tuple[tuple[str, str | bytes], ...]:
        """All metadata of a call. A key that a call sets itself is not sent twice: servers refuse two credentials."""
        items = [(key.lower(), value) for key, value in of_call]
        for source in (self.more_metadata(), self._credentials()):
            taken = {key for key, _ in items}
            taken |= _CREDENTIALS if taken & _CREDENTIALS else set()
            items += [(key.lower(), value) for key, value in source if key.lower() not in taken]
        return tuple(items)

    def timeout(self, method: str) -> float:
        """The deadline in seconds of a method that is called without one."""
        is_stream = method == Method.STREAM_COMPLETE.value
        return self.stream_timeout_seconds if is_stream else self.timeout_seconds

    def _credentials(self) -> MetadataItems:
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def __repr__(self) -> str:
        return "CallDefaults(...)"  # the key must not reach a log


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a client knows before it connects."""

    connection: Connection
    defaults: CallDefaults
    retry: RetryPolicy

    @classmethod
    def of(cls, target: str, options: ClientOptions) -> Settings:
        """The settings for a target; raises TypeError or ValueError that names the option at fault."""
        refuse_unknown(options, ClientOptions)
        connection = Connection.to(
            target,
            insecure=options.get("insecure", False),
            credentials=options.get("credentials"),
            channel_options=options.get("channel_options", ()),
        )
        defaults = CallDefaults.of(options)
        if defaults.api_key and not connection.is_secret:
            raise ValueError("api_key is sent over TLS only, or to this machine: leave insecure out")
        return cls(connection, defaults, options.get("retry", RetryPolicy()))

    def prepare(self, method: Method, prompt: Prompt, options: RouteOptions) -> PreparedCompletion:
        """The call that a prompt and its options make; its time starts now. Raises TypeError and ValueError."""
        refuse_unknown(options, _KNOWN_OPTIONS[method])
        completion = completion_from(prompt, options)
        call = self._begin(method, options, completion.request_id)
        return PreparedCompletion(call.attempts, call.metadata, completion)

    def prepare_embedding(self, texts: str | Sequence[str], options: EmbedOptions) -> PreparedEmbedding:
        """The call that asks for vectors; its time starts now. Raises TypeError and ValueError."""
        refuse_unknown(options, EmbedOptions)
        request = embed_from(texts, options)
        call = self._begin(Method.EMBED, options, request.request_id)
        return PreparedEmbedding(call.attempts, call.metadata, request)

    def prepare_feedback(self, options: CallOptions) -> PreparedCall:
        """The call that gives a verdict; its time starts now. Raises TypeError and ValueError."""
        refuse_unknown(options, CallOptions)
        return self._begin(Method.RECORD_FEEDBACK, options, "")

    def _begin(self, method: Method, options: CallOptions, request_id: str) -> PreparedCall:
        timeout_seconds = timeout_from(options, self.defaults.timeout(method.value))
        return PreparedCall(Attempts(method, self.retry, timeout_seconds, request_id), metadata_from(options))


_KNOWN_OPTIONS: Mapping[Method, type] = {
    Method.ROUTE: RouteOptions,
    Method.COMPLETE: CompletionOptions,
    Method.STREAM_COMPLETE: StreamOptions,
}


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A call before it is made."""

    attempts: Attempts
    metadata: tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class PreparedCompletion(PreparedCall):
    """The same with what is asked."""

    completion: CompletionSpec


@dataclass(frozen=True, slots=True)
class PreparedEmbedding(PreparedCall):
    """The same for vectors."""

    request: EmbedRequest
