"""CapRPC for asyncio: the names of ``caprpc``, awaitable."""

from caprpc.aio.calling import batch, oneway, pipe, set_attribute, submit
from caprpc.aio.client import Client, Peer, connect, connect_subprocess
from caprpc.aio.granting import grant
from caprpc.aio.operators import compare, contains, length, open_stream, prefetch, set_item
from caprpc.aio.references import attenuate, lend, release, release_after, revoke
from caprpc.aio.server import Server, serve
from caprpc.objects.async_streams import AsyncReader, AsyncWriter
from caprpc.objects.context import CallContext, current, deadline
from caprpc.objects.describing import Description, MemberDescription, describe, holder, implements, same

__all__ = [
    "AsyncReader",
    "AsyncWriter",
    "CallContext",
    "Client",
    "Description",
    "MemberDescription",
    "Peer",
    "Server",
    "attenuate",
    "batch",
    "compare",
    "connect",
    "connect_subprocess",
    "contains",
    "current",
    "deadline",
    "describe",
    "grant",
    "holder",
    "implements",
    "lend",
    "length",
    "oneway",
    "open_stream",
    "pipe",
    "prefetch",
    "release",
    "release_after",
    "revoke",
    "same",
    "serve",
    "set_attribute",
    "set_item",
    "submit",
]
