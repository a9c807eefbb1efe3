"""What must never be checked in: keys, and names of the machine it was written on."""

import re

# Written in pieces, so that this file does not find itself.
PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*" + rb"PRIVATE KEY-----")
MACHINE_PATH = re.compile(rb"(?<![\w.])/(?:root|work|home/[a-z]+|Users/[A-Za-z]+|opt/(?:pypi|wheels))" + rb"/[\w.]")
KEY_SUFFIXES = {".pem", ".key", ".p12", ".pfx", ".der", ".jks"}


def test_no_private_key_is_checked_in(tracked_files):
    found = [str(p) for p in tracked_files if p.suffix in KEY_SUFFIXES or PRIVATE_KEY.search(p.read_bytes())]
    assert not found, "\n".join(found)


def test_no_machine_path_is_checked_in(tracked_files):
    found = [str(path) for path in tracked_files if path.suffix != ".svg" and MACHINE_PATH.search(path.read_bytes())]
    assert not found, "\n".join(found)


def test_the_patterns_find_what_they_are_for():
    assert PRIVATE_KEY.search(b"-----BEGIN EC " + b"PRIVATE KEY-----")
    assert PRIVATE_KEY.search(b"-----BEGIN " + b"PRIVATE KEY-----")
    assert MACHINE_PATH.search(b"see /ro" + b"ot/x")
    assert not MACHINE_PATH.search(b"spiffe://org/home and docs/wor" + b"k/x")


def test_no_file_is_a_link_out_of_the_repository(tracked_files, repository):
    assert [str(p) for p in tracked_files if not p.resolve().is_relative_to(repository)] == []
