"""Dashboards against Grafana's own types: what it does not know in a panel is an error of the compiler."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kit.programs import load_program

observers: Any = load_program("tools/observers.py")

_SECONDS = 100
_KINDS = {"timeseries": "timeseries", "stat": "stat", "state-timeline": "statetimeline", "heatmap": "heatmap"}
"""Grafana's folder of types for each kind of panel."""

_HEAD = """
import type {Dashboard, Panel} from '@grafana/schema';
type Part<T> =
  T extends (infer U)[] ? Part<U>[]
  : T extends object ? {[K in keyof T]?: Part<T[K]>}
  : T extends string ? `${T}` : T;
"""
"""What a dashboard leaves out has its default, and enums are written as their values."""

_DATA_SOURCES_OWN = ("target", "titleFormat")

_OPTIONS = {"strict": True, "noEmit": True, "skipLibCheck": True, "module": "esnext", "moduleResolution": "bundler"}


def grafana_schema() -> Path:
    """The folder with Grafana's types. Skips the calling test when it cannot be had."""
    try:
        return Path(observers.fetch_grafana_schema())
    except observers.CannotInstall as error:
        pytest.skip(f"Grafana's types of dashboards cannot be had ({error})")


def misfits(pages: Mapping[str, Mapping[str, Any]], folder: Path) -> list[str]:
    """What Grafana's types have against these dashboards; empty when all is well. The folder is for files."""
    schema = grafana_schema()
    (folder / "node_modules").symlink_to(schema / "node_modules")
    (folder / "dashboards.ts").write_text("\n".join([_HEAD, *_imports(schema), *_lines(pages)]), encoding="utf-8")
    config = {"compilerOptions": {**_OPTIONS, "target": "es2022"}, "files": ["dashboards.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(config), encoding="utf-8")
    compiler = schema / "node_modules" / ".bin" / "tsc"
    done = subprocess.run(
        [str(compiler), "--project", "."], cwd=folder, stdout=subprocess.PIPE, text=True, timeout=_SECONDS
    )
    return [line for line in done.stdout.splitlines() if " error " in line]


def _imports(schema: Path) -> Iterator[str]:
    raw = "node_modules/@grafana/schema/dist/esm/raw/composable"
    for folder in _KINDS.values():
        (types,) = (schema / raw / folder / "panelcfg" / "x").glob("*.d.ts")
        yield f"import * as {folder} from './{raw}/{folder}/panelcfg/x/{types.name.removesuffix('.d.ts')}';"


def _lines(pages: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for page in pages.values():
        yield _constant("Dashboard", {**page, "panels": [], "annotations": {"list": _without_queries(page)}})
        for panel in page["panels"]:
            kind = _KINDS[panel["type"]]
            field = panel["fieldConfig"]["defaults"]
            yield _constant(f"{kind}.Options", panel["options"])
            yield _constant(f"{kind}.FieldConfig", field["custom"]) if "custom" in field else ""
            fields = {"defaults": {key: value for key, value in field.items() if key != "custom"}, "overrides": []}
            yield _constant("Panel", {**panel, "options": {}, "targets": [], "fieldConfig": fields})


def _without_queries(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its annotations; what they ask, and how the answer is told, is the data source's business."""
    annotations = page["annotations"]["list"]
    return [{key: value for key, value in one.items() if key not in _DATA_SOURCES_OWN} for one in annotations]


def _constant(type_name: str, value: object) -> str:
    return f"({json.dumps(value)}) satisfies Part<{type_name}>;"
