"""Looks for known vulnerabilities in what a file of requirements names, hashes and all.

`python tools/audit.py requirements/runtime.txt`: the exit code is 1 where one is found, or where the file cannot be
audited at all, a requirement without its hash for example. A service that cannot be asked, and packages that it does
not know, are told in one line and are no failure: who has no network can still check everything else.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

ANSWER_SECONDS = 3
"""So long the service may take for each answer; without a network all of it takes hardly longer."""

LONGEST_SECONDS = 60.0
"""After this a service that is too slow counts as one that cannot be asked."""

COMMAND = (
    *(sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"),
    *("--format", "json", "--timeout", str(ANSWER_SECONDS)),
)

_NOT_ASKED = re.compile(
    r"^(requests\.exceptions\.|urllib3\.exceptions\.|.*\b(ServiceError|ConnectionError)\b)|vulnerability feed",
    re.MULTILINE,
)
"""How the command's last words look when the service did not answer, or not sensibly."""


def audit(file: str, command: Sequence[str] = COMMAND, longest_seconds: float = LONGEST_SECONDS) -> tuple[int, str]:
    """The exit code and what is to be said about this file of requirements."""
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            [*command, "--requirement", file], capture_output=True, text=True, check=False, timeout=longest_seconds
        )
    except subprocess.TimeoutExpired:
        return 0, f"{file} was not audited: the advisory service took longer than {longest_seconds:.0f} seconds"
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return _failed(file, done.stderr)
    return _judged(file, dependencies)


def _failed(file: str, said: str) -> tuple[int, str]:
    last = said.strip().rsplit("\n", 1)[-1]
    if _NOT_ASKED.search(last):
        return 0, f"{file} was not audited: the advisory service cannot be reached"
    return 1, f"{file} cannot be audited: {last or 'pip-audit said nothing'}"


def _judged(file: str, dependencies: Sequence[dict[str, Any]]) -> tuple[int, str]:
    known = [one for one in dependencies if "skip_reason" not in one]
    found = [
        f"{one['name']} {one['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version yet'}"
        for one in known
        for flaw in one["vulns"]
    ]
    if found:
        return 1, "\n".join([f"{file} names packages with known vulnerabilities:", *found])
    if not known:
        return 0, f"{file} was not audited: the advisory service knows none of its {len(dependencies)} packages"
    told = f"{file}: no known vulnerability in {len(known)} packages"
    unknown = len(dependencies) - len(known)
    return 0, f"{told}; {unknown} could not be audited, the advisory service does not know them" if unknown else told


def main(files: Sequence[str]) -> int:
    """Audits each of these files."""
    codes = []
    for file in files:
        code, told = audit(file)
        print(told, file=sys.stderr if code else sys.stdout)
        codes.append(code)
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
