"""`python -m wall`: runs scenarios of failing providers against pointsman or another gateway."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from rich.console import Console

from wall.catalogue import SCENARIOS
from wall.comparing import compare
from wall.policy import make_policy, shareable
from wall.report import add, begin, show
from wall.running import Site, expect_an_answer, run_scenario, running_site
from wall.scenario import PATIENCE_SECONDS, QUICK, ROLES, Result, Scenario, Setting, Stage, Verdict
from wall.server import running_pointsman
from wall.targets.openai import OpenAIGateway
from wall.targets.pointsman import Pointsman
from wall.targets.target import Target

_PORTS = "18101,18102"
_GRPC = "grpc://"
_CONNECT_SECONDS = 10.0


def main() -> None:
    """Exit code 0: nothing is broken; 1: something is; 2: it was asked wrongly."""
    parser = _parser()
    options = parser.parse_args()
    console = Console(highlight=False, width=170)
    chosen = _chosen(options, parser)
    if options.list:
        for scenario in chosen:
            console.print(f"{scenario.id}  {scenario.title}  [{scenario.promise}]", markup=False)
        return
    if options.compare:
        _compare(options.compare, parser)
        return
    setting = _setting(options)
    if options.write_policy:
        _write_policy(options, chosen, setting, console)
        return
    if bool(options.target) == options.start:
        parser.error("give either --start or --target")
    if options.key_env and options.key_env not in os.environ:
        parser.error(f"--key-env names {options.key_env}, which is not in the environment; set it to the gateway's key")
    name = options.name or options.target or "pointsman"
    try:
        results = asyncio.run(_run(options, chosen, setting, name, console))
    except (OSError, RuntimeError, TimeoutError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    show(results, setting, name, console)
    console.print(f"written to {options.output}")
    sys.exit(any(result.verdict is Verdict.BROKEN for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m wall", description=__doc__)
    argument = parser.add_argument
    argument("--start", action="store_true", help="start a pointsman of this project for each scenario")
    argument("--target", metavar="URL", help="grpc://HOST:PORT of a pointsman, or http://HOST:PORT/v1 of any gateway")
    argument("--model", default="wall", help="HTTP: the gateway's model with primary and fallback (default: wall)")
    argument("--lone-model", default="", metavar="MODEL", help="HTTP: a model that leads to the primary alone, if any")
    argument("--key-env", default="", metavar="NAME", help="HTTP: the environment variable with the gateway's key")
    argument(
        "--headers", type=_headers, default={}, metavar="FILE", help="HTTP: a JSON object of headers for every call"
    )
    argument("--scenario", default="", metavar="S03,S07", help="only these")
    argument("--seed", type=int, default=1, help="same seed, same faults (default: 1)")
    argument("--quick", action="store_true", help=f"durations x {QUICK.scale:g}, and {QUICK.many} random calls each")
    argument("--many", type=int, help="random calls of a scenario (default: 1000, quick: 50)")
    argument("--ports", type=_ports, default=_PORTS, metavar="P,F", help=f"the upstreams' ports (default: {_PORTS})")
    argument("--write-policy", type=Path, metavar="FILE", help="only write the policy that --target grpc:// needs")
    argument("--output", type=Path, default=Path("var/wall.jsonl"), help="the report (default: var/wall.jsonl)")
    argument("--name", default="", help="what the target is called in the report (default: its URL)")
    argument(
        "--compare", type=Path, nargs="+", metavar="FILE", help="only print these reports side by side, in Markdown"
    )
    argument("--log", action="store_true", help="put the wall log into the report: every request and every outcome")
    argument("--list", action="store_true", help="only tell the scenarios")
    return parser


def _chosen(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Scenario]:
    names = [name.strip().upper() for name in options.scenario.split(",") if name.strip()]
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}; see --list")
    return [SCENARIOS[name] for name in names] or list(SCENARIOS.values())


def _setting(options: argparse.Namespace) -> Setting:
    base = QUICK if options.quick else Setting()
    return Setting(seed=options.seed, scale=base.scale, many=options.many or base.many)


def _ports(text: str) -> dict[str, int]:
    numbers = [int(number) for number in text.split(",")]
    if len(numbers) != len(ROLES):
        raise argparse.ArgumentTypeError(f"takes {len(ROLES)} numbers, for {' and '.join(ROLES)}")
    return dict(zip(ROLES, numbers, strict=True))


def _headers(text: str) -> dict[str, str]:
    try:
        content = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise argparse.ArgumentTypeError(f"{text} must hold one JSON object, a name and a value for each header")
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in content.items()}


def _compare(files: Sequence[Path], parser: argparse.ArgumentParser) -> None:
    try:
        print(compare(files), end="")
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _write_policy(options: argparse.Namespace, chosen: Sequence[Scenario], setting: Setting, console: Console) -> None:
    stages = _shared(chosen, setting)
    addresses = {role: f"http://127.0.0.1:{port}" for role, port in options.ports.items()}
    policy = make_policy(stages, addresses, setting)
    options.write_policy.write_text(json.dumps(policy, indent=1), encoding="utf-8")  # JSON is YAML
    variables = " ".join(f"{name}={value}" for stage in stages.values() for name, value in stage.settings.items())
    console.print(f"written to {options.write_policy}, for {', '.join(stages)}; start the server with it:")
    console.print(f"{variables} pointsman serve --policy {options.write_policy}".strip())


def _shared(chosen: Sequence[Scenario], setting: Setting) -> dict[str, Stage]:
    """Those that one server can run; a single one may have whatever it needs."""
    stages = {scenario.id: scenario.stage(setting) for scenario in chosen}
    return stages if len(stages) == 1 else {id: stage for id, stage in stages.items() if shareable(stage)}


async def _run(
    options: argparse.Namespace, chosen: Sequence[Scenario], setting: Setting, name: str, console: Console
) -> list[Result]:
    ports = None if options.start else options.ports
    results = []
    async with running_site(ports) as site:
        if options.target and not options.target.startswith(_GRPC):
            _tell_configuration(site, setting, console)
            async with _target(options, chosen[0], chosen[0].stage(setting), setting, site) as target:
                await expect_an_answer(site, target)
        begin(options.output, setting, name)
        for scenario in chosen:
            result = await _run_one(options, scenario, setting, site, alone=len(chosen) == 1)
            results.append(result)
            add(options.output, result, with_log=options.log)
            console.print(f"{scenario.id} {result.verdict.value:<14} {result.seconds:6.1f} s  {scenario.title}")
    return results


async def _run_one(
    options: argparse.Namespace, scenario: Scenario, setting: Setting, site: Site, *, alone: bool
) -> Result:
    stage = scenario.stage(setting)
    if options.target and options.target.startswith(_GRPC) and not alone and not shareable(stage):
        return Result(scenario, (), 0.0, note="needs a server with settings of its own: --start, or this one alone")
    async with _target(options, scenario, stage, setting, site) as target:
        return await run_scenario(scenario, stage, setting, site, target)


@asynccontextmanager
async def _target(
    options: argparse.Namespace, scenario: Scenario, stage: Stage, setting: Setting, site: Site
) -> AsyncGenerator[Target, None]:
    if options.start:
        addresses = {role: upstream.address for role, upstream in site.items()}
        policy = make_policy({scenario.id: stage}, addresses, setting)
        async with running_pointsman(policy, stage.settings) as address, _connected(address) as target:
            yield target
    elif options.target.startswith(_GRPC):
        async with _connected(options.target.removeprefix(_GRPC)) as target:
            yield target
    else:
        key = os.environ.get(options.key_env, "") if options.key_env else ""
        gateway = OpenAIGateway(options.target, options.model, key, options.lone_model, options.headers)
        try:
            yield gateway
        finally:
            await gateway.close()


@asynccontextmanager
async def _connected(address: str) -> AsyncGenerator[Pointsman, None]:
    target = Pointsman(address)
    try:
        await _connect(target, address)
        yield target
    finally:
        await target.close()


async def _connect(target: Pointsman, address: str) -> None:
    try:
        await asyncio.wait_for(target.ready(), _CONNECT_SECONDS)
    except (grpc.RpcError, TimeoutError) as error:
        raise RuntimeError(f"no pointsman answers at {address}; start it, or give its address") from error


def _tell_configuration(site: Site, setting: Setting, console: Console) -> None:
    console.print("The gateway must have one model with two OpenAI-compatible upstreams, tried in this order:")
    for role, upstream in site.items():
        console.print(f"  {role:<9} {upstream.address}/v1  (any key, any model name)")
    told = ", ".join(f"{name} {setting.patience_seconds(name):g} s" for name in PATIENCE_SECONDS)
    console.print(f"Timeouts: {told}. A breaker or cooldown of at most {setting.seconds(30):g} s.\n")


if __name__ == "__main__":
    main()
