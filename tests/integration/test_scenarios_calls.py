"""Calls, values, errors and refusals, over every pairing."""

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

import caprpc
from caprpc import CallRefused, Denied, RemoteError

VALUES = {
    "none": None,
    "bool": True,
    "int": -(2**200) + 1,
    "float": -0.0,
    "complex": 1 - 2j,
    "str": "grün \N{SNOWMAN}",
    "bytes": b"\x00\xff",
    "tuple": (1, "x"),
    "list": [1, 2**63],
    "dict": {"b": 2, "a": 1},
    "pairs": {1: "x", -5: "y"},
    "set": {1, 2, 3},
    "frozenset": frozenset({"a", "b"}),
    "datetime": datetime(2026, 11, 22, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2)), fold=1),
    "date": date(1, 1, 1),
    "time": time(23, 59, 59, 999999),
    "timedelta": timedelta(days=-3, microseconds=7),
    "decimal": Decimal("1.20"),
    "uuid": UUID(int=7),
}


def same(value, echoed):
    """Whether a value came back as it went, with its exact type, all through."""
    if type(value) is not type(echoed):
        return False
    if isinstance(value, dict):
        return list(value) == list(echoed) and all(same(value[key], echoed[key]) for key in value)
    if isinstance(value, list | tuple):
        return len(value) == len(echoed) and all(map(same, value, echoed))
    if isinstance(value, float):
        return math.copysign(1, value) == math.copysign(1, echoed) and value == echoed
    if isinstance(value, datetime):
        return value == echoed and value.fold == echoed.fold and value.utcoffset() == echoed.utcoffset()
    return value == echoed and repr(value) == repr(echoed) if isinstance(value, Decimal) else value == echoed


def test_line_counter(both, tmp_path):
    text = tmp_path / "testfile.txt"
    text.write_text("Simple\nis\nbetter\n", encoding="utf-8")
    heard = []

    async def scenario(face):
        counter = await face.root()
        with text.open(encoding="utf-8") as file:
            return await face(counter.line_counter(file, heard.append))

    assert both.run(scenario) == 3
    assert heard == ["Simple\n", "is\n", "better\n"]


def test_values_keep_their_exact_types(pairing, parts):
    everything = [*VALUES.values(), {"deep": [VALUES["tuple"], {"er": VALUES["set"]}]}, parts.color.RED.name]

    async def scenario(face):
        service = await face.root()
        for value in everything:
            assert same(value, await face(service.echo(value))), value
        for kind, value in VALUES.items():
            assert same(value, await face(getattr(service, f"echo_{kind}")(value))), kind
        assert await face(service.echo_color(parts.color.GREEN)) is parts.color.GREEN
        point = await face(service.echo_point(parts.point(3, 0.5)))
        assert (type(point), point) == (parts.point, parts.point(3, 0.5))
        assert math.isnan(await face(service.echo_float(math.nan)))
        assert await face(service.echo(datetime(2026, 1, 1, tzinfo=UTC))) == datetime(2026, 1, 1, tzinfo=UTC)

    pairing.run(scenario)


def test_arguments_are_checked_before_anything_is_sent(pairing):
    wrong = [
        ("int", True),
        ("int", 1.0),
        ("tuple", [1, "x"]),
        ("list", (1,)),
        ("str", b"x"),
        ("bytes", "x"),
        ("set", [1]),
    ]

    async def scenario(face):
        service = await face.root()
        sent = face.peer._connection.link.session.asked.count
        for kind, value in wrong:
            with pytest.raises(TypeError):
                await face(getattr(service, f"echo_{kind}")(value))
        with pytest.raises(TypeError):
            await face(service.echo_int())
        with pytest.raises(TypeError):
            await face(service.echo_int(1, 2))
        assert face.peer._connection.link.session.asked.count == sent

    pairing.run(scenario)


def test_attributes_are_read_and_assigned(pairing):
    async def scenario(face):
        service = await face.root()
        assert await face(service.currency) == "EUR"
        await face.set(service, "level", 41)
        assert await face(service.level) == 41
        with pytest.raises(AttributeError):
            await face.set(service, "currency", "USD")

    pairing.run(scenario)
    assert pairing.service.level == 41


def test_declared_error_crosses_as_its_own_class(both, parts):
    async def scenario(face):
        service = await face.root()
        with pytest.raises(parts.rejected) as caught:
            await face(service.reject("no room today"))
        return str(caught.value)

    assert both.run(scenario) == "no room today"


def test_undeclared_error_shows_a_number_and_the_log_where_it_was_raised(pairing):
    async def scenario(face):
        service = await face.root()
        with pytest.raises(RemoteError) as caught:
            await face(service.break_down("a secret"))
        return caught.value

    error = pairing.run(scenario)
    assert (type(error), error.code, error.text) == (RemoteError, "internal", "")
    assert "secret" not in str(error)
    reasons = [record for record in pairing.host.records() if record.get("reference") == error.reference]
    assert [record["error"] for record in reasons] == ["RuntimeError"]
    assert "break_down, conftest.py:" in reasons[0]["detail"]
    assert "a secret" not in reasons[0]["detail"]


def line_of(scene, text):
    """Return ``file:line`` of a line of the server's policy for alice."""
    lines = (scene.server.policies / "alice.toml").read_text(encoding="utf-8").splitlines()
    return f"alice.toml:{next(n for n, line in enumerate(lines, 1) if line.startswith(text))}"


