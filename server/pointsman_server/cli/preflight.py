"""`pointsman preflight`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import click
from rich.text import Text

from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.bootstrap.callers import certificates_of
from pointsman_server.bootstrap.policies import choose_policy_file
from pointsman_server.cli.configuration import POLICY_VARIABLE, environment
from pointsman_server.cli.console import as_shown, make_table, open_console
from pointsman_server.config.preflight import Check, PreflightReport, Status, run_preflight, settings_report
from pointsman_server.config.settings import Settings, SettingsError
from pointsman_server.rpc.certificates import CertificateError

_STYLES = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}


@click.command(short_help="Check whether a server would work here.")
@click.option("--policy", metavar="FILE", help=f"The policy file.  [env var: {POLICY_VARIABLE}]")
@click.option("--check-endpoints", is_flag=True, help="Ask every provider for a sign of life; no key is sent.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def preflight(ctx: click.Context, policy: str | None, check_endpoints: bool, as_json: bool) -> None:
    """Check whether a server with this environment and this policy would work.

    The exit code is 1 when a check fails, otherwise 0.
    """
    report = _check(environment({POLICY_VARIABLE: policy}), check_endpoints=check_endpoints)
    if as_json:
        click.echo(report.to_json())
    else:
        _show(report)
    ctx.exit(report.exit_code)


def _check(environ: dict[str, str], *, check_endpoints: bool) -> PreflightReport:
    try:
        settings = Settings.from_environment(environ)
    except SettingsError as error:
        return settings_report(error)
    settings = replace(settings, policy_file=choose_policy_file(settings, environ))
    report = run_preflight(settings, environ, check_endpoints=check_endpoints, load_token_counter=TiktokenCounter)
    return PreflightReport((*report.checks, *_certificate_checks(settings)))


def _certificate_checks(settings: Settings) -> Iterator[Check]:
    certificates = certificates_of(settings)
    if certificates is None or not settings.tls_key_file:
        return
    try:
        certificates.check()
    except CertificateError as error:
        yield Check("tls", Status.FAIL, str(error), "Correct the files, or the variables that name them.")
    else:
        yield Check("tls", Status.OK, "the certificate and its key belong together")


def _show(report: PreflightReport) -> None:
    console = open_console()
    table = make_table(("", "check", "finding"))
    for check in report.checks:
        table.add_row(Text(check.status.name, style=_STYLES[check.status]), check.id, _finding(check))
    console.print(table)
    found = {status: sum(check.status is status for check in report.checks) for status in Status}
    console.print(f"\n{found[Status.OK]} ok, {found[Status.WARN]} to look at, {found[Status.FAIL]} failed")


def _finding(check: Check) -> Text:
    text = as_shown(check.message)
    if check.remedy and check.remedy not in check.message:
        text.append(f"\n{check.remedy}", style="italic")
    return text
