"""What came of checking an answer against the JSON Schema that the request demands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Checked:
    """`violations` say by place what does not fit; they quote the answer and are for the caller only.

    `normalised_text` is the answer without what does not belong to its JSON (a code fence around it, a byte order
    mark), and the answer itself when there is nothing to leave out or it is no JSON. `schema_checked` is False when
    the schema could not be applied and only the JSON was checked.
    """

    violations: tuple[str, ...]
    normalised_text: str
    schema_checked: bool = True
