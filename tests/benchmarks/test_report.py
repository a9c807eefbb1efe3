"""The statistics, verdicts, tables and the chart of the benchmark, on made-up samples."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable

import pytest
from rpcbench.cases import CASES, Metric, Mode, case_named
from rpcbench.chart import svg_chart
from rpcbench.measure import Sample, median_ratio, percentile
from rpcbench.peers.registry import REGISTRY
from rpcbench.record import row_of, to_json
from rpcbench.report import number, table, text_report
from rpcbench.runner import Plan, Results
from rpcbench.targets import TARGETS, Target, judge


def sample(*, cpu_us: float = 10.0, rate: float = 100.0, p50_us: float = 5.0, kib: float | None = None) -> Sample:
    """A sample of 1,000 operations with these results."""
    return Sample(1_000, 1_000 / rate, cpu_us * 0.4e-3, cpu_us * 0.6e-3, p50_us, p50_us * 2, kib)


def results_with(mode: Mode, case: str, samples: dict[str, Iterable[Sample]]) -> Results:
    """Results that have only these samples, by peer."""
    results = Results()
    for peer, rounds in samples.items():
        results.samples[mode, case, peer] = dict(enumerate(rounds))
    return results


def noop_plan(*peers: str) -> Plan:
    """A plan of the no-op case for these peers."""
    return Plan(peers=peers, cases=(case_named("noop"),), modes=(Mode.PINNED,), rounds=3)


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(each) for each in range(1, 101)]

    assert [percentile(values, share) for share in (0.01, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]


def test_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_ratio_is_taken_within_each_round_so_that_a_slow_round_cancels() -> None:
    assert median_ratio({0: 2.0, 1: 20.0, 2: 4.0}, {0: 1.0, 1: 10.0, 2: 2.0}) == 2.0


def test_ratio_uses_only_rounds_that_both_have() -> None:
    assert median_ratio({0: 2.0, 2: 9.0}, {1: 1.0, 2: 3.0}) == 3.0


def test_ratio_without_a_common_round_is_unknown() -> None:
    assert median_ratio({0: 2.0}, {1: 1.0}) is None


def test_cpu_of_a_sample_is_that_of_both_sides_for_each_operation() -> None:
    assert sample(cpu_us=10.0).value(Metric.CPU) == pytest.approx(10.0)


def test_sample_survives_json() -> None:
    before = sample(kib=3.5)

    assert Sample.from_json(json.loads(json.dumps(before.to_json()))) == before


def test_row_has_medians_and_ratios_of_the_headline_metric() -> None:
    rounds = {
        "floor": [sample(cpu_us=10.0), sample(cpu_us=20.0), sample(cpu_us=10.0)],
        "caprpc": [sample(cpu_us=15.0), sample(cpu_us=30.0), sample(cpu_us=15.0)],
        "rpyc": [sample(cpu_us=30.0), sample(cpu_us=60.0), sample(cpu_us=30.0)],
    }
    row = row_of(results_with(Mode.PINNED, "noop", rounds), Mode.PINNED, case_named("noop"), "rpyc")

    assert row is not None
    assert row.metrics[Metric.CPU] == pytest.approx(30.0)
    assert row.to_floor == pytest.approx(3.0)
    assert row.ours_to_this == pytest.approx(0.5)


def test_cost_target_is_met_at_its_bound_and_missed_above_it() -> None:
    target = Target("t", Mode.PINNED, "noop", Metric.CPU, 1.5, against=("floor",))
    at_bound = results_with(Mode.PINNED, "noop", {"caprpc": [sample(cpu_us=15.0)], "floor": [sample(cpu_us=10.0)]})
    above = results_with(Mode.PINNED, "noop", {"caprpc": [sample(cpu_us=15.1)], "floor": [sample(cpu_us=10.0)]})

    assert [judge(each, (target,))[0].word for each in (at_bound, above)] == ["met", "missed"]


def test_rate_target_compares_with_the_fastest_rival_of_any_of_its_cases() -> None:
    target = Target(
        "t",
        Mode.UNPINNED,
        "crowd-async",
        Metric.RATE,
        2.5,
        "caprpc",
        ("grpc", "capnp"),
        ("crowd-async", "crowd-threads"),
    )
    results = results_with(
        Mode.UNPINNED, "crowd-async", {"caprpc": [sample(rate=500.0)], "capnp": [sample(rate=100.0)]}
    )
    results.samples[Mode.UNPINNED, "crowd-threads", "grpc"] = {0: sample(rate=250.0)}
    (verdict,) = judge(results, (target,))

    assert (verdict.rival, verdict.measured, verdict.word) == ("grpc", pytest.approx(2.0), "missed")


def test_cost_target_compares_with_the_cheapest_rival() -> None:
    target = Target("t", Mode.PINNED, "callback", Metric.CPU, 0.35, against=("rpyc", "rpyc-tuned"))
    rounds = {"caprpc": [sample(cpu_us=3.0)], "rpyc": [sample(cpu_us=10.0)], "rpyc-tuned": [sample(cpu_us=6.0)]}
    (verdict,) = judge(results_with(Mode.PINNED, "callback", rounds), (target,))

    assert (verdict.rival, verdict.word) == ("rpyc-tuned", "missed")


def test_plain_target_compares_with_a_number() -> None:
    target = Target("t", Mode.UNPINNED, "idle", Metric.KIB, 40.0)
    results = results_with(Mode.UNPINNED, "idle", {"caprpc": [sample(kib=each) for each in (30.0, 90.0, 31.0)]})
    (verdict,) = judge(results, (target,))

    assert (verdict.measured, verdict.word) == (31.0, "met")


def test_target_without_measurement_is_neither_met_nor_missed() -> None:
    assert {verdict.word for verdict in judge(Results())} == {"not measured"}


def test_every_target_names_cases_modes_and_peers_that_exist() -> None:
    for target in TARGETS:
        for name in (target.case, *target.against_cases):
            assert target.mode in case_named(name).modes
        assert {target.subject, *target.against} <= set(REGISTRY)


def test_unknown_case_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(KeyError, match="noop"):
        case_named("warp")


def test_case_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234567.0, "1,234,567")]
)
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_table_columns_line_up() -> None:
    assert list(table(("peer", "x"), [("a", "1"), ("longer", "22")])) == [
        "  peer     x",
        "  a        1",
        "  longer  22",
    ]


def test_report_shows_a_dash_for_a_peer_that_cannot_and_the_reason_of_a_failure() -> None:
    results = results_with(Mode.PINNED, "noop", {"floor": [sample(cpu_us=10.0)]})
    results.failures[Mode.PINNED, "noop", "thrift"] = "the server has ended"
    lines = text_report(noop_plan("floor", "thrift"), results, judge(results)).splitlines()

    assert any(line.split() == ["thrift"] + ["-"] * 8 for line in lines)
    assert "  thrift (noop pinned): the server has ended" in lines


def test_json_holds_samples_medians_and_verdicts() -> None:
    results = results_with(Mode.PINNED, "noop", {"floor": [sample(cpu_us=10.0)]})
    document = json.loads(to_json(noop_plan("floor"), results, judge(results), {}))

    assert document["samples"][0]["rounds"]["0"]["units"] == 1_000
    assert document["medians"][0]["metrics"]["cpu_us"] == pytest.approx(10.0)
    assert len(document["targets"]) == len(TARGETS)


def test_chart_is_well_formed_and_has_a_bar_for_each_measured_peer() -> None:
    results = results_with(Mode.PINNED, "noop", {"floor": [sample()], "caprpc": [sample()]})
    root = ET.fromstring(svg_chart(noop_plan("floor", "caprpc", "thrift"), results, "a < b"))
    bars = [each for each in root.iter("{http://www.w3.org/2000/svg}rect") if each.get("class") != "page"]

    assert [bar.get("class") for bar in bars] == ["floor", "ours"]


def test_target_for_what_is_added_compares_round_by_round() -> None:
    target = Target("x", Mode.PINNED, "noop", Metric.CPU, 15.0, "caprpc-outcome", ("caprpc-deny",), added=True)

    def judged(*ours: float) -> tuple[float | None, str]:
        samples = {"caprpc-outcome": [sample(cpu_us=value) for value in ours]}
        samples["caprpc-deny"] = [sample(cpu_us=value) for value in (100.0, 200.0, 300.0)]
        verdict = judge(results_with(Mode.PINNED, "noop", samples), (target,))[0]
        return verdict.measured and round(verdict.measured, 6), verdict.word

    assert judged(115.0, 212.0, 400.0) == (15.0, "met")
    assert judged(116.0, 216.0, 300.0) == (16.0, "missed")
    assert judged() == (None, "not measured")