def test_refused_operations_have_one_record_each_with_the_rule(pairing, scene):
    async def scenario(face):
        service = await face.root()
        with pytest.raises(RemoteError) as too_long:
            await face(service.short("four"))
        with pytest.raises(Denied) as no_root:
            await face.root("cellar")
        with pytest.raises(Denied):
            await face(service.hidden())
        assert await face(service.short("abc")) == "abc"
        return too_long.value, no_root.value

    too_long, no_root = pairing.run(scenario)
    assert too_long.code == "invalid-arguments"
    denied = [record for record in pairing.host.records() if record.get("decision") == "deny"]
    assert [(r["operation"], r["member"], r["reason"], r["reference"]) for r in denied] == [
        ("call", "short", "argument", too_long.reference),
        ("root", "cellar", "not-granted", no_root.reference),
    ]
    assert denied[0]["rule"] == line_of(scene, "text = { max_len")
    assert denied[1]["rule"] == line_of(scene, "[roots]")


def test_call_that_goes_around_the_stub_is_denied_and_recorded(pairing, scene):
    """Our own side would not send it; a hostile one does."""

    async def scenario(face):
        service = await face.root()
        imported = service._caprpc_import
        imported.announced.rights[1, "hidden"] = face.peer._connection.link.session.guard.accepts
        with pytest.raises(Denied) as caught:
            await face(service.hidden())
        return caught.value

    error = pairing.run(scenario)
    (record,) = [record for record in pairing.host.records() if record.get("decision") == "deny"]
    assert (record["member"], record["reason"], record["reference"]) == ("hidden", "not-granted", error.reference)
    assert record["rule"] == line_of(scene, "[offer.Service]")


def test_object_that_no_lend_allows_is_refused_here_with_the_line_to_add(pairing, parts):
    async def scenario(face):
        service = await face.root()
        sent = face.peer._connection.link.session.asked.count
        with pytest.raises(CallRefused) as caught:
            await face(service.is_own(parts.leaf()))
        assert face.peer._connection.link.session.asked.count == sent
        return str(caught.value)

    message = pairing.run(scenario)
    assert '[[lend]] to = "Service.is_own" param = "leaf"' in message


def test_current_tells_the_principal_in_methods_and_in_callbacks(both):
    heard = []

    def function(value):
        heard.append(caprpc.current().principal)
        return value

    async def scenario(face):
        service = await face.root()
        assert await face(service.principal()) == "spiffe://test.example/alice"
        await face(service.apply(function, 1))
        with pytest.raises(LookupError):
            caprpc.current()

    both.run(scenario)
    assert heard == ["spiffe://test.example/server"]


def test_two_principals_are_told_apart(pairing):
    async def scenario(face):
        return await face((await face.root()).principal())

    assert pairing.run(scenario, side="alice") == "spiffe://test.example/alice"
    assert pairing.run(scenario, side="bob") == "spiffe://test.example/bob"


def test_batch_returns_results_and_errors_in_order(pairing, parts):
    async def scenario(face):
        service = await face.root()
        assert await face.batch([]) == []
        return await face.batch(
            [
                (service.echo_int, (1,)),
                (service.echo_int, (2,)),
                (service.reject, ("no",)),
                (service.short, ("too long",)),
                (service.echo_str, ("x",)),
            ]
        )

    results = pairing.run(scenario)
    assert results[:2] == [1, 2]
    assert (type(results[2]), str(results[2])) == (parts.rejected, "no")
    assert results[3].code == "invalid-arguments"
    assert results[4] == "x"


def test_submitted_calls_answer_their_futures(pairing):
    async def scenario(face):
        service = await face.root()
        futures = [face.submit(service.echo_int, n) for n in range(20)]
        assert [await face.result(future) for future in futures] == list(range(20))
        failed = face.submit(service.break_down, "x")
        with pytest.raises(RemoteError):
            await face.result(failed)

    pairing.run(scenario)


def test_calls_start_in_the_order_in_which_they_were_made(pairing, parts):
    # With coroutines: the bodies of ``def`` methods that start one after the other may overtake on their threads.
    pairing.service = parts.coroutines()

    async def scenario(face):
        service = await face.root()
        futures = [face.submit(service.note, n) for n in range(200)]
        for future in futures:
            await face.result(future)
        return await face(service.noted())

    assert pairing.run(scenario) == list(range(200))


def test_more_calls_than_in_flight_wait_for_room(pairing):
    async def scenario(face):
        service = await face.root()
        futures = [face.submit(service.echo_int, n) for n in range(300)]
        assert [await face.result(future) for future in futures] == list(range(300))

    pairing.run(scenario)


def test_factory_makes_one_root_for_each_connection(pairing, parts):
    made = []

    class Made(parts.methods):
        def __init__(self, peer):
            made.append(peer.principal)
            super().__init__(len(made))

    async def scenario(face):
        first, again = await face.root(), await face.root()
        assert first is again
        return await face(first.connection_number())

    pairing.serve({"service": Made})
    assert [pairing.run(scenario), pairing.run(scenario, side="bob")] == [1, 2]
    assert made == ["spiffe://test.example/alice", "spiffe://test.example/bob"]


def test_connection_id_is_the_same_in_both_logs(pairing):
    async def scenario(face):
        await face.root()
        return face.peer.connection_id

    number = pairing.run(scenario)
    pairing.host.stop()
    theirs = {record.get("connection") for record in pairing.host.records()}
    assert number in theirs
