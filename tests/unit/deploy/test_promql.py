"""The reader of PromQL, by which rules and dashboards are judged, lets nothing pass that is not there."""

from __future__ import annotations

import pytest

from kit.promql import PromqlError, labels_of

SERIES = {
    "calls_total": frozenset(("job", "code")),
    "lag_bucket": frozenset(("job", "le")),
    "state": frozenset(("job", "deployment")),
    "info": frozenset(("job", "deployment", "tier")),
    "up": frozenset(("job",)),
}
VALUES = {"code": frozenset(("OK", "INTERNAL"))}


@pytest.mark.parametrize(
    ("expression", "labels"),
    [
        ("calls_total", {"job", "code"}),
        ("sum(calls_total)", set()),
        ("sum by (job) (rate(calls_total[5m]))", {"job"}),
        ("sum without (code) (calls_total)", {"job"}),
        ("topk(3, calls_total)", {"job", "code"}),
        ("histogram_quantile(0.9, sum by (job, le) (rate(lag_bucket[5m])))", {"job"}),
        ("max_over_time(sum by (code) (calls_total)[5m:1m])", {"code"}),
        ("-state * 2 > bool 1", {"job", "deployment"}),
        ("sum by (job) (calls_total) / sum by (job) (calls_total)", {"job"}),
        ("state * on (job, deployment) group_left (tier) info", {"job", "deployment", "tier"}),
        ("state and on (job) calls_total", {"job", "deployment"}),
        ("sum by (job, code) (calls_total) / on (job) sum by (job) (calls_total)", {"job"}),
        ("sum by (job, code) (calls_total) / ignoring (code) sum by (job, code) (calls_total)", {"job"}),
        ('calls_total{code=~"OK|INTERNAL"} / scalar(sum(calls_total))', {"job", "code"}),
        ("sum by (job) (calls_total) unless up > 0", {"job"}),
    ],
)
def test_it_knows_what_labels_are_left(expression: str, labels: set[str]) -> None:
    assert labels_of(expression, SERIES, VALUES) == labels


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("call_total", "no series call_total"),
        ('{job="a"}', "no series without a name"),
        ('calls_total{cod="OK"}', "calls_total has no label cod"),
        ('calls_total{code="OKAY"}', "code of calls_total is never OKAY"),
        ('rate(calls_total{code=~"OK|LOST"}[5m])', "code of calls_total is never LOST"),
        ("sum by (jo) (calls_total)", "sum has no label jo"),
        ("histogram_quantile(0.9, sum by (job) (lag_bucket))", "histogram_quantile has no label le"),
        ("sum by (job) (calls_total) / calls_total", "differ in .'code'"),
        ("state and on (code) calls_total", "and has no label code"),
        ("state * on (job, deployment) group_left (region) info", "has no label region"),
    ],
)
def test_it_names_what_is_not_there(expression: str, wrong: str) -> None:
    with pytest.raises(PromqlError, match=wrong):
        labels_of(expression, SERIES, VALUES)


def test_what_is_no_promql_is_refused() -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        labels_of("sum by job (calls_total", SERIES)
