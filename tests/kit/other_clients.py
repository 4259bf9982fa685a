"""Clients that are none of ours: grpcurl, and stock stubs generated afresh. Both live in the folder `.tools`, which is
not part of the project; suites that need them skip with a clear message where they cannot be had."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
GRPCURL_VERSION = "v1.9.3"
GENERATOR = TOOLS / "protoc" / "bin" / "python"
"""The interpreter with the contract's generator, and with nothing of ours."""

_INSTALL_SECONDS = 240


def grpcurl() -> Path:
    """The program, installed at its first use. Skips the calling test when that is not possible."""
    program = TOOLS / f"grpcurl-{GRPCURL_VERSION}" / "grpcurl"
    if program.exists():
        return program
    if shutil.which("go") is None:
        pytest.skip("grpcurl is absent, and so is go, with which it would be installed")
    environ = {**os.environ, "GOBIN": str(program.parent), "GOFLAGS": "-mod=mod"}
    module = f"github.com/fullstorydev/grpcurl/cmd/grpcurl@{GRPCURL_VERSION}"
    try:
        subprocess.run(
            ["go", "install", module], env=environ, capture_output=True, check=True, timeout=_INSTALL_SECONDS
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip(f"grpcurl {GRPCURL_VERSION} could not be installed with go; it needs the network once")
    return program


def generate_stubs(directory: Path) -> Path:
    """Fresh stubs of the contract in this directory; returns the interpreter that can run them."""
    if not GENERATOR.exists():
        pytest.skip("the contract's generator is absent; `make protos` installs it into .tools")
    protos = sorted(str(path) for path in (ROOT / "protos" / "pointsman" / "v1").glob("*.proto"))
    command = [str(GENERATOR), "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", f"--python_out={directory}"]
    subprocess.run([*command, f"--grpc_python_out={directory}", *protos], capture_output=True, check=True, timeout=50)
    return GENERATOR


def commands_of(document: Path, program: str) -> list[list[str]]:
    """The commands of this program in the document's fenced blocks, as arguments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{program} ")]
