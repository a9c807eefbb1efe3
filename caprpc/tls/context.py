"""TLS contexts: one for each role and epoch of an identity, never changed after they are made.

Bare contexts, not ``ssl.create_default_context()``: that one loads the system's trust store, and reads SSLKEYLOGFILE
from the environment.
"""

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from caprpc.errors import ConfigurationError
from caprpc.tls.channel import ALPN
from caprpc.tls.credentials import Identity

SERVER_GROUPS: Final = ("X25519", "prime256v1")
"""Key exchange of the server, the first that OpenSSL has: left alone, a stranger could ask for ffdhe8192, which costs
us 30 times as much. P-256 where X25519 is not allowed (FIPS)."""

_MIN_SECURITY_LEVEL: Final = 2
"""OpenSSL's level for 112 bits: no SHA-1, no RSA below 2048."""

_HYBRID_OPENSSL: Final = (3, 5)
"""From here on OpenSSL prefers the hybrid X25519MLKEM768 by itself, and dropped the largest finite fields: leave it
alone."""


def server_context(identity: Identity) -> ssl.SSLContext:
    """Return the context for accepting connections.

    Raises:
        ConfigurationError: Our certificate lacks serverAuth, or OpenSSL refuses a file.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity, "server")
    # A resumed session is not checked against revocation again (CVE-2025-68121 and its like), and unread tickets look
    # like data.
    context.num_tickets = 0
    if ssl.OPENSSL_VERSION_INFO[:2] < _HYBRID_OPENSSL:
        for group in SERVER_GROUPS:
            with suppress(ValueError, ssl.SSLError):
                context.set_ecdh_curve(group)
                break
    return context


def client_context(identity: Identity) -> ssl.SSLContext:
    """Return the context for making connections.

    Raises:
        ConfigurationError: Our certificate lacks clientAuth, or OpenSSL refuses a file.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, identity, "client")


def _context(protocol: int, identity: Identity, role: str) -> ssl.SSLContext:
    if role not in identity.leaf.roles:
        raise ConfigurationError(
            f"our certificate may not act as a {role}: extended key usage lacks {role}Auth",
            where=str(identity.directory / "cert.pem"),
            hint=f"issue one with `caprpc pki issue --role {role}`",
        )
    context = ssl.SSLContext(protocol)
    # The name is checked by ``verify_peer``, which also knows addresses and SPIFFE IDs.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.post_handshake_auth = False
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_CHAIN
    # Said outright, so that no openssl.cnf (OPENSSL_CONF) lowers it.
    context.set_ciphers(f"DEFAULT@SECLEVEL={_MIN_SECURITY_LEVEL}")
    context.set_alpn_protocols([ALPN])
    files = identity.files
    try:
        with _lent(files.cert) as cert, _lent(files.key) as key, _lent(files.anchors + b"\n" + files.crl) as trust:
            context.load_cert_chain(cert, key, password=_no_password)
            context.load_verify_locations(trust)
    except ssl.SSLError as exc:
        raise ConfigurationError(
            f"OpenSSL refuses the identity: {exc.reason}",
            where=str(identity.directory),
            hint="caprpc pki show says what is in it; caprpc pki renew issues it anew",
        ) from exc
    return context


def _no_password() -> bytes:
    """Keep OpenSSL from asking the terminal for a passphrase."""
    return b""


@contextmanager
def _lent(content: bytes) -> Iterator[str]:
    """Give bytes a path for as long as OpenSSL, which reads only files, needs one.

    The bytes that were checked are the bytes that are used; where the system can, they never touch a disk.
    """
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        with open(os.memfd_create("caprpc", os.MFD_CLOEXEC), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        # mkdtemp makes the directory with mode 0700.
        with tempfile.TemporaryDirectory(prefix="caprpc-") as directory:
            path = Path(directory, "pem")
            path.write_bytes(content)
            yield str(path)
