"""What the operator's log shows of an exception: whole, and nothing in it passes for another line."""

import io
import logging

import pytest

from caprpc.objects.failures import FailureLog
from caprpc.objects.tracing import text_of

FORGED = "x\n1999-12-31 20:00:00,000 ERROR Vault.drop for spiffe://x/bob failed (R-FAKE)\r\x1b[2J\u202e\x85\u2028"


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no")


def raised(make):
    try:
        make()
    except BaseException as exc:
        return exc
    raise AssertionError


def chained():
    try:
        raise KeyError(FORGED)
    except KeyError as exc:
        error = ValueError(FORGED)
        error.add_note(FORGED)
        raise error from exc


def meanwhile():
    try:
        raise ValueError(FORGED)
    except ValueError:
        raise OSError(2, FORGED, FORGED)  # noqa: B904 - what stood before it is to be shown


def group():
    raise ExceptionGroup(FORGED, [ValueError(FORGED), Mute()])


def raise_mute():
    raise Mute


@pytest.fixture
def written():
    """Return what a handler as any program has one writes of a failure."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("caprpc")
    log.addHandler(handler)

    def write(exc):
        FailureLog("spiffe://x/alice").add("Vault.pay (call)", exc, "R-1")
        return stream.getvalue()

    yield write
    log.removeHandler(handler)


@pytest.mark.parametrize("make", [chained, meanwhile, group, raise_mute])
def test_no_text_of_an_exception_begins_a_line_or_steers_a_terminal(written, make):
    text = written(raised(make))
    assert not any(line.startswith("1999-12-31") for line in text.splitlines())
    assert all(c.isprintable() for c in text if c not in "\n ")
    assert text.count("R-FAKE") == sum(line.count("R-FAKE") for line in text.splitlines() if "\\n1999" in line)


def test_it_shows_where_and_what(written):
    text = written(raised(chained))
    assert text.count("Traceback (most recent call last):") == 2
    assert "in chained" in text
    assert "ValueError: x\\n1999" in text
    assert "The above exception was the direct cause" in text
    assert text.index("KeyError") < text.index("ValueError")


def test_handlers_that_look_for_the_exception_find_it(caplog):
    exc = raised(chained)
    FailureLog("spiffe://x/alice").add("Vault.pay (call)", exc, "R-1")
    assert caplog.records[-1].exc_info[1] is exc


def test_a_chain_that_bites_its_tail_ends():
    one, other = ValueError("1"), ValueError("2")
    one.__cause__, other.__cause__ = other, one
    assert text_of(one).count("ValueError") == 2


def test_a_long_text_is_cut():
    assert len(text_of(ValueError("x" * 1_000_000))) < 3_000
