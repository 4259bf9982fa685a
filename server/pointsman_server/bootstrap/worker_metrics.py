"""The metrics of several processes as one text: every series says of which worker it is.

Nothing is added up here. A sum over processes falls when one of them is started again, which a rate takes for a counter
that began anew; Prometheus adds up rates of single processes, and those are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_HELP, _TYPE = "# HELP ", "# TYPE "


def merge(expositions: Mapping[int, str]) -> str:
    """One text in Prometheus's form 0.0.4 from those of the workers, by number, each as `generate_latest` writes it."""
    headings: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for number, text in expositions.items():
        family = ""
        for line in _lines(text):
            if line.startswith("#"):
                family = line.split(" ", 3)[2]
                if line not in (known := headings.setdefault(family, [])):
                    known.append(line)
            else:
                samples.setdefault(family, []).append(_of_worker(line, number))
    return "".join(f"{line}\n" for family, lines in headings.items() for line in (*lines, *samples.get(family, ())))


def _lines(text: str) -> Iterator[str]:
    # Not splitlines: a label's value may hold what Unicode takes for the end of a line.
    return (line for line in text.split("\n") if line)


def _of_worker(sample: str, number: int) -> str:
    name_end = next(place for place, character in enumerate(sample) if character in "{ ")
    name, rest = sample[:name_end], sample[name_end:]
    label = f'worker="{number}"'
    return f"{name}{{{label},{rest[1:]}" if rest[0] == "{" else f"{name}{{{label}}}{rest}"
