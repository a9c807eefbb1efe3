"""``caprpc pki``: a private CA for development and small deployments."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from caprpc.cli.exits import EX_OK
from caprpc.errors import ConfigurationError
from caprpc.pki.authority import CA_CERTIFICATE, CA_LIST, PrivateCa
from caprpc.pki.certificates import CA_DAYS, CRL_DAYS, KEY_KINDS, LEAF_DAYS, ROLES
from caprpc.pki.describe import CertificateFacts, ListFacts, describe
from caprpc.pki.index import Issued
from caprpc.pki.trust import trust as add_trust

_MAX_DAYS: Final = 36_500
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FORMATS: Final = ("text", "json")

_EPILOG: Final = """\b
Examples:
  caprpc pki init pki --trust-domain acme.example
  caprpc pki issue pki server --role server --dns rpc.acme.example
  caprpc pki issue pki alice --role client
  caprpc pki show pki                          the fingerprint to write into a policy
  caprpc pki trust pki/server org-b-ca.pem org-b-crl.pem
  caprpc pki revoke pki alice
"""


def _days(default: int, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--days", type=click.IntRange(1, _MAX_DAYS), default=default, show_default=True, help=f"How long {what} lasts."
    )


def _format_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--format", "form", type=click.Choice(_FORMATS), default="text", show_default=True, help="How to print."
    )(command)


def _directory_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("directory", metavar="DIR", type=_DIRECTORY)(command)


@click.group(epilog=_EPILOG)
def pki() -> None:
    """A private CA for development and small deployments.

    It writes identity directories (cert.pem, key.pem, anchors.pem, crl.pem), which servers and clients take as they
    are.
    """


@pki.command(
    epilog="""\b
Example:
  caprpc pki init pki --trust-domain acme.example
"""
)
@_directory_argument
@click.option("--trust-domain", required=True, help="The SPIFFE trust domain it speaks for, such as acme.example.")
@click.option(
    "--key", "key_kind", type=click.Choice(KEY_KINDS), default=KEY_KINDS[0], show_default=True, help="Kind of all keys."
)
@_days(CA_DAYS, "the CA")
@click.option(
    "--name-constraint/--no-name-constraint",
    "constrained",
    default=True,
    show_default=True,
    help="Write the trust domain into the CA, so that it can speak for no other.",
)
def init(directory: Path, trust_domain: str, key_kind: str, days: int, constrained: bool) -> int:
    """Make a CA in a new directory.

    DIR gets ca.pem and crl.pem, which are for partners too, ca.key, which is for nobody, and index.json.
    """
    authority = PrivateCa.create(
        directory, trust_domain=trust_domain, key_kind=key_kind, days=days, constrained=constrained
    )
    click.echo(f"Made a CA for {trust_domain} in {directory}.")
    click.echo(f'In policies:     ca = ["{authority.fingerprint}"]')
    click.echo(f"For partners:    {directory / CA_CERTIFICATE}, {directory / CA_LIST}")
    click.echo(f"Renew its revocation list before {CRL_DAYS} days are over: caprpc pki crl {directory}")
    click.echo(f"Next:            caprpc pki issue {directory} server --role server")
    return EX_OK


@pki.command(
    epilog="""\b
Examples:
  caprpc pki issue pki server --role server --dns rpc.acme.example
  caprpc pki issue pki feed --role client --spiffe-path /treasury/feed --out /etc/feed/identity
