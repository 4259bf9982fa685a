"""Reads what leads to deployments: aliases and the chains of the tiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pointsman_server.config.deployments import one_defined
from pointsman_server.config.models import TIERS
from pointsman_server.config.problems import path_part
from pointsman_server.config.scalars import list_of, refuse_bad_id, some
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.request import Tier

MAX_CHAIN_LENGTH = 10

TIERS_KEYS: Keys = {tier: f"{tier}: {{chain: [first-deployment, second-deployment]}}" for tier in TIERS}
TIER_KEYS: Keys = {"chain": "chain: [first-deployment, second-deployment]"}


def read_aliases(spot: Spot, deployments: Mapping[str, Deployment]) -> dict[str, str]:
    """Alias to deployment id, every alias followed to its end. Loops and dangling aliases are noted."""
    spots = dict(spot.entries())
    for alias, target in spots.items():
        refuse_bad_id(target, alias)
        if alias in deployments:
            target.refuse("has the name of a deployment", "Choose another name for the alias.")
    known = {name: name for name in (*spots, *deployments)}
    targets = {alias: target.read(one_defined("deployment or alias", known), "") for alias, target in spots.items()}
    ends: dict[str, str] = {}
    for alias in spots:
        _follow(alias, targets, spots, ends)
    return {alias: end for alias, end in ends.items() if end in deployments}


def _follow(alias: str, targets: Mapping[str, str], spots: Mapping[str, Spot], ends: dict[str, str]) -> None:
    """Enters the end of this alias, and of all on the way to it, into `ends`; "" for a loop, which is noted."""
    trail: dict[str, None] = {}
    name = alias
    while name in targets and name not in ends and name not in trail:
        trail[name] = None
        name = targets[name]
    if name in trail:
        loop = [path_part(link) for link in (*list(trail)[list(trail).index(name) :], name)]
        shown_loop = loop if len(loop) <= MAX_CHAIN_LENGTH else [*loop[:MAX_CHAIN_LENGTH], "…"]
        spots[name].refuse(f"runs in a circle: {' → '.join(shown_loop)}", "Let one of them name a deployment.")
        name = ""
    end = ends.get(name, name)
    ends.update(dict.fromkeys(trail, end))


def named_deployments(snapshot: Snapshot) -> Callable[[Spot], tuple[str, ...]]:
    """A reader of deployments by id or alias, as ids; there must be at least one."""
    known = {**{name: name for name in snapshot.deployments}, **snapshot.aliases}
    return some(list_of(one_defined("deployment or alias", known)))


def read_tier_chains(
    spot: Spot, deployments: Mapping[str, Deployment], aliases: Mapping[str, str]
) -> dict[Tier, tuple[str, ...]]:
    """The fallback chains of the tiers that list one, as deployment ids in listed order."""
    section = Section(spot, TIERS_KEYS)
    reader = _chain_reader({**{name: name for name in deployments}, **aliases}, deployments)
    return {
        tier: Section(value, TIER_KEYS).required("chain", reader, ())
        for name, tier in TIERS.items()
        if (value := section.at(name))
    }


def _chain_reader(known: Mapping[str, str], deployments: Mapping[str, Deployment]) -> Callable[[Spot], tuple[str, ...]]:
    read_links = list_of(one_defined("deployment or alias", known))

    def read(spot: Spot) -> tuple[str, ...]:
        length = len(list(spot.items()))
        if not 1 <= length <= MAX_CHAIN_LENGTH:
            raise UnacceptableError(
                f"has {length} deployments", f"List 1 to {MAX_CHAIN_LENGTH}, in the order in which they are asked."
            )
        links = read_links(spot)
        making = [name for name in links if deployments[name].model.embedding is not None]
        if making:
            raise UnacceptableError(f"names {making[0]}, whose model only makes vectors", "Take it out.")
        return links

    return read
