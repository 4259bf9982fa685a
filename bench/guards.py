"""`python -m bench.guards`: what the search for personal data and credentials costs, on ordinary and hostile text."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from pointsman_server.adapters.guards.sensitive import PatternScanner

_MEGABYTE = 1_000_000
_ROUNDS = 3

_PROSE = (
    "The committee met again on Tuesday, and after a long discussion about the budget it was decided that the new "
    "library should be built near the river. "
)
_GERMAN = "Die Sitzung wurde am Dienstag fortgesetzt; nach längerer Aussprache über den Haushalt beschloß man den Bau. "
_JAPANESE = "会議は火曜日に再開され、予算について長い議論があった。"
_CODE = (
    'def main(argv: list[str]) -> int:\n    """Run it."""\n    for index, item in enumerate(argv):\n'
    '        print(f"{index}: {item}")\n    return 0\n\n'
)
_LOG = (
    "2025-11-21T22:01:02Z INFO request served path=/v1/chat status=200 took=37ms bytes=18231 "
    "id=1635acc5-dbf9-4651-ad3e-8bac47db351c\n"
)
_PERSONAL = (
    "Hi, my name is Anna Meier and my card 4111 1111 1111 1111 was charged twice. Please call me at +49 30 1234567 or "
    "write to anna.meier@example.com. "
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time of one scan, the least of some rounds."""

    name: str
    kilobytes: float
    micros: float
    findings: int

    @property
    def micros_per_kilobyte(self) -> float:
        """Kilobytes of UTF-8."""
        return self.micros / self.kilobytes


def ordinary() -> Mapping[str, str]:
    """Texts that callers send."""
    return {
        "prose, 1 kB": _filled(_PROSE, 1_000),
        "prose, 1 MB": _filled(_PROSE),
        "German, 1 MB": _filled(_GERMAN),
        "Japanese, 1 MB": _filled(_JAPANESE, _MEGABYTE // 3),
        "program, 1 MB": _filled(_CODE),
        "log, 1 MB": _filled(_LOG),
        "personal data in every sentence, 100 kB": _filled(_PERSONAL, 100_000),
    }


def hostile() -> Mapping[str, str]:
    """Texts of one megabyte, or of as many code points, that are to keep a matcher busy."""
    draw = random.Random(1)  # noqa: S311 - repeatable noise, no secret
    pieces = {
        "a@a.a.a": "a.", "a@a@": "a@", "digits": "7", "dots": ".", "1.1.1": "1.", "1 2 3": "1 2 3 ",
        "12 34 56": "12 34 56 ",
        "zero width": "\u200b", "a, zero width": "a\u200b", "full-width digits": "４１１１",  # noqa: RUF001
        "ab, colon": "ab:", "eyJeyJ": "eyJ", "brackets": "(", "a at a at": "a at ", "a dot a dot": "a dot ",
        "4111 4111": "4111 ", "DE12 DE12": "DE12 ", "Dr. A Dr. A": "Dr. A ", "passport passport": "passport ",
        "key beginnings": "-----BEGIN PRIVATE KEY-----", "cards with a wrong digit": "4111 1111 1111 1112 ",
        "nothing but phones": "call 0171 2345678\n", "nothing but addresses": "ab@cd.ef ",
    }  # fmt: skip
    texts = {name: _filled(piece) for name, piece in pieces.items()}
    texts["a@a.a.a"] = "a@" + texts["a@a.a.a"]
    texts["noise"] = "".join(draw.choices([chr(code_point) for code_point in range(32, 127)], k=_MEGABYTE))
    return texts


def measure(name: str, text: str) -> Cost:
    """The least of some rounds, after one that does not count."""
    scanner = PatternScanner()
    scanner.scan(text[:10_000])
    times = max(1, 100_000 // len(text))
    micros = min(_micros(scanner, text, times) for _ in range(_ROUNDS))
    return Cost(name, len(text.encode("utf-8", "surrogatepass")) / 1_000, micros, len(scanner.scan(text)))


def _micros(scanner: PatternScanner, text: str, times: int) -> float:
    before = time.thread_time()
    for _ in range(times):
        scanner.scan(text)
    return (time.thread_time() - before) / times * 1e6


def _filled(piece: str, size: int = _MEGABYTE) -> str:
    return (piece * (size // len(piece) + 1))[:size]


def main() -> None:
    """Prints both tables."""
    console = Console(highlight=False, width=120)
    for title, texts in (("ordinary", ordinary()), ("hostile", hostile())):
        table = Table("text", "kB", "µs/kB", "ms", "findings", title=title)
        for name, text in texts.items():
            cost = measure(name, text)
            figures = (f"{cost.kilobytes:,.0f}", f"{cost.micros_per_kilobyte:.1f}", f"{cost.micros / 1_000:.1f}")
            table.add_row(name, *figures, str(cost.findings))
        console.print(table)


if __name__ == "__main__":
    main()
