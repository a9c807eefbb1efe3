"""Each limit of ``caprpc/limits.py`` names the tests that meet it at its edge: a knob without one is refused here."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest

from caprpc import limits

CONNECTION = "integration/servers/test_limits_edges.py"
SERVER = "integration/servers/test_server_limits_edges.py"
BUDGET = "objects/test_accept_budget.py"
PRINCIPAL = "objects/test_principal_limits.py"
HELD = "attacks/test_attacks_held.py"
REFERENCES = "objects/test_references_in_bulk.py"
TIME = "session/test_session_time.py"

AT_THE_EDGE = {
    "max_frame_bytes": [(CONNECTION, "test_max_frame_bytes")],
    "max_depth": [(CONNECTION, "test_values_at_the_edge_of_their_limits")],
    "max_items": [(CONNECTION, "test_values_at_the_edge_of_their_limits")],
    "max_int_bits": [(CONNECTION, "test_values_at_the_edge_of_their_limits")],
    "max_key_bytes": [(CONNECTION, "test_values_at_the_edge_of_their_limits")],
    "max_pair_keys": [(CONNECTION, "test_values_at_the_edge_of_their_limits")],
    "max_error_text_bytes": [(CONNECTION, "test_max_error_text_bytes")],
    "message_references": [(REFERENCES, "test_arguments_at_the_edge"), (REFERENCES, "test_results_at_the_edge")],
    "in_flight": [(CONNECTION, "test_in_flight"), (CONNECTION, "test_a_batch_of_in_flight_calls")],
    "exports": [(CONNECTION, "test_exports")],
    "imports": [(CONNECTION, "test_imports")],
    "callback_depth": [(CONNECTION, "test_callback_depth_is_counted_over_both_sides")],
    "callbacks": [
        ("attacks/test_attacks_amplification.py", "test_a_method_that_wants_more_is_answered_limit"),
        ("attacks/test_attacks_amplification.py", "test_a_server_uses_what_was_lent_for_one_call_as_often_as_it_may"),
    ],
    "pipeline_depth": [("session/test_session_pipelining.py", "test_depth_is_limited")],
    "call_timeout_s": [(CONNECTION, "test_call_timeout_of_a_client")],
    "hello_timeout_s": [(TIME, "test_first_message_must_come_in_time"), (CONNECTION, "test_hello_timeout")],
    "idle_s": [(TIME, "test_silence_is_met_with_a_ping_and_then_with_the_end"), (CONNECTION, "test_idle")],
    "frame_grace_s": [(TIME, "test_grace_of_a_frame_at_its_edge")],
    "frame_bytes_per_s": [(TIME, "test_progress_of_a_frame_at_its_edge"), (CONNECTION, "test_frame_progress")],
    "write_high_water_bytes": [
        (CONNECTION, "test_write_high_water_bytes"),
        (CONNECTION, "test_answers_below_the_high_water_are_made_although_the_peer_reads_none"),
    ],
    "write_timeout_s": [(CONNECTION, "test_write_timeout")],
    "glitch_burst": [(CONNECTION, "test_glitch_burst")],
    "glitch_per_s": [(TIME, "test_budget_is_refilled_by_time"), (CONNECTION, "test_glitch_burst_and_refill")],
    "principal_in_flight": [(PRINCIPAL, "test_calls_of_all_connections_together_at_their_edge")],
    "principal_callbacks": [(CONNECTION, "test_principal_callbacks")],
    "principal_pipelined": [(CONNECTION, "test_principal_pipelined")],
    "principal_argument_bytes": [(HELD, "test_arguments_of_calls_in_flight_at_their_edge")],
    "principal_exports": [(PRINCIPAL, "test_exports_of_all_connections_together_at_their_edge")],
    "principal_imports": [(PRINCIPAL, "test_imports_of_all_connections_together_at_their_edge")],
    "principal_buffered_bytes": [
        (PRINCIPAL, "test_buffers_are_divided_among_the_connections"),
        (CONNECTION, "test_principal_buffered_bytes"),
    ],
    "handshake_timeout_s": [(SERVER, "test_handshake_timeout")],
    "max_unauthenticated": [(BUDGET, "test_places_at_their_edge"), (SERVER, "test_max_unauthenticated")],
    "unauthenticated_per_address": [
        (BUDGET, "test_share_of_one_address_at_its_edge"),
        (SERVER, "test_silent_connections_of_one_address_leave_the_places_of_others"),
    ],
    "max_connections": [(BUDGET, "test_places_at_their_edge"), (SERVER, "test_max_connections")],
    "connections_per_principal": [(SERVER, "test_connections_per_principal")],
    "accept_per_s": [(BUDGET, "test_accept_per_s_is_earned_back_and_no_more_than_the_burst")],
    "accept_burst": [
        (BUDGET, "test_accept_burst_connections_begin_at_once_and_the_next_waits"),
        (SERVER, "test_accept_burst"),
    ],
    "argument_bytes": [(HELD, "test_arguments_of_all_principals_at_their_edge")],
    "workers": [(SERVER, "test_workers")],
    "worker_wait_s": [
        ("objects/test_shares.py", "test_a_call_waits_for_others_until_its_time_is_over_and_not_longer"),
        ("integration/servers/test_worker_wait.py", "test_worker_wait_s"),
    ],
    "FIRST_FRAME_BYTES": [(CONNECTION, "test_first_frame_bytes")],
    "HANDSHAKE_BYTES": [("tls/test_channel.py", "test_bytes_of_a_handshake_at_the_edge_of_their_bound")],
}
"""Limit -> tests, of which each lets N through and refuses N + 1, and sees its name where there is text."""


TESTS = Path(__file__).resolve().parents[1]


def knobs():
    named = {field.name for kind in (limits.Limits, limits.ServerLimits) for field in fields(kind)}
    fixed = {name for name, value in vars(limits).items() if name.isupper() and type(value) in (int, float)}
    return named | (fixed - {"KIB", "MIB"})


def test_every_limit_is_in_the_table():
    assert set(AT_THE_EDGE) == knobs()


@pytest.mark.parametrize("knob", AT_THE_EDGE)
def test_the_tests_of_a_limit_exist(knob):
    for path, name in AT_THE_EDGE[knob]:
        tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"
