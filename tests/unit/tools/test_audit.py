"""A known vulnerability fails the check; an advisory service that cannot be asked does not, and is told in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.programs import ROOT, load_program

audit: Any = load_program("tools/audit.py")

FILE = "requirements/runtime.txt"
WELL = {"name": "a", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "b", "skip_reason": "Dependency not found"}
ILL = {"name": "c", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"]}]}
HOPELESS = {"name": "d", "version": "4.0", "vulns": [{"id": "GHSA-2", "fix_versions": []}]}


def saying(folder: Path, stdout: str = "", stderr: str = "", code: int = 0, seconds: float = 0.0) -> list[str]:
    """A program in pip-audit's place; it notes what it is asked."""
    program = folder / "pip_audit.py"
    program.write_text(
        f"import sys, time\nopen({str(folder / 'asked')!r}, 'w').write(' '.join(sys.argv[1:]))\ntime.sleep({seconds})\n"
        f"print({stdout!r})\nprint({stderr!r}, file=sys.stderr)\nsys.exit({code})\n"
    )
    return [sys.executable, str(program)]


@pytest.mark.parametrize(
    ("dependencies", "code", "told"),
    [
        ([WELL, WELL], 0, f"{FILE}: no known vulnerability in 2 packages"),
        (
            [WELL, UNKNOWN],
            0,
            f"{FILE}: no known vulnerability in 1 packages; 1 could not be audited, the advisory service does not know "
            "them",
        ),
        ([UNKNOWN], 0, f"{FILE} was not audited: the advisory service knows none of its 1 packages"),
        ([UNKNOWN, ILL], 1, f"{FILE} names packages with known vulnerabilities:\nc 2.0: PYSEC-1, mended in 2.1, 3.0"),
        (
            [HOPELESS],
            1,
            f"{FILE} names packages with known vulnerabilities:\nd 4.0: GHSA-2, mended in no version yet",
        ),
    ],
)
def test_what_was_found(tmp_path: Path, dependencies: Any, code: int, told: str) -> None:
    command = saying(tmp_path, json.dumps({"dependencies": dependencies, "fixes": []}), code=code)
    assert audit.audit(FILE, command) == (code, told)
    assert (tmp_path / "asked").read_text() == f"--requirement {FILE}"


@pytest.mark.parametrize(
    "words",
    [
        "Traceback (most recent call last):\nrequests.exceptions.ProxyError: HTTPSConnectionPool(host='x')",
        "requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='x'): Read timed out.",
        "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed",
        "pip_audit._service.interface.ServiceError",
    ],
)
def test_a_service_that_does_not_answer_is_told_in_one_line_and_fails_nothing(tmp_path: Path, words: str) -> None:
    code, told = audit.audit(FILE, saying(tmp_path, stderr=words, code=1))
    assert (code, told) == (0, f"{FILE} was not audited: the advisory service cannot be reached")


def test_one_that_takes_for_ever_is_given_up(tmp_path: Path) -> None:
    code, told = audit.audit(FILE, saying(tmp_path, seconds=60.0), 0.5)
    assert code == 0
    assert told.startswith(f"{FILE} was not audited: the advisory service took longer than")


@pytest.mark.parametrize(
    ("words", "why"),
    [("", "pip-audit said nothing"), ("ERROR: requirement a does not contain a hash", "does not contain a hash")],
)
def test_what_is_wrong_with_us_fails(tmp_path: Path, words: str, why: str) -> None:
    code, told = audit.audit(FILE, saying(tmp_path, stderr=words, code=1))
    assert code == 1
    assert told.startswith(f"{FILE} cannot be audited: ")
    assert why in told


def test_the_real_command_wants_hashes(tmp_path: Path) -> None:
    """Whether or not there is a network: nobody is asked about such a file."""
    file = tmp_path / "requirements.txt"
    file.write_text("aiohttp==3.14.5\n")
    code, told = audit.audit(str(file))
    assert code == 1, told
    assert "hash" in told


def test_the_worst_of_several_files_counts(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    found = {"well": (0, "well: fine"), "ill": (1, "ill: c 2.0")}
    monkeypatch.setattr(audit, "audit", lambda file: found[file])
    assert audit.main(["well"]) == audit.main([]) == 0
    assert audit.main(["well", "ill", "well"]) == 1
    said = capsys.readouterr()
    assert (said.err, "ill" in said.out) == ("ill: c 2.0\n", False)


def test_it_is_part_of_the_checks() -> None:
    checks = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("check:"))
    assert "audit" in checks.split("##")[0].split()
