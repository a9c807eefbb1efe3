"""Where the repository is, for tests that start a process in it; and a shop that runs."""

import importlib
from pathlib import Path

import pytest

import caprpc

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def repository_root() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A running shop: its address and its directories."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        shop_service = importlib.import_module("shop_service")
        root = tmp_path_factory.mktemp("shop")
        shop_service.deploy(root)
        directories = {"identity": root / "server" / "identity", "policies": root / "server" / "policies"}
        server = caprpc.Server(shop_service.roots(), **directories)
        address = server.listen("127.0.0.1:0")
        with server:
            yield {"address": address, "root": root}
