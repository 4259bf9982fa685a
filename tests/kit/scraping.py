"""Metrics as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Scrape:
    """One reading of the text form."""

    def __init__(self, text: bytes | str) -> None:
        self.text = text.decode() if isinstance(text, bytes) else text
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}

    @property
    def samples(self) -> Iterator[Sample]:
        """All of them."""
        for family in self.families.values():
            yield from family.samples

    @property
    def label_names(self) -> dict[str, set[str]]:
        """The label names of every sample name that is ours."""
        names: dict[str, set[str]] = {}
        for sample in self.samples:
            if sample.name.startswith("pointsman_"):
                names.setdefault(sample.name, set()).update(sample.labels)
        return names

    def value(self, name: str, **labels: str) -> float:
        """The value of the only sample with this name and exactly these labels; 0 when there is none."""
        found = [sample.value for sample in self.samples if sample.name == name and sample.labels == labels]
        assert len(found) <= 1, f"{name}{labels} comes {len(found)} times"
        return found[0] if found else 0.0

    def all(self, name: str) -> dict[tuple[str, ...], float]:
        """Values of a name by its label values, sorted by label name; zeros are left out."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for sample in self.samples
            if sample.name == name and sample.value
        }
