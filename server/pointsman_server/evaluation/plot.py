"""The curves of an evaluation as one SVG, without a library and readable on light and dark ground."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pointsman_server.evaluation.slices import CurvePoint, SliceFigures

_COLUMNS = 3
_WIDTH, _HEIGHT = 300, 230
_LEFT, _TOP, _INNER_WIDTH, _INNER_HEIGHT = 46, 40, 236, 148
_ROUTER, _BLIND, _INK, _GRID, _GROUND = "#0b6bcb", "#8a8f98", "#22262b", "#dfe3e8", "#ffffff"


def draw_curves(slices: Sequence[SliceFigures]) -> str:
    """One panel a slice: quality over cost of the router, and the straight line of the blind mix; an SVG document."""
    rows = -(-len(slices) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, rows * _HEIGHT + 30
    panels = [_panel(part, _WIDTH * (at % _COLUMNS), _HEIGHT * (at // _COLUMNS)) for at, part in enumerate(slices)]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="sans-serif" font-size="11" role="img">',
            "<title>Quality over cost, for each source and mix of sources</title>",
            f'<rect width="{width}" height="{height}" fill="{_GROUND}"/>',
            *panels,
            _legend(height - 16),
            "</svg>\n",
        )
    )


def _panel(part: SliceFigures, left: int, top: int) -> str:
    points = [(_along(point), point.quality) for point in part.curve]
    lowest = min(quality for _, quality in points)
    highest = max(*(quality for _, quality in points), 1.0)
    span = (highest - lowest) or 1.0

    def place(point: tuple[float, float]) -> str:
        along, quality = point
        return f"{_LEFT + _INNER_WIDTH * along:.1f},{_TOP + _INNER_HEIGHT * (highest - quality) / span:.1f}"

    across = "cost" if part.curve[-1].cost is not None else "sent to the strong model"
    bottom = _TOP + _INNER_HEIGHT
    return "\n".join(
        (
            f'<g transform="translate({left},{top})" fill="{_INK}">',
            f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(part.name)}</text>',
            f'<text x="{_LEFT}" y="31">{escape(_subtitle(part))}</text>',
            f'<rect x="{_LEFT}" y="{_TOP}" width="{_INNER_WIDTH}" height="{_INNER_HEIGHT}" fill="none" '
            f'stroke="{_GRID}"/>',
            f'<text x="{_LEFT - 5}" y="{_TOP + 9}" text-anchor="end">{100 * highest:.0f} %</text>',
            f'<text x="{_LEFT - 5}" y="{bottom}" text-anchor="end">{100 * lowest:.0f} %</text>',
            f'<text x="{_LEFT}" y="{bottom + 14}">0 %</text>',
            f'<text x="{_LEFT + _INNER_WIDTH / 2}" y="{bottom + 14}" text-anchor="middle">{across}</text>',
            f'<text x="{_LEFT + _INNER_WIDTH}" y="{bottom + 14}" text-anchor="end">100 %</text>',
            f'<polyline points="{place(points[0])} {place(points[-1])}" fill="none" stroke="{_BLIND}" '
            'stroke-dasharray="5 4" stroke-width="1.5"/>',
            f'<polyline points="{" ".join(map(place, points))}" fill="none" stroke="{_ROUTER}" stroke-width="2"/>',
            "</g>",
        )
    )


def _along(point: CurvePoint) -> float:
    """Where a point stands: by its cost, or without prices by the share of prompts."""
    return point.share if point.cost is None else min(point.cost, 1.0)


def _subtitle(part: SliceFigures) -> str:
    area = "no gap to recover" if part.apgr is None else f"APGR {part.apgr:.3f}"
    return f"{part.prompts:,} prompts, {area}"


def _legend(height: int) -> str:
    entries = ((_ROUTER, "", "router"), (_BLIND, "5 4", "prompts chosen by lot"))
    drawn = []
    for at, (colour, dashes, text) in enumerate(entries):
        left = _LEFT + 130 * at
        drawn.append(
            f'<line x1="{left}" y1="{height}" x2="{left + 28}" y2="{height}" stroke="{colour}" '
            f'stroke-width="2" stroke-dasharray="{dashes or "none"}"/>'
            f'<text x="{left + 34}" y="{height + 4}" fill="{_INK}">{text}</text>'
        )
    drawn.append(
        f'<text x="{_LEFT + 330}" y="{height + 4}" fill="{_INK}">'
        "100 % is always the strong model, both in quality and in cost</text>"
    )
    return "\n".join(drawn)
