"""Reference tables that only remember: what a signature writes and reads, without a session."""

import pytest

from caprpc.interface import Mismatch
from caprpc.wire.values import OwnReference, RemoteReference


class Table:
    """Numbers adapted objects; reading a number gives the object back if the shape has the declared name."""

    def __init__(self):
        self.written = []
        self.shapes = []

    def write(self, obj, shape, parameter):
        self.written.append(shape.adapt(obj))
        self.shapes.append((shape.name, parameter))
        return RemoteReference(len(self.written), 1)

    def read(self, reference, shape):
        name = self.shapes[reference[0] - 1][0]
        if name != shape.name:
            raise Mismatch(shape.name, name)
        return self.written[reference[0] - 1]


@pytest.fixture
def table():
    return Table()


@pytest.fixture
def own_reference():
    return OwnReference(1)
