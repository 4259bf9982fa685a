from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pointsman_server.bootstrap.worker_metrics import merge


def exposition(calls: int, label: str = "a", *, gauge: bool = True) -> str:
    registry = CollectorRegistry()
    counter = Counter("calls", "Calls\nand more.", ["method"], registry=registry)
    counter.labels(label).inc(calls)
    Histogram("seconds", "How long.", registry=registry, buckets=(1.0, 2.0)).observe(1.5)
    if gauge:
        Gauge("load", "", registry=registry).set(0.5)
    return generate_latest(registry).decode()


def read(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples if not sample.name.endswith("_created")]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def test_every_series_says_whose_it_is() -> None:
    found = read(merge({1: exposition(3), 2: exposition(4)}))
    one, two = ("worker", "1"), ("worker", "2")
    assert found["calls_total", frozenset({one, ("method", "a")})] == 3.0
    assert found["calls_total", frozenset({two, ("method", "a")})] == 4.0
    assert found["load", frozenset({two})] == 0.5
    assert found["seconds_bucket", frozenset({one, ("le", "2.0")})] == 1.0


def test_each_metric_is_explained_once_before_its_samples() -> None:
    lines = merge({1: exposition(3), 2: exposition(4)}).splitlines()
    assert lines[:4] == [
        "# HELP calls_total Calls\\nand more.",
        "# TYPE calls_total counter",
        'calls_total{worker="1",method="a"} 3.0',
        'calls_total{worker="2",method="a"} 4.0',
    ]


def test_one_that_says_nothing_and_one_that_says_less() -> None:
    found = read(merge({1: "", 2: exposition(4, gauge=False), 3: exposition(5)}))
    assert {labels for name, labels in found if name == "load"} == {frozenset({("worker", "3")})}
    assert merge({1: ""}) == merge({}) == ""


@given(st.text())
def test_no_label_confuses_it(label: str) -> None:
    text = exposition(3, label)
    mine = ("worker", "7")
    assert read(merge({7: text})) == {(name, labels | {mine}): value for (name, labels), value in read(text).items()}
