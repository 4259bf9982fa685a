"""Keys are read by reference, judged by form, and never shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pointsman_server.config.key_reference import KeyReference, read_key
from pointsman_server.config.policy_file import LoadedPolicy

Compile = Callable[..., LoadedPolicy]
VARIABLE = KeyReference(variable="MY_KEY")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("sk-PLANTED\n", "contains a line break"),
        ("sk-PLANTED\r", "contains a line break"),
        (" sk-PLANTED", "contains blanks"),
        ("sk-PLANTED sk", "contains blanks"),
        ("sk-PLANTED\u00a0", "contains blanks"),
        ('"sk-PLANTED"', "contains quotes"),
        ("'sk-PLANTED'", "contains quotes"),
        ("\u201csk-PLANTED\u201d", "contains quotes"),
        ("sk-...", "placeholder"),
        ("sk-", "placeholder"),
        ("sk-ant-\u2026", "placeholder"),
        ("changeme", "placeholder"),
        ("CHANGE_ME", "placeholder"),
        ("your-key-here", "placeholder"),
        ("YOUR_API_KEY", "placeholder"),
        ("<PLANTED>", "placeholder"),
        ("${OTHER}", "placeholder"),
        ("sk-xxxxxxxxxxxx", "placeholder"),
        ("sk-PLANTED\u00e9", "characters that no key has"),
        ("sk-PLANTED\x1b[0m", "characters that no key has"),
        ("k" * 20_000, "too long"),
    ],
)
def test_malformed_key_disables_and_names_only_the_variable(value: str, fault: str) -> None:
    reading = read_key(VARIABLE, {"MY_KEY": value})
    assert reading.value == ""
    assert reading.unusable_because.startswith("environment variable MY_KEY ")
    assert fault in reading.unusable_because
    assert "PLANTED" not in repr(reading)


@pytest.mark.parametrize("value", ["sk-ant-api03-AbC_dEf-123", "AIzaSyA1b2", "AQ.Ab8R", "pplx-abc123", "0123abcd", "k"])
def test_well_formed_keys_are_taken_as_they_are(value: str) -> None:
    reading = read_key(VARIABLE, {"MY_KEY": value})
    assert (reading.value, reading.unusable_because) == (value, "")
    assert value not in repr(reading) or value == "k"


def test_unset_variable() -> None:
    assert read_key(VARIABLE, {}).unusable_because == "environment variable MY_KEY is not set"


@pytest.mark.parametrize("content", [b"sk-from-file", b"sk-from-file\n", b"sk-from-file\r\n"])
def test_key_file_may_end_with_a_line_end(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    assert read_key(KeyReference(file=str(path)), {}).value == "sk-from-file"


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"sk-a\nsk-b\n", "contains a line break"), (b"\xff\xfe", "cannot be read"), (b"", "is empty")],
)
def test_malformed_key_file_disables(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    assert read_key(KeyReference(file=str(path)), {}).unusable_because == f"file {path} {fault}"


def test_missing_file_directory_and_device_disable(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, Path("/dev/zero")):
        assert read_key(KeyReference(file=str(path)), {}).unusable_because == f"file {path} cannot be read"


def test_policy_takes_a_key_from_a_file(tmp_path: Path, good_policy: str, compile_text: Compile) -> None:
    path = tmp_path / "key"
    path.write_text("sk-ant-PLANTED\n")
    policy = compile_text(good_policy.replace("${ANTHROPIC_API_KEY}", f"${{file:{path}}}"))
    provider = policy.snapshot.deployments["claude-direct"].provider
    assert provider.api_key is not None
    assert provider.api_key.value == "sk-ant-PLANTED"
    assert provider.api_key.reference == f"${{file:{path}}}"
    assert "PLANTED" not in repr(policy)
