"""The facets that a peer can hold as a drawing: inline SVG, laid out in columns by the steps it takes to get there."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Final

from caprpc.analysis.authority import held_by, lends_of, returned, roots_of
from caprpc.policy import Policy

_BOX_WIDTH: Final = 210
_BOX_HEIGHT: Final = 46
_WIDTH: Final = 1_180
"""What a page is wide; more columns than fit are drawn smaller."""
_LEAST_COLUMN: Final = 372
_MOST_COLUMN: Final = 540
"""Distance of two columns: a box, and room for the label of an arrow."""
_ROW: Final = 74
_MARGIN: Final = 8
_CHARACTER: Final = 6.8
"""Width of a character of a label, at most."""


@dataclass(frozen=True, slots=True)
class _Arrow:
    start: str
    end: str
    label: str


def drawing(policy: Policy) -> str:
    """Return an SVG element with every facet that the peer can hold, and an empty text if there is none."""
    arrows = _arrows(policy)
    columns = _columns(policy)
    if len(columns) < 2:
        return ""
    fitting = (_WIDTH - 2 * _MARGIN - _BOX_WIDTH) // (len(columns) - 1)
    distance = max(_LEAST_COLUMN, min(fitting, _MOST_COLUMN))
    places = {
        name: (_MARGIN + column * distance, _MARGIN + row * _ROW)
        for column, names in enumerate(columns)
        for row, name in enumerate(names)
    }
    width = _MARGIN * 2 + (len(columns) - 1) * distance + _BOX_WIDTH
    back = any(places[arrow.end][0] <= places[arrow.start][0] for arrow in arrows)
    height = _MARGIN * 2 + (max(map(len, columns)) - 1) * _ROW + _BOX_HEIGHT + back * _ROW // 2
    interfaces = {held.offer.name: held.offer.interface for held in held_by(policy).values()}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="What {escape(policy.name)} can come to hold">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker></defs>',
    ]
    room = int((distance - _BOX_WIDTH - 24) / _CHARACTER)
    drawn = [_arrow(arrow, places, room) for arrow in arrows]
    # Labels lie above all lines, and their halo keeps them legible there.
    parts += [line for line, _ in drawn] + [label for _, label in drawn]
    parts += [_box(name, places[name], interfaces.get(name, "")) for names in columns for name in names]
    parts.append("</svg>")
    return "".join(parts)


def _arrows(policy: Policy) -> list[_Arrow]:
    merged: dict[tuple[str, str], list[str]] = {}
    for root in roots_of(policy):
        merged.setdefault(("peer", root.facet), []).append(root.text)
    for lend in lends_of(policy):
        merged.setdefault(("peer", lend.facet), []).append(f"{lend.text.partition(')')[0]})")
    for held in held_by(policy).values():
        for step in returned(held.offer):
            merged.setdefault((held.offer.name, step.facet), []).append(step.text)
    return [_Arrow(start, end, ", ".join(labels)) for (start, end), labels in merged.items()]


def _columns(policy: Policy) -> list[list[str]]:
    columns = [["peer"]]
    for name, held in held_by(policy).items():
        while len(columns) <= len(held.path):
            columns.append([])
        columns[len(held.path)].append(name)
    return columns


def _box(name: str, place: tuple[int, int], interface: str) -> str:
    x, y = place
    kind = "peer" if name == "peer" else "facet"
    title = "the peer" if name == "peer" else name
    lines = [f'<rect class="{kind}" x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6"/>']
    down = 28 if not interface else 20
    lines.append(f'<text class="name" x="{x + 12}" y="{y + down}">{escape(_cut(title, 24))}</text>')
    if interface:
        lines.append(f'<text class="kind" x="{x + 12}" y="{y + 37}">{escape(_cut(interface, 28))}</text>')
    return "".join(lines)


def _arrow(arrow: _Arrow, places: Mapping[str, tuple[int, int]], room: int) -> tuple[str, str]:
    (x1, y1), (x2, y2) = places[arrow.start], places[arrow.end]
    middle = _BOX_HEIGHT // 2
    if x2 > x1:
        sx, sy, ex, ey = x1 + _BOX_WIDTH, y1 + middle, x2 - 2, y2 + middle
        bend = (ex - sx) // 2
        path = f"M{sx} {sy} C{sx + bend} {sy} {ex - bend} {ey} {ex} {ey}"
        # On the side that the curve does not come from.
        lx, ly = ex - 12, ey + (16 if ey > sy else -6)
        anchor = "end"
    else:
        # Back to a facet that was reached before: below the boxes, so that it crosses no text.
        sx, sy, ex, ey = x1 + _BOX_WIDTH // 2, y1 + _BOX_HEIGHT, x2 + _BOX_WIDTH // 2 + 24, y2 + _BOX_HEIGHT + 2
        path = f"M{sx} {sy} C{sx} {sy + 34} {ex} {ey + 34} {ex} {ey}"
        lx, ly = (sx + ex) // 2 + 8, max(sy, ey) + 24
        anchor = "start"
    label = escape(_cut(arrow.label, room))
    title = f"<title>{escape(arrow.label)}</title>"
    line = f'<path class="arrow" d="{path}" marker-end="url(#head)"/>'
    return line, f'<g>{title}<text class="label" text-anchor="{anchor}" x="{lx}" y="{ly}">{label}</text></g>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
