"""From a finished handshake to a proved peer: the only maker of ``PeerIdentity``."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from caprpc.errors import IdentityRefused, printable
from caprpc.peer import PeerIdentity
from caprpc.tls.channel import TlsChannel
from caprpc.tls.credentials import Identity
from caprpc.tls.profile import Authority, Leaf, check_name_constraints, parse_authority

MAX_CHAIN: Final = 6
"""Most certificates in a chain, anchor included."""

IDENTITY_CODES: Final = frozenset(
    {
        "anchor",
        "ca-leaf",
        "chain",
        "crl",
        "eku",
        "expired",
        "hostname",
        "identity-ambiguous",
        "identity-malformed",
        "identity-missing",
        "key",
        "key-usage",
        "malformed",
        "name-constraint",
        "revoked",
        "self",
        "signature",
        "size",
        "trust-domain",
    }
)
"""Codes of ``IdentityRefused`` that ``verify_peer`` raises; policy matching adds ``no-policy`` and its like."""

_OBJECTIONS: Final = {
    "crl": "the revocation list of an issuer in its chain is missing or has expired",
    "revoked": "a certificate in its chain is revoked",
}

VALIDITY_REASONS: Final = frozenset({"expired", "revoked", "crl", "anchor"})
"""What ``still_valid`` may answer."""


def verify_peer(
    channel: TlsChannel,
    *,
    identity: Identity,
    anchors: Mapping[str, frozenset[str]],
    hostname: str | None,
    now: float,
    address: str,
    allow_self: bool = False,
) -> PeerIdentity:
    """Return who the peer of a finished handshake is.

    Args:
        channel: Its handshake is done; its chain was verified by OpenSSL.
        identity: Ours, the newest epoch.
        anchors: From the policies: the trust domains that each CA (fingerprint) may speak for.
        hostname: What we dialled: a DNS name or an address; None on the listening side and for Unix sockets.
        now: Seconds since the epoch.
        address: The peer's transport address, for the audit log.
        allow_self: Accept a peer that has our own key; otherwise that is our own traffic reflected at us.

    Raises:
        IdentityRefused: The chain proves no identity that we accept; the code is one of ``IDENTITY_CODES``.
    """
    chain = channel.verified_chain()
    if not 2 <= len(chain) <= MAX_CHAIN:
        raise IdentityRefused("chain", f"verified chain of {len(chain)} certificates, expected 2 to {MAX_CHAIN}")
    leaf = identity.leaves.parse(chain[0])
    role = "client" if channel.server_side else "server"
    if role not in leaf.roles:
        raise IdentityRefused("eku", f"{leaf.spiffe.text} may not act as a {role}: extended key usage lacks {role}Auth")
    if leaf.key == identity.leaf.key and not allow_self:
        raise IdentityRefused("self", "the peer has our own key: the connection was reflected, or the key was copied")
    authorities = [identity.authorities.get(der) or parse_authority(der) for der in chain[1:]]
    not_after = min(leaf.not_after, *(authority.not_after for authority in authorities))
    if now >= not_after:
        raise IdentityRefused("expired", f"a certificate in the chain of {leaf.spiffe.text} has expired")
    for authority in authorities:
        check_name_constraints(leaf, authority)
    anchor = authorities[-1]
    _check_anchor(leaf, anchor, anchors)
    if hostname is not None:
        _check_hostname(leaf, hostname)
    peer = PeerIdentity(
        principal=leaf.spiffe.text,
        anchor=anchor.key,
        leaf_key=leaf.key,
        serials=((authorities[0].name, leaf.serial), *((one.issuer, one.serial) for one in authorities)),
        not_after=not_after,
        address=address,
    )
    # OpenSSL has checked the lists of the context; this is for an identity that was reloaded during the handshake.
    objection = identity.revocation.objection(peer.serials, now)
    if objection is not None:
        raise IdentityRefused(objection, f"{leaf.spiffe.text}: {_OBJECTIONS[objection]}")
    return peer


def still_valid(peer: PeerIdentity, identity: Identity, now: float) -> str | None:
    """Return why an established connection must end, None if it may go on: it lives only as long as it could be made
    afresh.

    Drivers ask at least every 60 s, and at once after a reload with the new epoch of the identity.

    Returns:
        ``expired``, ``revoked``, ``crl`` (the revocation list is missing or has expired) or ``anchor`` (its CA is no
        longer trusted).
    """
    if now >= peer.not_after:
        return "expired"
    if peer.anchor not in identity.anchors:
        return "anchor"
    return identity.revocation.objection(peer.serials, now)


def _check_anchor(leaf: Leaf, anchor: Authority, anchors: Mapping[str, frozenset[str]]) -> None:
    """A CA speaks only for the trust domains that a policy binds to it, whatever it signs."""
    domains, name = anchors.get(anchor.key), printable(anchor.name)
    if domains is None:
        raise IdentityRefused("anchor", f"no policy names the CA {name} ({anchor.key})")
    if leaf.spiffe.trust_domain not in domains:
        raise IdentityRefused(
            "trust-domain",
            f"the CA {name} ({anchor.key}) may speak for {sorted(domains)}, not for {leaf.spiffe.trust_domain}",
        )


def _check_hostname(leaf: Leaf, hostname: str) -> None:
    """Check what we dialled, besides the SPIFFE ID.

    A DNS name must be among the leaf's. An address must be among its addresses if it lists any; if it lists none, and
    for ``localhost``, the SPIFFE ID alone decides: addresses prove nothing that the policy's principal does not.
    """
    target = _address(hostname)
    if target is not None:
        if leaf.ip_addresses and target not in leaf.ip_addresses:
            listed = ", ".join(sorted(str(address) for address in leaf.ip_addresses))
            raise IdentityRefused("hostname", f"dialled {target}, the certificate lists {listed}")
        return
    name = hostname.removesuffix(".").lower()
    if name not in leaf.dns_names and name != "localhost":
        listed = ", ".join(sorted(leaf.dns_names)) or "no DNS name"
        raise IdentityRefused("hostname", f"dialled {printable(hostname)}, the certificate lists {listed}")


def _address(hostname: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(hostname.strip("[]"))
    except ValueError:
        return None
