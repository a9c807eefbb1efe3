"""Why a TLS channel ended badly, in words that say what to do."""

import ssl
from typing import Final

from caprpc.errors import CapRPCError

REFUSAL_CODES: Final = frozenset(
    {
        "alert",
        "alpn",
        "certificate",
        "closed",
        "foreign",
        "handshake",
        "handshake-bytes",
        "record",
        "timeout",
        "yield",
    }
)
"""Codes of ``TlsRefused``: the peer refused us (alert), or we refused the peer (all others).

``timeout`` is for drivers, who have the clock.
"""

_ALERTS: Final[dict[str, tuple[str, str]]] = {
    "CERTIFICATE_REQUIRED": (
        "the peer requires a certificate and got none",
        "give an identity directory (identity=…); see `caprpc pki issue --help`",
    ),
    "UNKNOWN_CA": (
        "the peer does not trust the authority that issued our certificate",
        "send your CA certificate to the peer's operator, or use an identity issued by a CA they trust",
    ),
    "CERTIFICATE_EXPIRED": ("our certificate has expired or is not valid yet", "issue a new one, and check the clock"),
    "CERTIFICATE_REVOKED": ("our certificate has been revoked", "issue a new one with a new key"),
    "CERTIFICATE_UNKNOWN": (
        "the peer could not verify our certificate",
        "ask the peer's operator for the reason in their audit log; often their revocation list is missing or expired",
    ),
    "BAD_CERTIFICATE": ("the peer found our certificate malformed", "look at it with `caprpc pki show`"),
    "UNSUPPORTED_CERTIFICATE": (
        "our certificate is not made for this use",
        "it needs the extended key usage clientAuth (to dial) or serverAuth (to listen); see `caprpc pki show`",
    ),
    "ACCESS_DENIED": ("the peer denied access", "ask the peer's operator"),
    "PROTOCOL_VERSION": ("the peer speaks no TLS 1.3", "is this a CapRPC server?"),
    "NO_APPLICATION_PROTOCOL": ("the peer does not speak caprpc/1", "is this a CapRPC server, and of this version?"),
    "HANDSHAKE_FAILURE": ("the peer shares no parameters with us", "is this a CapRPC server?"),
    "DECRYPT_ERROR": ("the peer could not verify a signature of ours", "does key.pem belong to cert.pem?"),
    "INTERNAL_ERROR": ("the peer failed internally", "ask the peer's operator"),
    "CLOSE_NOTIFY": ("the peer closed during the handshake", "ask the peer's operator"),
}

_VERIFY_HINTS: Final[dict[int, str]] = {
    3: "put the current revocation list of every CA into crl.pem; see `caprpc pki crl --help`",
    10: "the certificate has expired; issue a new one",
    9: "the certificate is not valid yet; check the clocks",
    12: "the revocation list has expired; renew it with `caprpc pki crl` and copy it to crl.pem",
    18: "the certificate signs itself; it must be issued by a CA of anchors.pem",
    19: "the CA of this certificate is not in anchors.pem; see `caprpc pki trust --help`",
    20: "the CA of this certificate is not in anchors.pem; see `caprpc pki trust --help`",
    23: "the certificate was revoked",
    26: "the certificate lacks the extended key usage for this role",
}
"""By X509_V_ERR code (OpenSSL, x509_vfy.h)."""


class TlsRefused(CapRPCError):
    """The handshake or the channel failed; no plaintext may be trusted after it.

    Attributes:
        code: One of ``REFUSAL_CODES``.
        detail: The whole reason, for the operator; it never travels.
        verify_code: OpenSSL's X509_V_ERR number if a chain did not verify, else 0.
        verify_message: OpenSSL's words for it, else empty.
        hint: What to do about it, or empty.
    """

    def __init__(
        self, code: str, detail: str, *, verify_code: int = 0, verify_message: str = "", hint: str = ""
    ) -> None:
        self.code = code
        self.detail = detail
        self.verify_code = verify_code
        self.verify_message = verify_message
        self.hint = hint
        super().__init__(f"{code}: {detail}\n  hint: {hint}" if hint else f"{code}: {detail}")


def refusal_of(error: ssl.SSLError, *, handshaking: bool) -> TlsRefused:
    """Return what an error of OpenSSL means for us; ``handshaking`` if the handshake had not finished."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsRefused(
            "certificate",
            f"the peer's certificate chain does not verify: {error.verify_message}",
            verify_code=error.verify_code,
            verify_message=error.verify_message,
            hint=_VERIFY_HINTS.get(error.verify_code, ""),
        )
    reason = error.reason or ""
    if "_ALERT_" in reason:
        name = reason.partition("_ALERT_")[2]
        meaning, hint = _ALERTS.get(name, (f"the peer sent the alert {name.lower().replace('_', ' ')}", ""))
        return TlsRefused("alert", meaning, hint=hint)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return TlsRefused("certificate", "the peer sent no certificate")
    text = reason.lower().replace("_", " ") or "unspecified failure"
    return TlsRefused("handshake" if handshaking else "record", f"TLS failed: {text}")
