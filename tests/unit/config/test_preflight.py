"""The report before the start: one finding per check, with what to do, and the exit code that follows."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pointsman_server.config import preflight
from pointsman_server.config.preflight import Check, PreflightReport, Status, run_preflight, settings_report
from pointsman_server.config.settings import Address, Authentication, Settings, SettingsError
from pointsman_server.decision.encoder import Encoder

POLICIES = Path(__file__).parents[3] / "deploy" / "policies"
TODAY = date(2026, 11, 21)
KEY = {"ANTHROPIC_API_KEY": "sk-ant-PLANTED-1"}
ANY_PORT = Address("127.0.0.1", 0)

Run = Callable[..., PreflightReport]


class ReadyCounter:
    is_ready = True

    def warm_up(self) -> None:
        pass


class WordCounter(ReadyCounter):
    def count(self, text: str) -> int:
        return len(text.split())


class IdleCounter(ReadyCounter):
    def count(self, text: str) -> int:
        return 0


class BrokenCounter(ReadyCounter):
    def count(self, text: str) -> int:
        raise OSError("PLANTED: no network")


@pytest.fixture
def run(tmp_path: Path, good_policy: str) -> Run:
    def run_(
        policy: str = good_policy,
        environ: dict[str, str] | None = None,
        settings: Settings | None = None,
        check_endpoints: bool = False,
        **more: object,
    ) -> PreflightReport:
        path = tmp_path / "policy.yaml"
        path.write_text(policy)
        settings = replace(settings or Settings(grpc_address=ANY_PORT, http_address=ANY_PORT), policy_file=str(path))
        return run_preflight(
            settings,
            KEY if environ is None else environ,
            check_endpoints=check_endpoints,
            today=TODAY,
            **more,  # type: ignore[arg-type]
        )

    return run_


def by_id(report: PreflightReport, id_: str) -> list[Check]:
    return [check for check in report.checks if check.id == id_]


def one(report: PreflightReport, id_: str) -> Check:
    (check,) = by_id(report, id_)
    return check


def test_good_policy_passes(run: Run) -> None:
    report = run()
    assert report.exit_code == 0
    assert one(report, "policy").status is Status.OK
    assert one(report, "provider.anthropic.key").message == "anthropic has a key from ${ANTHROPIC_API_KEY}"
    assert one(report, "provider.local.key").message == "local needs no key"
    assert one(report, "deployments").message == "2 of 2 deployments can be used"
    assert one(report, "tier.light").status is Status.OK
    assert one(report, "tier.advanced").status is Status.WARN
    assert "since" in one(report, "price.claude").message or "undated" in one(report, "price.claude").message
    assert one(report, "price.small").status is Status.OK
    assert not by_id(report, "tokenizer")
    assert not by_id(report, "provider.local.endpoint")


def test_every_finding_that_asks_for_action_says_which(run: Run, good_policy: str) -> None:
    broken = good_policy.replace("quality: 0.8", "quality: 8")
    for report in (run(environ={}), run(policy=broken), run(load_token_counter=BrokenCounter)):
        assert all(check.remedy for check in report.checks if check.status is not Status.OK)


def test_no_key_and_no_url_is_told(run: Run) -> None:
    told = run(check_endpoints=False).to_json()
    assert "PLANTED" not in told
    assert "https://" not in told


def test_missing_key_warns_and_names_the_variable(run: Run) -> None:
    report = run(environ={})
    check = one(report, "provider.anthropic.key")
    assert check.status is Status.WARN
    assert "environment variable ANTHROPIC_API_KEY is not set" in check.message


def test_tier_without_any_usable_deployment_fails(run: Run) -> None:
    report = run(environ={})
    assert one(report, "tier.standard").status is Status.FAIL
    assert one(report, "tier.light").status is Status.OK
    assert report.exit_code == 1


def test_no_usable_deployment_fails(run: Run, good_policy: str) -> None:
    keyed = good_policy.replace('8089/v1"}', '8089/v1", api_key: "${LOCAL_KEY}"}')
    assert one(run(policy=keyed, environ={}), "deployments").status is Status.FAIL


def test_wrong_policy_fails_with_every_problem(run: Run, good_policy: str) -> None:
    report = run(policy=good_policy.replace("quality: 0.8", "quality: 8").replace("tier: light", "tier: l"))
    problems = by_id(report, "policy")
    assert [check.status for check in problems] == [Status.FAIL, Status.FAIL]
    assert ":7: models.claude.quality is 8." in problems[0].message
    assert report.exit_code == 1


def test_warnings_of_the_policy_are_passed_on(run: Run) -> None:
    report = run(environ={"ANTHROPIC_API_KEY": "pplx-PLANTED-123"})
    assert [check.status for check in by_id(report, "policy")] == [Status.OK, Status.WARN]
    assert report.exit_code == 0


def test_zero_price_on_the_internet_warns_but_not_at_home(run: Run, good_policy: str) -> None:
    free = re.sub(r"(input|output)_usd_per_mtok: [0-9.]+", r"\1_usd_per_mtok: 0", good_policy)
    assert one(run(policy=free), "price.small").status is Status.OK
    abroad = free.replace("http://127.0.0.1:8089/v1", "https://models.example.com/v1")
    assert one(run(policy=abroad), "price.small").status is Status.WARN


def test_coming_price_change_is_announced(run: Run, good_policy: str) -> None:
    coming = "{valid_from: 2026-12-01, input_usd_per_mtok: 9, output_usd_per_mtok: 9}"
    changing = good_policy.replace("price: [{input", f"price: [{coming}, {{input")
    check = one(run(policy=changing), "price.small.change")
    assert check.status is Status.WARN
    assert "2026-12-01" in check.message
    later = changing.replace("2026-12-01", "2027-06-01")
    assert not by_id(run(policy=later), "price.small.change")
    begun = changing.replace("2026-12-01", "2026-11-01")
    assert not by_id(run(policy=begun), "price.small.change")


def test_taken_port_fails(run: Run) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        report = run(settings=Settings(grpc_address=address, http_address=ANY_PORT))
    check = one(report, "address.grpc")
    assert check.status is Status.FAIL
    assert "POINTSMAN_GRPC_ADDRESS" in check.remedy


def test_exposed_address_fails(run: Run) -> None:
    report = run(settings=Settings(grpc_address=Address("0.0.0.0", 0), http_address=ANY_PORT))
    check = one(report, "exposure.POINTSMAN_GRPC_ADDRESS")
    assert check.status is Status.FAIL
    assert "POINTSMAN_TLS_CERT_FILE" in check.remedy
    assert not by_id(report, "exposure")


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, Status.OK, "calls need no key as long as there is none"),
        ({"authentication": Authentication.REQUIRED}, Status.OK, "not encrypted; every call needs a key"),
        ({"authentication": Authentication.INSECURE}, Status.WARN, "nobody checks who calls"),
        ({"tls_cert_file": "c", "tls_key_file": "k"}, Status.OK, "calls are encrypted; every call needs a key"),
    ],
)
def test_who_may_call_is_told(run: Run, changes: dict[str, Any], status: Status, words: str) -> None:
    report = run(settings=Settings(grpc_address=ANY_PORT, http_address=ANY_PORT, **changes))
    check = one(report, "exposure")
    assert check.status is status
    assert words in check.message


def test_the_admin_address_is_tried(run: Run) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        taken = Address("127.0.0.1", server.getsockname()[1])
        report = run(settings=Settings(grpc_address=ANY_PORT, http_address=ANY_PORT, admin_address=taken))
    assert one(report, "address.grpc").status is Status.OK
    assert one(report, "address.admin").status is Status.FAIL


def test_token_counter_is_tried(run: Run) -> None:
    assert one(run(load_token_counter=WordCounter), "tokenizer").status is Status.OK
    broken = one(run(load_token_counter=BrokenCounter), "tokenizer")
    assert broken.status is Status.FAIL
    assert "PLANTED" not in broken.message
    assert one(run(load_token_counter=IdleCounter), "tokenizer").status is Status.FAIL


def test_endpoints_are_probed_on_request(run: Run, good_policy: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        closed_port = server.getsockname()[1]
    local_only = good_policy.replace(
        'anthropic_messages, api_key: "${ANTHROPIC_API_KEY}"',
        f'anthropic_messages, api_key: "${{ANTHROPIC_API_KEY}}", base_url: "http://127.0.0.1:{closed_port}"',
    )
    local_only = local_only.replace("127.0.0.1:8089", f"127.0.0.1:{closed_port}")
    report = run(policy=local_only, check_endpoints=True)
    check = one(report, "provider.local.endpoint")
    assert (check.status, check.message) == (Status.FAIL, "local cannot be reached: nothing listens there")
    unusable = run(policy=local_only, check_endpoints=True, environ={})
    assert one(unusable, "provider.anthropic.endpoint").status is Status.WARN


def test_answering_endpoint_passes(run: Run, good_policy: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        everything_here = re.sub(
            "(anthropic_messages|openai_chat)",
            rf'\1, base_url: "http://127.0.0.1:{server.server_port}"',
            good_policy.replace(', base_url: "http://127.0.0.1:8089/v1"', ""),
        )
        report = run(policy=everything_here, check_endpoints=True)
        server.shutdown()
        thread.join()
    check = one(report, "provider.local.endpoint")
    assert check.status is Status.OK
    assert "local answers (HTTP 501 in " in check.message


def test_simulator_need_not_run_yet(run: Run, good_policy: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        closed_port = server.getsockname()[1]
    simulated = re.sub(
        "(anthropic_messages|openai_chat)",
        rf'\1, simulated: true, base_url: "http://127.0.0.1:{closed_port}"',
        good_policy.replace(', base_url: "http://127.0.0.1:8089/v1"', ""),
    )
    check = one(run(policy=simulated, check_endpoints=True), "provider.local.endpoint")
    assert check.status is Status.WARN
    assert "pointsman simulate" in check.remedy


def test_report_as_json(run: Run) -> None:
    report = run(environ={})
    told = json.loads(report.to_json())
    assert told["ok"] is False
    assert sum(told["counts"].values()) == len(told["checks"]) == len(report.checks)
    assert set(told["checks"][0]) == {"id", "status", "message", "remedy"}
    assert {check["status"] for check in told["checks"]} == {"ok", "warn", "fail"}


def test_unreadable_environment_makes_a_report_too() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"POINTSMAN_WORKERS": "many", "POINTSMAN_LOG": "x"})
    report = settings_report(caught.value)
    assert [check.id for check in report.checks] == ["settings.POINTSMAN_LOG", "settings.POINTSMAN_WORKERS"]
    assert report.exit_code == 1


def test_demo_policy_passes_without_any_key() -> None:
    settings = Settings(ANY_PORT, ANY_PORT, policy_file=str(POLICIES / "demo.yaml"))
    report = run_preflight(settings, {}, check_endpoints=False, today=TODAY)
    assert [check for check in report.checks if check.status is not Status.OK] == []


def test_default_policy_announces_the_price_changes_that_are_ahead() -> None:
    settings = Settings(ANY_PORT, ANY_PORT, policy_file=str(POLICIES / "default.yaml"))
    report = run_preflight(settings, {}, check_endpoints=False, today=TODAY)
    assert one(report, "price.gemini-argon.change").message == "the price of gemini-argon changes on 2026-12-01"
    assert report.exit_code == 0


class TestSecondLook:
    """What the optional package is there for; its version counts, because other versions have other vectors."""

    @pytest.fixture
    def looking_twice(self, good_policy: str) -> str:
        return good_policy.replace("routing: {", "routing: {second_look: true, ")

    def test_without_the_package_it_fails_with_the_remedy(
        self, run: Run, looking_twice: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(preflight, "ENCODER", Encoder("no-such-package-of-vectors", "1.0", "none"))
        check = one(run(looking_twice), "second_look")
        assert (check.status, "it is not installed" in check.message) == (Status.FAIL, True)
        assert "pip install 'no-such-package-of-vectors[fast]==1.0'" in check.remedy

    def test_another_version_fails(self, run: Run, looking_twice: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preflight, "ENCODER", Encoder("numpy", "0.0.1", "numpy"))
        check = one(run(looking_twice), "second_look")
        assert (check.status, f"version {version('numpy')} is installed" in check.message) == (Status.FAIL, True)

    def test_the_right_one_is_fine(self, run: Run, looking_twice: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preflight, "ENCODER", Encoder("numpy", version("numpy"), "numpy"))
        assert one(run(looking_twice), "second_look").status is Status.OK

    def test_who_does_not_want_it_needs_nothing(self, run: Run) -> None:
        assert by_id(run(), "second_look") == []
