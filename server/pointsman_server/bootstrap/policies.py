"""Which policy is in force when nobody named one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from pointsman_server.config.policy_file import load_policy
from pointsman_server.config.settings import PREFIX, Settings
from pointsman_server.domain.catalog import Snapshot

_POLICY_VARIABLE = f"{PREFIX}POLICY_FILE"


def choose_policy_file(settings: Settings, environ: Mapping[str, str]) -> str:
    """The file that `POINTSMAN_POLICY_FILE` names, else `pointsman.yaml` here, else a shipped one.

    The shipped policy calls real providers as soon as the environment has a key for one of them; otherwise it is the
    demonstration, which the simulator answers.
    """
    if _POLICY_VARIABLE in environ or Path(settings.policy_file).exists():
        return settings.policy_file
    default = shipped_policy("default")
    if _has_key(load_policy(default, environ).snapshot):
        return str(default)
    return str(shipped_policy("demo"))


def shipped_policy(name: str) -> Path:
    """The file of a policy that comes with pointsman: `default` or `demo`."""
    return Path(str(files("pointsman_server") / "policies" / f"{name}.yaml"))


def is_shipped(policy_file: str) -> bool:
    """Whether this is the path of a policy that comes with pointsman, which nobody had to choose."""
    return Path(policy_file).parent == shipped_policy("default").parent


def _has_key(snapshot: Snapshot) -> bool:
    return any(
        deployment.provider.api_key is not None and not deployment.provider.unusable_because
        for deployment in snapshot.deployments.values()
    )
