"""Open files stand for file interfaces by exact type; bounded reads; a bad byte is explained to the owner."""

import io
import tempfile

import pytest

from caprpc.ids import OP_CALL, OP_ITERATE, OP_NEXT
from caprpc.interface import Interface, Mismatch, method, register_adapter, shape_of
from caprpc.interface.file_adapters import MAX_READ_BYTES, MAX_READ_CHARS
from caprpc.interfaces import BinaryFile, Closeable, FileTooLarge, TextFile, TextLines, UndecodableFile


def lines_of(adapter, hint=-1):
    """Iterate as a peer would: readlines, then chunks."""
    shape = shape_of(TextLines)
    result = shape.members[OP_CALL, "readlines"].resolve(adapter)(hint)
    iterator = shape.members[OP_CALL, "readlines"].signature.result.shapes[0]
    server = iterator.adapt(result)
    pull = iterator.members[OP_NEXT, ""]
    got, done = [], False
    while not done:
        items, done = pull.resolve(server)(100, 1 << 20)
        got += items
    return got


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "testfile.txt"
    path.write_text("Simple\ntest\nfile", encoding="utf-8")
    return path


def test_lines_of_an_open_file(path):
    with path.open(encoding="utf-8") as file:
        assert lines_of(shape_of(TextLines).adapt(file)) == ["Simple\n", "test\n", "file"]


def test_hint_stops_after_about_so_many_characters(path):
    with path.open(encoding="utf-8") as file:
        adapter = shape_of(TextLines).adapt(file)
        assert lines_of(adapter, 8) == ["Simple\n", "test\n"]
        assert adapter.readline() == "file"
        assert adapter.readline() == ""


def test_adapter_reads_nothing_before_it_is_asked(path):
    file = io.StringIO("a\nb\n")
    shape = shape_of(TextLines)
    shape.members[OP_CALL, "readlines"].resolve(shape.adapt(file))()
    assert file.tell() == 0


def test_lent_lines_give_no_way_to_write_or_close():
    names = {name for operation, name in shape_of(TextLines).members if operation == OP_CALL}
    assert names == {"readlines", "readline"}
    assert (OP_ITERATE, "") in shape_of(TextLines).members


def test_adapter_keeps_the_file_to_itself(path):
    with path.open(encoding="utf-8") as file:
        adapter = shape_of(TextFile).adapt(file)
        members = {name for _, name in shape_of(TextFile).members}
        assert not members & {"buffer", "name", "encoding", "detach", "fileno", "truncate", "_file"}
        assert adapter is not file


def test_text_file_reads_writes_and_seeks(tmp_path):
    with (tmp_path / "new").open("w+", encoding="utf-8") as file:
        adapter = shape_of(TextFile).adapt(file)
        assert adapter.write("héllo\nworld") == 11
        adapter.flush()
        assert adapter.seek(0) == 0
        assert adapter.read(2) == "hé"
        assert adapter.read() == "llo\nworld"
        assert adapter.tell() == 12
        adapter.close()
        assert file.closed


def test_binary_file_reads_writes_and_seeks():
    file = io.BytesIO()
    adapter = shape_of(BinaryFile).adapt(file)
    assert adapter.write(b"a\nb") == 3
    assert adapter.seek(0) == 0
    assert list(adapter) == [b"a\n", b"b"]
    assert adapter.seek(1) == 1
    assert adapter.readline() == b"\n"
    assert adapter.read() == b"b"
    assert adapter.tell() == 3
    adapter.flush()
    shape_of(Closeable).adapt(file).close()
    assert file.closed


@pytest.mark.parametrize(
    ("interface", "file", "most"),
    [
        (TextFile, io.StringIO("x" * (MAX_READ_CHARS + 1)), MAX_READ_CHARS),
        (BinaryFile, io.BytesIO(b"x" * (MAX_READ_BYTES + 1)), MAX_READ_BYTES),
    ],
)
def test_read_is_bounded_by_what_a_message_can_carry(interface, file, most):
    adapter = shape_of(interface).adapt(file)
    with pytest.raises(FileTooLarge, match="read in pieces, or iterate"):
        adapter.read()
    assert adapter.tell() == 0
    assert len(adapter.read(1 << 40)) == most
    assert len(adapter.read()) == 1
    adapter.seek(0)
    assert len(adapter.readline()) == most


def test_line_without_end_comes_in_pieces():
    adapter = shape_of(TextLines).adapt(io.StringIO("x" * (MAX_READ_CHARS + 5)))
    assert [len(line) for line in adapter] == [MAX_READ_CHARS, 5]


def test_bad_byte_is_explained_with_file_byte_and_line(path):
    path.write_bytes(b"fine\n" * 20_000 + b"b\xc3\n" + b"more\n")
    with path.open(encoding="utf-8") as file, pytest.raises(UndecodableFile) as caught:
        lines_of(shape_of(TextLines).adapt(file))
    assert (
        str(caught.value)
        == f"{path} is not valid utf-8 at byte 100001, line 20001; open it with the encoding that it has"
    )


def test_bad_byte_on_the_border_of_two_scans_is_found(path):
    path.write_bytes(b"x" * 65_535 + b"\xc3" + b"x\n")
    with path.open(encoding="utf-8") as file:
        adapter = shape_of(TextFile).adapt(file)
        with pytest.raises(UndecodableFile, match="at byte 65535, line 1;"):
            adapter.read()


def test_file_that_ends_in_a_character_is_explained(path):
    path.write_bytes(b"ok\n\xe2\x82")
    with (
        path.open(encoding="utf-8") as file,
        pytest.raises(UndecodableFile, match="line 2;"),
    ):
        lines_of(shape_of(TextLines).adapt(file))


def test_other_exceptions_of_a_file_pass_unchanged():
    file = io.StringIO("a")
    adapter = shape_of(TextFile).adapt(file)
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        adapter.readline()


class SubclassedFile(io.StringIO):
    pass


@pytest.mark.parametrize("wrong", [SubclassedFile("a"), io.BytesIO(b"a"), "testfile.txt", 0, io, io.StringIO, None])
def test_only_exact_types_stand_for_a_text_file(wrong):
    with pytest.raises(Mismatch, match="or be one of StringIO, TextIOWrapper"):
        shape_of(TextLines).adapt(wrong)


def test_further_types_are_registered_by_name():
    class Source(Interface):
        @method(effect="read")
        def take(self) -> int: ...

    class Foreign:
        value = 3

    class ForeignSource(Source):
        def __init__(self, foreign):
            self._foreign = foreign

        def take(self):
            return self._foreign.value

    with pytest.raises(Mismatch):
        shape_of(Source).adapt(Foreign())
    register_adapter(Foreign, Source, ForeignSource)
    assert shape_of(Source).adapt(Foreign()).take() == 3
    with pytest.raises(Mismatch):
        shape_of(Source).adapt(type("Sub", (Foreign,), {})())
    for wrong in ((Foreign, Source), (ForeignSource, Source), (type, Source), (Foreign, Foreign)):
        with pytest.raises(TypeError):
            register_adapter(*wrong, ForeignSource)


def test_temporary_file_is_adapted_by_its_inner_file():
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.write("a\n")
        file.seek(0)
        assert lines_of(shape_of(TextLines).adapt(file)) == ["a\n"]