"""
)
@_directory_argument
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="Whether it dials, listens, or does both.")
@click.option("--spiffe-path", help="The path of its SPIFFE ID.  [default: /NAME]")
@click.option("--spiffe", help="Its whole SPIFFE ID, instead of --spiffe-path; in the CA's trust domain.")
@click.option("--dns", "dns_names", multiple=True, help="A name under which a server is dialled; may be repeated.")
@click.option("--ip", "addresses", multiple=True, help="An address; if any is given, no other is accepted.")
@_days(LEAF_DAYS, "the certificate")
@click.option("--out", type=_DIRECTORY, help="The identity directory to make.  [default: DIR/NAME]")
def issue(
    directory: Path,
    name: str,
    role: str,
    spiffe_path: str | None,
    spiffe: str | None,
    dns_names: tuple[str, ...],
    addresses: tuple[str, ...],
    days: int,
    out: Path | None,
) -> int:
    """Issue a certificate and write its identity directory.

    The directory trusts this CA; `caprpc pki trust` adds a partner's.
    """
    authority = PrivateCa.open(directory)
    issued, where = authority.issue(
        name,
        role=role,
        spiffe_path=_path(authority, spiffe, spiffe_path),
        dns_names=dns_names,
        addresses=addresses,
        days=days,
        out=out,
    )
    _print_issued(issued, where)
    return EX_OK


@pki.command(
    epilog="""\b
Example:
  caprpc pki renew pki alice
"""
)
@_directory_argument
@click.argument("name")
@_days(LEAF_DAYS, "the certificate")
@click.option("--out", type=_DIRECTORY, help="The identity directory.  [default: DIR/NAME]")
def renew(directory: Path, name: str, days: int, out: Path | None) -> int:
    """Issue NAME again, with a fresh key, into the same identity directory.

    Running servers take it up without a restart; the old certificate stays valid until it expires or is revoked.
    """
    issued, where = PrivateCa.open(directory).renew(name, days=days, out=out)
    _print_issued(issued, where)
    return EX_OK


@pki.command(
    epilog="""\b
Example:
  caprpc pki revoke pki alice
"""
)
@_directory_argument
@click.argument("which", metavar="NAME|SERIAL")
@_days(CRL_DAYS, "the new revocation list")
def revoke(directory: Path, which: str, days: int) -> int:
    """Revoke every certificate of a name, or one by its serial number, and renew the revocation list."""
    authority = PrivateCa.open(directory)
    for one in authority.revoke(which, days=days):
        click.echo(f"Revoked {one.name} ({one.spiffe_id}), serial {one.serial}.")
    _print_list(directory, authority.identity_directories())
    return EX_OK


@pki.command(
    epilog="""\b
Example:
  caprpc pki crl pki
"""
)
@_directory_argument
@_days(CRL_DAYS, "the list")
def crl(directory: Path, days: int) -> int:
    """Renew the revocation list; without a current one every connection is refused."""
    _print_list(directory, PrivateCa.open(directory).renew_list(days=days))
    return EX_OK


@pki.command(
    epilog="""\b
Example:
  caprpc pki trust pki/server org-b-ca.pem org-b-crl.pem
"""
)
@click.argument("identity", metavar="IDENTITY_DIR", type=_DIRECTORY)
@click.argument("authority", metavar="CA.pem", type=_FILE)
@click.argument("revocation", metavar="CRL.pem", type=_FILE)
def trust(identity: Path, authority: Path, revocation: Path) -> int:
    """Let an identity accept peers of a partner's CA; run it again to renew the partner's revocation list.

    CA.pem holds the partner's self-signed CA, and its intermediates if it has any; CRL.pem a current list of each.

    Trust proves who a peer is. What it may do is up to the policies, which must name the CA by its fingerprint.
    """
    fingerprint = add_trust(identity, authority.read_bytes(), revocation.read_bytes())
    click.echo(f"{identity} now accepts certificates of {authority}.")
    click.echo(f'In policies:     ca = ["{fingerprint}"]')
    click.echo("Compare the fingerprint with the partner's over another channel (telephone) before you use it.")
    return EX_OK


@pki.command(
    "list",
    epilog="""\b
Example:
  caprpc pki list pki
""",
)
@_directory_argument
@_format_option
def list_(directory: Path, form: str) -> int:
    """List what the CA has issued."""
    issued = PrivateCa.open(directory).index.issued
    now = datetime.now(UTC)
    if form == "json":
        click.echo(json.dumps([asdict(one) | {"state": _state(one, now)} for one in issued], indent=2))
        return EX_OK
    rows = [(one.name, one.role, _state(one, now), one.not_after[:10], one.spiffe_id, one.serial) for one in issued]
    _print_table([("NAME", "ROLE", "STATE", "UNTIL", "SPIFFE ID", "SERIAL"), *rows])
    return EX_OK


@pki.command(
    epilog="""\b
