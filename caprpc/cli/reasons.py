"""What each reason in the audit log means to an operator, and what to do about it."""

from collections.abc import Mapping
from typing import Final

_NEW_CERTIFICATE: Final = "Have the peer's certificate issued anew; caprpc pki issue makes one that fits."
_FACET_RATE: Final = "The peer calls members of this facet, all taken together, more often than its policy allows."

ADVICE: Final[Mapping[str, tuple[str, str]]] = {
    "not-granted": (
        "The peer's policy does not grant this, or the interface has no such member; the peer cannot tell which.",
        "If the peer shall have it, name the member in the offer table of the rule above, and reload.",
    ),
    "closed": (
        "The peer has no policy any more: a reload took its grants away.",
        "Nothing, if that was meant; else put its policy back.",
    ),
    "argument": (
        "An argument is not of the declared type, or outside of what the policy allows; the detail says which.",
        "A wrong type is the caller's to mend. If the value shall be allowed, widen the args rule above, and reload.",
    ),
    "rule-error": ("An argument rule could not be applied to the value that came.", "Mend the args rule above."),
    "facet_per_second": (_FACET_RATE, "Raise per_second under limit of the facet in the rule above, or wait."),
    "facet_per_hour": (_FACET_RATE, "Raise per_hour under limit of the facet in the rule above, or wait."),
    "facet_per_day": (_FACET_RATE, "Raise per_day under limit of the facet in the rule above, or wait."),
    "facet_in_flight": (
        "The peer has too many calls running through this facet, to all of its members together.",
        "Raise in_flight under limit of the facet in the rule above, or wait.",
    ),
    "per_second": ("The peer calls more often than its policy allows.", "Raise per_second in the rule above, or wait."),
    "per_hour": ("The peer calls more often than its policy allows.", "Raise per_hour in the rule above, or wait."),
    "per_day": ("The peer calls more often than its policy allows.", "Raise per_day in the rule above, or wait."),
    "deadline": (
        "The time that the caller had given its call was over before it ended.",
        "Nothing; if it happens often, look why the method takes so long.",
    ),
    "broken": (
        "The call was made on the answer of another call, which has failed or has returned no reference.",
        "Look at that call: it is on record, too.",
    ),
    "callbacks": (
        "One call has caused as many calls as it may: of ours while we ran it, or of the peer on what was lent to it.",
        "Raise callbacks in the rule above, or under [limits] of its policy, if so many are meant.",
    ),
    "message_references": (
        "The message held more references than it may.",
        "Have the peer use an iterator, or raise message_references under [limits] of its policy.",
    ),
    "pipeline_depth": (
        "The call would have waited for more answers in a row than the policy allows.",
        "Raise pipeline_depth under [limits] in its policy, if it is below the default.",
    ),
    "principal_in_flight": (
        "All connections of the peer together have too many calls running.",
        "Raise principal_in_flight under [limits] of its policy, or wait.",
    ),
    "principal_callbacks": (
        "All connections of the peer together have too many calls running within calls of ours.",
        "Raise principal_callbacks under [limits] of its policy, or wait.",
    ),
    "principal_pipelined": (
        "On all connections of the peer together too many calls wait for answers.",
        "Raise principal_pipelined under [limits] of its policy, or wait.",
    ),
    "principal_argument_bytes": (
        "The arguments of the calls that all connections of the peer have queued or running take too much memory.",
        "Raise principal_argument_bytes under [limits] of its policy, or wait.",
    ),
    "argument_bytes": (
        "The arguments of the calls that all peers have queued or running take as much memory as this process may use.",
        "Raise argument_bytes of ServerLimits (caprpc serve --argument-bytes) if there is memory, or wait.",
    ),
    "workers": (
        "Calls of others held all threads for methods that block, longer than a call waits for one; it has not run.",
        "Raise workers of ServerLimits (caprpc serve --workers), serve from more processes, lower in_flight of whoever "
        "holds the threads, or have calls wait longer (--worker-wait-s). Methods as async def need no thread.",
    ),
    "in_flight": ("The peer has too many such calls running.", "Raise in_flight in the rule above, or wait."),
    "sturdy-unknown": (
        "The peer has presented a sturdy reference that was never granted, or under another name.",
        "A typing error, an old copy of the store, or a guess; many of them are an attack by this peer.",
    ),
    "sturdy-holder": (
        "The peer has presented a sturdy reference that was granted to somebody else.",
        "Find out how it came by it: it has leaked. Revoke the grant: caprpc grants revoke.",
    ),
    "sturdy-bearer": (
        "The sturdy reference is sealed to nobody, and this peer's policy lets it restore none such.",
        "If it shall, add bearer = true to the [restore] table of the rule above, and reload.",
    ),
    "sturdy-revoked": (
        "The grant of the sturdy reference was revoked.",
        "Nothing, if that was meant; else grant anew.",
    ),
    "sturdy-expired": ("The grant of the sturdy reference has expired.", "Grant anew, if the peer shall go on."),
    "guesses": (
        "The peer has presented too many sturdy references in vain; for a while none of its own is looked at.",
        "See the records before this one: a peer that guesses is an attacker, or holds an old list.",
    ),
    "no-policy": (
        "The peer proved who it is, and no policy is for it.",
        "Add a policy whose [peer] names this spiffe ID and this CA, and list it in caprpc.toml.",
    ),
    "anchor": (
        "The peer's certificate comes from a CA that no policy names.",
        "Add the CA's key to ca = [...] under [peer], if you trust it to speak for that peer.",
    ),
    "trust-domain": (
        "The CA may speak for other trust domains than the one in the certificate.",
        "Let the right CA issue the certificate; this may be an attempt to speak for someone else.",
    ),
    "expired": ("A certificate, or the policy, has expired.", "Renew it; running peers take it up on reload."),
    "revoked": ("A certificate in the chain is on the revocation list.", _NEW_CERTIFICATE),
    "policy-not-yet": ("The policy of the peer does not hold yet.", "Wait for its not_before, or have it changed."),
    "revoked-list": (
        "The list of the revoked names the peer, its key or its policy; or it cannot be read: then nobody is let in.",
        "Take the line out if it is wrong; mend the file if the detail says that it cannot be read.",
    ),
    "crl": (
        "The revocation list is missing or has expired; without it nobody is let in.",
        "Publish a fresh list: caprpc pki revoke writes one.",
    ),
    "certificate": ("The peer showed no certificate that our TLS accepts; see the error.", _NEW_CERTIFICATE),
    "eku": ("The certificate was issued for another role.", _NEW_CERTIFICATE),
    "hostname": ("The certificate does not name the host that was dialled.", _NEW_CERTIFICATE),
    "connections": (
        "The peer has as many connections as it may have.",
        "Raise connections under [limits] in its policy, or have it close some.",
    ),
    "audit": (
        "The audit log takes no records, so nobody is served.",
        "Make room on the disk; then peers may try again.",
    ),
    "alpn": ("The peer does not speak caprpc/1; it may be a browser or a scanner.", "Nothing, if it is not yours."),
    "foreign": ("The peer does not speak TLS; it may be a scanner.", "Nothing, if it is not yours."),
    "alert": ("The peer refused us, and sent a TLS alert.", "Ask the peer's operator, who has the reason in a log."),
    "timeout": ("The handshake was not finished in time.", "If it is a real peer: look at the network, or the load."),
}
"""For each reason: what it means, what to do."""

