"""Points the simulated providers of a policy to the simulator that is actually running."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from pointsman_server.domain.catalog import Deployment, Provider, Snapshot


def with_simulator(snapshot: Snapshot, base_url: str) -> Snapshot:
    """The same policy, version included, with every simulated provider at this `scheme://host:port`.

    Each provider keeps the path of its own base URL, because some dialects have one (`/v1`) and others have not.
    """
    return replace(
        snapshot,
        deployments={
            name: _moved(deployment, base_url) if deployment.provider.simulated else deployment
            for name, deployment in snapshot.deployments.items()
        },
    )


def _moved(deployment: Deployment, base_url: str) -> Deployment:
    provider: Provider = deployment.provider
    path = urlsplit(provider.base_url).path
    return replace(deployment, provider=replace(provider, base_url=base_url.rstrip("/") + path))