Examples:
  caprpc pki show pki                  the CA: its fingerprint for policies
  caprpc pki show pki/alice            an identity directory
  caprpc pki show org-b-ca.pem         one file
"""
)
@click.argument("path", metavar="FILE|DIR", type=click.Path(exists=True, path_type=Path))
@_format_option
def show(path: Path, form: str) -> int:
    """Show what certificates and revocation lists say, without verifying them."""
    facts = describe(path, datetime.now(UTC))
    if form == "json":
        kinds = {CertificateFacts: "certificate", ListFacts: "revocation-list"}
        click.echo(json.dumps([{"kind": kinds[type(fact)]} | asdict(fact) for fact in facts], indent=2))
        return EX_OK
    for fact in facts:
        _print_certificate(fact) if isinstance(fact, CertificateFacts) else _print_list_facts(fact)
    return EX_OK


def _path(authority: PrivateCa, spiffe: str | None, spiffe_path: str | None) -> str:
    """Return the SPIFFE path that the options mean; empty for the default."""
    if spiffe is None:
        return spiffe_path or ""
    if spiffe_path is not None:
        raise click.UsageError("--spiffe and --spiffe-path exclude each other")
    prefix = f"spiffe://{authority.index.trust_domain}"
    if not spiffe.startswith(prefix + "/"):
        raise ConfigurationError(
            f"this CA speaks for {prefix}, not for {spiffe!r}", where="--spiffe", hint="make another CA for it"
        )
    return spiffe.removeprefix(prefix)


def _state(one: Issued, now: datetime) -> str:
    if one.revoked:
        return "revoked"
    return "expired" if now >= datetime.fromisoformat(one.not_after) else "valid"


def _print_issued(issued: Issued, where: Path) -> None:
    click.echo(f"Issued {issued.spiffe_id} ({issued.role}), valid until {issued.not_after[:10]}.")
    click.echo(f"Identity:        {where}  (key.pem in it is the secret)")


def _print_list(directory: Path, identities: list[Path]) -> None:
    click.echo(f"Wrote {directory / CA_LIST}" + (" and, with it, crl.pem of:" if identities else "."))
    for identity in identities:
        click.echo(f"  {identity}")
    click.echo("Identity directories elsewhere, and partners, need it too; a partner runs:")
    click.echo(f"  caprpc pki trust IDENTITY_DIR {CA_CERTIFICATE} {CA_LIST}")


def _print_certificate(fact: CertificateFacts) -> None:
    kind = "CA certificate" if fact.is_authority else "Certificate"
    click.echo(f"{kind} in {fact.file}")
    _print_rows(
        [
            ("principal", ", ".join(fact.principals)),
            ("subject", fact.subject),
            ("issuer", fact.issuer if fact.issuer != fact.subject else "itself"),
            ("usages", ", ".join(fact.usages)),
            ("DNS", ", ".join(fact.dns_names)),
            ("addresses", ", ".join(fact.addresses)),
            ("key", fact.key),
            ("in policies" if fact.is_authority else "key digest", _pasted(fact)),
            ("serial", fact.serial),
            ("valid", f"{fact.not_before[:19]}Z to {fact.not_after[:19]}Z" + (" (EXPIRED)" if fact.expired else "")),
        ]
    )


def _pasted(fact: CertificateFacts) -> str:
    return f'ca = ["{fact.fingerprint}"]' if fact.is_authority else fact.fingerprint


def _print_list_facts(fact: ListFacts) -> None:
    click.echo(f"Revocation list in {fact.file}")
    _print_rows(
        [
            ("issuer", fact.issuer),
            ("revoked", ", ".join(fact.revoked) or "none"),
            ("valid", f"{fact.last_update[:19]}Z to {fact.next_update[:19]}Z" + (" (EXPIRED)" if fact.expired else "")),
        ]
    )


def _print_rows(rows: list[tuple[str, str]]) -> None:
    for name, value in rows:
        if value:
            click.echo(f"  {name:<12} {value}")


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
