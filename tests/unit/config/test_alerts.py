"""The policy's alerts section: what it compiles to, what is refused, and what must never be shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.problems import PolicyError
from pointsman_server.domain.governance import Webhook

Compile = Callable[..., LoadedPolicy]
ADDRESS = "https://hooks.company.test/T0/B1"
IN_VARIABLE = "environment variable"
WHOLE = 'alerts: {webhook: {url: "${HOOK}", secret: "${HOOK_SECRET}"}}\n'
ENVIRON = {"HOOK": f"{ADDRESS}/PLANTED", "HOOK_SECRET": "PLANTED-secret"}


@pytest.fixture
def load(good_policy: str, compile_text: Compile) -> Compile:
    """The policy with this section."""
    return lambda section, environ=None: compile_text(good_policy + section, environ)


def webhook(loaded: LoadedPolicy) -> Webhook:
    found = loaded.snapshot.governance.webhook
    assert found is not None
    return found


def test_there_is_none_unless_the_policy_says_so(load: Compile) -> None:
    assert load("").snapshot.governance.webhook is None


def test_an_address_may_be_written_and_need_not_be_signed(load: Compile) -> None:
    assert webhook(load(f'alerts: {{webhook: {{url: "{ADDRESS}"}}}}\n')) == Webhook(ADDRESS, url=ADDRESS)


def test_address_and_secret_may_be_kept_elsewhere(load: Compile, tmp_path: Path) -> None:
    loaded = load(WHOLE, ENVIRON)
    assert webhook(loaded) == Webhook("${HOOK}", "${HOOK_SECRET}", ENVIRON["HOOK"], ENVIRON["HOOK_SECRET"])
    assert "PLANTED" not in repr(loaded.snapshot)
    file = tmp_path / "secret"
    file.write_text("from a file\n".replace(" ", "-"))
    section = WHOLE.replace("${HOOK_SECRET}", f"${{file:{file}}}")
    assert webhook(load(section, ENVIRON)).secret == "from-a-file"


def test_the_version_follows_where_it_goes_and_not_what_is_secret(load: Compile) -> None:
    version = load(WHOLE, ENVIRON).snapshot.version
    assert load(WHOLE, {"HOOK": f"{ADDRESS}/other", "HOOK_SECRET": "other"}).snapshot.version == version
    assert load(WHOLE).snapshot.version == version
    others = ["", WHOLE.replace("HOOK}", "HOOKS}"), WHOLE.replace("HOOK_SECRET", "OTHER_SECRET")]
    assert len({version, *(load(other, ENVIRON).snapshot.version for other in others)}) == 4


@pytest.mark.parametrize(
    ("environ", "because"),
    [
        ({"HOOK_SECRET": "s3cret"}, "environment variable HOOK is not set"),
        ({"HOOK": ADDRESS}, "environment variable HOOK_SECRET is not set"),
        ({**ENVIRON, "HOOK_SECRET": "changeme"}, f"{IN_VARIABLE} HOOK_SECRET holds a placeholder instead of a key"),
        ({**ENVIRON, "HOOK": "http://company.test/PLANTED"}, f"the address in {IN_VARIABLE} HOOK is not encrypted"),
        ({**ENVIRON, "HOOK": "https://10.0.0.1/PLANTED"}, f"the address in {IN_VARIABLE} HOOK points into a private"),
    ],
)
def test_what_is_missing_in_the_environment_is_a_warning(load: Compile, environ: dict[str, str], because: str) -> None:
    loaded = load(WHOLE, environ)
    found = webhook(loaded)
    assert found.unusable_because.startswith(because)
    assert (found.url, found.secret) == ("", "")
    (warning,) = [str(one) for one in loaded.warnings if "alerts" in str(one)]
    assert because in warning
    assert "PLANTED" not in warning


@pytest.mark.parametrize(
    ("section", "path", "words"),
    [
        ("alerts: {}\n", "alerts.webhook", "is missing"),
        ("alerts: {web: {}}\n", "alerts.web", "is not a known key"),
        ("alerts: {webhook: {}}\n", "alerts.webhook.url", "is missing"),
        ("alerts: {webhook: {url: hooks.company.test}}\n", "alerts.webhook.url", "is not an https address"),
        ('alerts: {webhook: {url: "http://hooks.company.test/"}}\n', "alerts.webhook.url", "is not encrypted"),
        ('alerts: {webhook: {url: "https://10.0.0.1/"}}\n', "alerts.webhook.url", "points into a private network"),
        ('alerts: {webhook: {url: "https://169.254.169.254/"}}\n', "alerts.webhook.url", "has an address"),
        ('alerts: {webhook: {url: "https://me:PLANTED@example.com/"}}\n', "alerts.webhook.url", "has a user name"),
        ('alerts: {webhook: {url: "${no-name}"}}\n', "alerts.webhook.url", "is not a reference"),
        (WHOLE.replace("${HOOK_SECRET}", "PLANTED"), "alerts.webhook.secret", "is not a reference to a secret"),
    ],
)
def test_mistakes_are_told_where_they_stand(load: Compile, section: str, path: str, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(section)
    found = {problem.path_in_file: problem.message for problem in caught.value.problems}
    assert words in found[path]
    assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize("host", ["http://127.0.0.1:9000/hook", "http://localhost:9000/hook"])
def test_this_machine_may_be_reached_without_encryption(load: Compile, host: str) -> None:
    assert webhook(load(f'alerts: {{webhook: {{url: "{host}"}}}}\n')).url == host


def test_a_private_network_must_be_meant(load: Compile) -> None:
    section = 'alerts: {webhook: {url: "https://10.0.0.1/hook", allow_private_network: true}}\n'
    assert webhook(load(section)).url == "https://10.0.0.1/hook"
