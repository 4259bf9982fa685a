"""Programs for tests are made once, and where they cannot be made the reason is told."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kit.programs import load_program

observers: Any = load_program("tools/observers.py")

GO = """#!/bin/sh
echo "$@" >> "$0.log"
if [ "$1" = mod ]; then echo '{"Dir": "/"}'; exit; fi
while [ "$1" != -o ]; do shift; done
mkdir -p "$2" && touch "$2/prometheus" "$2/promtool" "$2/otelcol"
"""
APT_GET = "#!/bin/sh\ntouch prometheus_1_all.deb\n"
DPKG_DEB = '#!/bin/sh\ntest -e "$2" && mkdir -p usr/bin && touch usr/bin/prometheus usr/bin/promtool\n'


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder, but for the system's, in which programs are looked for."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("nice", "sh", "mkdir", "touch", "sleep", "test"):
        (folder / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(observers, "ROOT", tmp_path)
    monkeypatch.setattr(observers, "TOOLS", tmp_path / "tools")
    monkeypatch.setattr(observers, "COLLECTOR_SOURCE", tmp_path)
    for name in ("PROMETHEUS", "PACKAGED_PROMETHEUS", "COLLECTOR", "GRAFANA_SCHEMA"):
        monkeypatch.setattr(observers, name, tmp_path / "tools" / name.lower())
    return folder


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def test_both_are_built_with_go(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(programs, "go", GO)
    assert observers.main([]) == 0
    assert capsys.readouterr().out == "prometheus: tools/prometheus\ncollector: tools/collector\n"
    assert (observers.PROMETHEUS / "promtool").exists()
    assert (observers.COLLECTOR / "otelcol").exists()
    assert sorted(os.listdir(observers.TOOLS)) == ["collector", "observers.lock", "prometheus"]


def test_what_is_there_is_not_built_again(programs: Path) -> None:
    put(programs, "go", GO)
    with ThreadPoolExecutor(4) as several:
        assert set(several.map(lambda _: observers.build_collector(), range(4))) == {observers.COLLECTOR}
    assert len((programs / "go.log").read_text().splitlines()) == 1


def test_the_distributions_package_is_unpacked(programs: Path) -> None:
    put(programs, "apt-get", APT_GET)
    put(programs, "dpkg-deb", DPKG_DEB)
    assert sorted(os.listdir(observers.unpack_prometheus())) == ["prometheus", "promtool"]
    (programs / "apt-get").unlink()
    assert observers.unpack_prometheus() == observers.PACKAGED_PROMETHEUS


def test_grafanas_types_are_fetched_without_running_their_scripts(programs: Path) -> None:
    put(programs, "npm", '#!/bin/sh\necho "$@" > "$0.log"\nmkdir node_modules\n')
    assert sorted(os.listdir(observers.fetch_grafana_schema())) == ["node_modules", "package.json"]
    assert "--ignore-scripts" in (programs / "npm.log").read_text()
    (programs / "npm").unlink()
    assert observers.fetch_grafana_schema() == observers.GRAFANA_SCHEMA


class TestWhatCannotBeHad:
    def test_a_program_that_is_absent_is_named(self, programs: Path) -> None:
        with pytest.raises(observers.CannotInstall, match=r"^apt-get is absent$"):
            observers.unpack_prometheus()

    def test_the_last_thing_said_is_told_and_nothing_is_left(self, programs: Path) -> None:
        put(programs, "go", "#!/bin/sh\necho first >&2\necho no such host >&2\nexit 1\n")
        with pytest.raises(observers.CannotInstall, match=r"^`go mod download` failed: no such host$"):
            observers.build_prometheus()
        assert os.listdir(observers.TOOLS) == ["observers.lock"]

    def test_silence_is_told_too(self, programs: Path) -> None:
        put(programs, "go", "#!/bin/sh\nexit 1\n")
        with pytest.raises(observers.CannotInstall, match="failed: it said nothing"):
            observers.build_prometheus()

    def test_patience_ends(self, programs: Path) -> None:
        put(programs, "go", "#!/bin/sh\nexec sleep 30\n")
        with pytest.raises(observers.CannotInstall, match="took more than 0 seconds"):
            observers.build_collector(0.2)

    def test_the_command_says_it_and_ends_with_a_failure(
        self, programs: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert observers.main(["prometheus"]) == 1
        assert capsys.readouterr().err == "prometheus: go is absent\n"

    def test_an_unknown_name_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert observers.main(["grafana"]) == 2
        assert capsys.readouterr().err == "unknown: grafana; choose from prometheus, collector\n"
