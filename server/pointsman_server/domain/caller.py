"""Who calls, and what he may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """What a caller may do. They do not include each other: an operator's key cannot spend money."""

    CALL = "call"
    """Route, Complete, StreamComplete, Embed, RecordFeedback."""
    READ = "read"
    """The reading methods of AdminService."""
    OPERATE = "operate"
    """Flags, kill switches, breakers, promotion of canaries; reading too."""
    ADMINISTER = "administer"
    """Policies and keys; all of the above but CALL."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `name` is a key's id or a certificate's identity, never a secret.

    `tenant` is never empty: whoever has none has not been authenticated.
    """

    name: str
    tenant: str
    roles: frozenset[Role]


LOCAL_TENANT = "local"
"""Whom calls belong to in the insecure development mode."""

LOCAL_CALLER = Caller("local", LOCAL_TENANT, frozenset(Role))
"""Everybody, in the insecure development mode, which listens on loopback only."""
