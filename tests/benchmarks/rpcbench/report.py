"""A run as tables on a terminal: a block for each case and mode, and the targets at the end."""

from collections.abc import Iterable, Iterator
from typing import Final

from rpcbench.cases import Case, Metric, Mode
from rpcbench.record import Row, row_of
from rpcbench.runner import Plan, Results
from rpcbench.targets import Target, Verdict

_MODE_TEXT: Final = {Mode.PINNED: "both processes on one core", Mode.UNPINNED: "not pinned"}
_HEADLINE_TEXT: Final = {
    Metric.P50: "median latency",
    Metric.P99: "99th percentile of latency",
    Metric.CPU: "CPU of both sides",
    Metric.RATE: "rate",
    Metric.KIB: "memory of the server",
    Metric.BESIDE_P50: "median latency of a no-op beside",
}
_DASH: Final = "-"


def number(value: float | None) -> str:
    """Three significant digits, thousands separated; a dash for None."""
    if value is None:
        return _DASH
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def text_report(plan: Plan, results: Results, verdicts: list[Verdict]) -> str:
    """The whole report."""
    lines: list[str] = []
    for case in plan.cases:
        for mode in plan.modes:
            if mode in case.modes:
                lines += _case_block(plan, results, case, mode)
    lines += _target_block(verdicts)
    if results.failures:
        lines += ["", "Failures (no number, or fewer rounds):"]
        lines += _failures(results)
    return "\n".join(lines) + "\n"


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Lines of a table: the first column left-aligned, the others right-aligned."""
    everything = [header, *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(header))]
    for row in everything:
        cells = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        yield "  " + "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _case_block(plan: Plan, results: Results, case: Case, mode: Mode) -> Iterator[str]:
    headline = case.headline[mode]
    yield ""
    yield f"{case.title} · {_MODE_TEXT[mode]} · ratios of the {_HEADLINE_TEXT[headline]}"
    rows = [(peer, row_of(results, mode, case, peer)) for peer in plan.peers]
    if headline is Metric.KIB:
        header = ("peer", f"KiB/{case.unit}", "x floor", "caprpc is")
        yield from table(header, ((peer, *_memory_cells(row)) for peer, row in rows))
        return
    beside = ("beside p50",) if case.beside else ()
    columns = ("peer", "p50 us", "p99 us", f"CPU us/{case.unit}", "client", "server", f"{case.unit}s/s", *beside)
    body = ((peer, *_timing_cells(row, with_beside=bool(case.beside))) for peer, row in rows)
    yield from table((*columns, "x floor", "caprpc is"), body)


def _memory_cells(row: Row | None) -> tuple[str, ...]:
    if row is None:
        return (_DASH,) * 3
    return (number(row.metrics.get(Metric.KIB)), *_ratio_cells(row))


def _timing_cells(row: Row | None, *, with_beside: bool) -> tuple[str, ...]:
    if row is None:
        return (_DASH,) * (9 if with_beside else 8)
    get = row.metrics.get
    return (
        number(get(Metric.P50)),
        number(get(Metric.P99)),
        number(get(Metric.CPU)),
        number(row.client_cpu_us),
        number(row.server_cpu_us),
        number(get(Metric.RATE)),
        *((number(get(Metric.BESIDE_P50)),) if with_beside else ()),
        *_ratio_cells(row),
    )


def _ratio_cells(row: Row) -> tuple[str, str]:
    return _times(row.to_floor), _times(row.ours_to_this)


def _failures(results: Results) -> Iterator[str]:
    """One line for each peer and reason, with the cases that it concerns."""
    cases: dict[tuple[str, str], list[str]] = {}
    for (mode, case, peer), why in results.failures.items():
        cases.setdefault((peer, why), []).append(f"{case} {mode}")
    for (peer, why), where in sorted(cases.items()):
        yield f"  {peer} ({', '.join(where)}): {why}"


def _times(ratio: float | None) -> str:
    return _DASH if ratio is None else f"{ratio:.2f} x"


def _target_block(verdicts: list[Verdict]) -> Iterator[str]:
    yield ""
    yield "Targets"
    header = ("target", "subject", "mode", "bound", "measured", "against", "verdict")
    yield from table(header, (_target_cells(verdict) for verdict in verdicts if verdict.measured is not None))
    words = [verdict.word for verdict in verdicts]
    counts = ", ".join(f"{words.count(word)} {word}" for word in ("met", "missed", "not measured"))
    yield f"  {counts}"


def _target_cells(verdict: Verdict) -> tuple[str, ...]:
    target = verdict.target
    return (
        target.text,
        target.subject,
        target.mode,
        f"{target.relation} {_bound(target, target.bound)}",
        _DASH if verdict.measured is None else _bound(target, verdict.measured),
        verdict.rival or _DASH,
        verdict.word,
    )


def _bound(target: Target, value: float) -> str:
    return f"{value:.2f} x" if target.against and not target.added else number(value)
