"""Keys, and the state of a service in which they open doors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kit.clock import FakeClock
from pointsman_server.domain.caller import Role
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.control import Control, Key
from pointsman_server.domain.governance import Governance
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.keys import make_key
from pointsman_server.rpc.authentication import Authenticator, Mode


class Doorkeeper:
    """An `Authenticator` with its surroundings; what is changed here holds from the next call on."""

    def __init__(self, mode: Mode = Mode.REQUIRED, clock: Clock | None = None) -> None:
        self.control = Control()
        self.governance = Governance()
        self.clock = FakeClock()
        self.authenticator = Authenticator(
            lambda: self.control,
            lambda: Snapshot("v", "", {}, {}, {}, governance=self.governance),
            clock or self.clock,
            mode,
        )

    def key(self, tenant: str = "acme", *roles: Role, **fields: Any) -> str:
        """A new key's text; it may call unless other roles are named."""
        new = make_key()
        key = Key(new.id, tenant, frozenset(roles or (Role.CALL,)), new.digest, **fields)
        self.control = replace(self.control, keys={**self.control.keys, new.digest: key})
        return new.text

    def change_keys(self, **fields: Any) -> None:
        """All keys have these fields from now on."""
        keys: Mapping[bytes, Key] = {digest: replace(key, **fields) for digest, key in self.control.keys.items()}
        self.control = replace(self.control, keys=keys)


class Peer:
    """As much of a call's context as tells where it comes from."""

    def __init__(self, **names: Any) -> None:
        self._names = names

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """What the library knows of the certificate."""
        return {kind: [name.encode() for name in names] for kind, names in self._names.items()}


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    """The metadata that presents a key."""
    return (("authorization", f"Bearer {key}"),)
