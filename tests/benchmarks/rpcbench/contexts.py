"""TLS contexts for the peers that take one: TLS 1.3 alone, a certificate demanded from both sides, no tickets."""

import ssl

from rpcbench.site import Identity, Site


def server_context(site: Site) -> ssl.SSLContext:
    """The context of a server that requires a client certificate of our CA."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, site.server)
    context.num_tickets = 0
    return context


def client_context(site: Site) -> ssl.SSLContext:
    """The context of a client that shows its certificate and checks the server's name."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, site.client)


def _context(protocol: int, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(identity.certificate, identity.key)
    context.load_verify_locations(identity.anchors)
    return context
