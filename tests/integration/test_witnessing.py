"""Over real connections: each side's log is cosigned by the other, and both hold the same calls."""

import json

from caprpc.audit import VerifierKey, verify
from caprpc.audit.notes import Note
from caprpc.audit.reconcile import reconcile


def cosigned(directory):
    return list(directory.glob("spiffe*.cosigned"))


def test_both_logs_are_cosigned_while_a_connection_is_open(pairing):
    server, client = pairing.directory / "server1", pairing.directory / "client2"

    async def scenario(face):
        service = await face.root()
        await face(service.noop())
        await face.pause(lambda: cosigned(server) and cosigned(client))
        await face(service.noop())
        return True

    assert pairing.run(scenario)
    pairing.close()
    for log in (server, client):
        report = verify(log)
        assert report.intact
        assert all(one.unsigned == 0 for one in report.relations)
        (file,) = cosigned(log)
        kept = json.loads(file.read_bytes())
        assert Note.parse(kept["note"].encode()).signature_of(VerifierKey.parse(kept["witness"])) is not None
    found = reconcile(server, client)
    assert (found.connections, found.differences, found.undecided) == (1, [], [])
    assert found.calls >= 3