ENDINGS: Final[Mapping[str, tuple[str, str]]] = {
    "closed": ("The connection was closed in order; the detail says by whom.", "Nothing."),
    "drain": ("The connection ended because one side was stopping; what ran could end.", "Connect again."),
    "lost": (
        "The connection broke, without a word of the peer: its process has ended, or the network has.",
        "Ask whether the peer's process was stopped or killed; else look at the network between the two.",
    ),
    "protocol-error": (
        "Something came that the protocol forbids; the detail says what, and who found it.",
        "Compare the versions of both sides. If they fit, whoever sent it has a bug, or attacks.",
    ),
    "version": ("The two sides have no version of the protocol in common.", "Update the older side."),
    "refused": (
        "One side does not accept the certificate, the identity or the policy of the other; the detail says whose.",
        "If the peer ended it, ask its operator; else look for the record of kind reject near this one.",
    ),
    "limit": (
        "A limit of the connection was reached; the detail names it.",
        "Raise it under [limits] of the peer's policy if what the peer does is meant.",
    ),
    "idle": (
        "The peer gave no sign of life for as long as a connection may be without one.",
        "Look whether its process hangs; else look at the network between the two.",
    ),
    "expired": (
        "A certificate or the policy expired while the connection lasted.",
        "Renew it; the peer connects again.",
    ),
    "revoked": (
        "What let the peer in was taken away: its certificate or name was revoked, its policy is gone, or all that it "
        "held was revoked; the detail says which.",
        "Nothing, if that was meant; else give it back and have the peer connect again.",
    ),
    "internal": (
        "The side that ended the connection has failed; the detail says how.",
        "If it is this side: its log has a traceback, and if the audit log takes no records, make room on the disk.",
    ),
}
"""For each code with which a connection ends: what it means, what to do."""

_ROOT: Final = (
    "The peer asked for a root that its policy does not give it, or that does not exist; the peer cannot tell which.",
    "If the peer shall have it, name it under [roots] with a facet, and reload.",
)
_TOO_LARGE: Final = (
    "The call was permitted and its result was more than the peer accepts in one message; the peer was told limit.",
    "Return less, or an iterator or byte stream; or the peer raises max_frame_bytes under [limits] of its own policy.",
)
_UNKNOWN: Final = ("The record has the whole reason.", "See docs/reference/audit.md and docs/reference/errors.md.")
_FAILED: Final = (
    "The call was permitted and its method failed here; the peer was told internal error and this number.",
    "It is a fault of the service, or of what the peer has lent for the call: the service's log has the traceback of "
    "the first that failed alike, and of those behind it how many.",
)


_GRANT: Final = (
    "Something was granted for longer than a connection, or restored from such a grant.",
    "Nothing, if that was meant; else end it: caprpc grants revoke STORE and the id.",
)
_REVOKED: Final = ("A grant was ended, and every reference that was restored from it.", "Nothing.")


def advice(kind: str, reason: str, operation: str = "", error: str = "") -> tuple[str, str]:
    """Return what a record means, and what to do."""
    if kind == "close":
        return ENDINGS.get(reason, _UNKNOWN)
    if kind == "outcome":
        return _TOO_LARGE if error == "LimitExceeded" else _FAILED
    if operation == "root" and reason == "not-granted":
        return _ROOT
    if not reason and kind in ("grant", "revoke"):
        return _GRANT if kind == "grant" else _REVOKED
    return ADVICE.get(reason, _UNKNOWN)
