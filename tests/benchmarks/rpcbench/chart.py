"""A run as one SVG picture: a panel for each case, a bar for each peer."""

from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from rpcbench.cases import Case, Metric, Mode
from rpcbench.record import row_of
from rpcbench.report import number
from rpcbench.runner import Plan, Results

_COLUMNS: Final = 3
_PANEL_WIDTH: Final = 380
_BAR_HEIGHT: Final = 13
_BAR_STEP: Final = 17
_HEAD: Final = 46
_LABEL: Final = 92
_BAR_ROOM: Final = 200
_MARGIN: Final = 20
_TITLE: Final = 60

_UNITS: Final = {
    Metric.P50: "median latency in µs, shorter is better",
    Metric.P99: "99th percentile in µs, shorter is better",
    Metric.CPU: "CPU µs of both sides per {unit}, shorter is better",
    Metric.RATE: "{unit}s per second, longer is better",
    Metric.KIB: "KiB of the server per {unit}, shorter is better",
    Metric.BESIDE_P50: "median latency in µs, shorter is better",
}
_STYLE: Final = """
text { font-family: system-ui, sans-serif; font-size: 11px; fill: #24292f }
.title { font-size: 18px; font-weight: 600 } .case { font-size: 13px; font-weight: 600 } .unit { fill: #57606a }
.ours { fill: #0a7d5a } .floor { fill: #8c959f } .peer { fill: #b6c4d6 } .page { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .unit { fill: #9198a1 } .page { fill: #0d1117 }
  .ours { fill: #2fbf8f } .floor { fill: #6e7681 } .peer { fill: #3d5068 }
}
"""


def svg_chart(plan: Plan, results: Results, subtitle: str) -> str:
    """The picture as SVG text. Cases in which nobody was measured are left out."""
    panels: list[tuple[Case, Mode, list[tuple[str, float]]]] = []
    for case in plan.cases:
        for mode in plan.modes:
            bars = _bars(plan, results, case, mode)
            if bars:
                panels.append((case, mode, bars))
    panel_height = _HEAD + _BAR_STEP * len(plan.peers) + _MARGIN
    rows = -(-len(panels) // _COLUMNS)
    width = _COLUMNS * _PANEL_WIDTH + 2 * _MARGIN
    height = _TITLE + rows * panel_height + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>CapRPC beside its peers</title><style>{_STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        f'<text class="title" x="{_MARGIN}" y="30">CapRPC beside its peers, all over mutual TLS</text>',
        f'<text class="unit" x="{_MARGIN}" y="48">{escape(subtitle)}</text>',
    ]
    for index, (case, mode, bars) in enumerate(panels):
        left = _MARGIN + index % _COLUMNS * _PANEL_WIDTH
        top = _TITLE + index // _COLUMNS * panel_height
        parts += _panel(case, mode, bars, left, top)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _bars(plan: Plan, results: Results, case: Case, mode: Mode) -> list[tuple[str, float]]:
    if mode not in case.modes:
        return []
    rows = (row_of(results, mode, case, peer) for peer in plan.peers)
    found = ((row.peer, row.metrics.get(case.headline[mode])) for row in rows if row is not None)
    return [(peer, value) for peer, value in found if value is not None]


def _panel(case: Case, mode: Mode, bars: list[tuple[str, float]], left: int, top: int) -> Iterator[str]:
    where = "one core" if mode is Mode.PINNED else "not pinned"
    unit = _UNITS[case.headline[mode]].format(unit=case.unit)
    yield f'<text class="case" x="{left}" y="{top + 16}">{escape(case.title)}, {where}</text>'
    yield f'<text class="unit" x="{left}" y="{top + 32}">{escape(unit)}</text>'
    longest = max(value for _, value in bars) or 1.0
    for index, (peer, value) in enumerate(bars):
        y = top + _HEAD + index * _BAR_STEP
        length = max(1.0, value / longest * _BAR_ROOM)
        kind = "ours" if peer.startswith("caprpc") else "floor" if peer == "floor" else "peer"
        baseline = y + _BAR_HEIGHT - 3
        yield f'<text x="{left + _LABEL - 6}" y="{baseline}" text-anchor="end">{escape(peer)}</text>'
        yield f'<rect class="{kind}" x="{left + _LABEL}" y="{y}" width="{length:.1f}" height="{_BAR_HEIGHT}" rx="2"/>'
        yield f'<text x="{left + _LABEL + length + 5:.1f}" y="{baseline}">{number(value)}</text>'
