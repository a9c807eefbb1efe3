"""References that are handed out as ``opaque``: the peer holds them, hands them back, and may do nothing with them."""

from collections.abc import Iterator

import pytest

from caprpc import Denied, Interface, RemoteError, attribute, method
from caprpc.testing.deployment import Deployment

OFFER = """\
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/alice"]
[roots]
service = "Office"
[offer.Office]
interface = "Office"
call = ["token", "tokens", "safe", "is_mine"]
get = ["last"]
[offer.Office.returns]
token = "opaque"
last = "opaque"
safe = "opaque"
tokens = "Tokens"
[offer.Tokens]
interface = "Iterator"
iterate = true
[offer.Tokens.returns]
iterate = "opaque"
[accept.Token]
call = ["read"]
"""
ACCEPT = """\
[peer]
ca = ["@CA@"]
spiffe = ["spiffe://@DOMAIN@/server"]
[accept.Office]
call = ["token", "tokens", "safe", "is_mine"]
get = ["last"]
[accept.Token]
call = ["read"]
[accept.Safe]
call = ["open"]
[accept.Iterator]
iterate = true
"""


class Token(Interface):
    @method(effect="read")
    def read(self) -> str: ...


class Safe(Interface):
    @method(effect="admin")
    def open(self) -> str: ...


class Office(Interface):
    last: Token = attribute()

    @method(effect="read")
    def token(self) -> Token: ...

    @method(effect="read")
    def tokens(self) -> Iterator[Token]: ...

    @method(effect="read")
    def safe(self) -> Safe: ...

    @method(effect="read")
    def is_mine(self, token: Token) -> bool: ...


class TokenImpl(Token):
    def read(self):
        return "secret"


class SafeImpl(Safe):
    def open(self):
        return "gold"


class OfficeImpl(Office):
    def __init__(self):
        self.last = TokenImpl()

    def token(self):
        return self.last

    def tokens(self):
        yield from [self.last] * 3

    def safe(self):
        return SafeImpl()

    def is_mine(self, token):
        return token is self.last


class AsyncOffice(OfficeImpl):
    async def token(self):
        return self.last

    async def tokens(self):
        for _ in range(3):
            yield self.last

    async def safe(self):
        return SafeImpl()

    async def is_mine(self, token):
        return token is self.last


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    deployment = Deployment(tmp_path_factory.mktemp("opaque"))
    deployment.server = deployment.side("server", {"alice": OFFER}, [Office])
    deployment.clients = {"alice": deployment.side("alice", {"server": ACCEPT}, [Office])}
    return deployment


@pytest.fixture
def office(pairings, deployment, tmp_path):
    made = pairings(deployment, tmp_path, OfficeImpl, AsyncOffice)
    yield made
    made._stack.close()


def test_the_peer_holds_an_opaque_reference_and_hands_it_back(office):
    async def scenario(face):
        service = await face.root("service", Office)
        token = await face(service.token())
        listed = await face.list(await face(service.tokens()))
        return [await face(service.is_mine(one)) for one in (token, *listed, await face(service.last))]

    assert office.run(scenario) == [True] * 5


def test_the_peer_may_do_nothing_with_an_opaque_reference(office):
    async def scenario(face):
        service = await face.root("service", Office)
        token, safe = await face(service.token()), await face(service.safe())
        for method_of in (token.read, safe.open):
            with pytest.raises(Denied):
                await face(method_of())

    office.run(scenario)


def test_an_opaque_reference_stands_for_its_own_interface_alone(office):
    async def scenario(face):
        service = await face.root("service", Office)
        safe = await face(service.safe())
        with pytest.raises(RemoteError) as refused:
            await face(service.is_mine(safe))
        assert refused.value.code == "invalid-arguments"

    office.run(scenario)
