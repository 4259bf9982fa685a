"""What the policy has done for the sake of confidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConfidencePolicy:
    """As it stands, nothing is done.

    An answer below `escalate_below` (0..1) is asked for once more, from a stronger tier. `cross_check_with` is the id
    of a deployment that answers the same, to be compared: for every call, or for those with one of these labels.
    """

    escalate_below: float | None = None
    cross_check_with: str = ""
    cross_check_labels: tuple[tuple[str, str], ...] = ()

    def asks_others(self, labels: Mapping[str, str]) -> bool:
        """Whether anybody may be asked about the answers of calls with these labels."""
        return self.escalate_below is not None or self.cross_checks(labels)

    def cross_checks(self, labels: Mapping[str, str]) -> bool:
        """Whether the answers of calls with these labels are compared."""
        if not self.cross_check_with:
            return False
        wanted = self.cross_check_labels
        return not wanted or any(labels.get(name) == value for name, value in wanted)
