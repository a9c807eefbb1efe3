"""A policy directory: ``caprpc.toml``, the contracts, and one file for each peer; all of it, or nothing."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

from caprpc.contract import InterfaceContract
from caprpc.errors import ConfigurationError, IdentityRefused
from caprpc.peer import PeerIdentity
from caprpc.policy.contracts import change, describe_member, parse_contracts
from caprpc.policy.document import Table, shown, text_fault
from caprpc.policy.expectations import Expectation, Known, parse_expectations
from caprpc.policy.invariants import Never, check_invariants, check_references, read_invariants, warn_unused
from caprpc.policy.model import Policy
from caprpc.policy.names import file_fault, trust_domain
from caprpc.policy.parse import parse_policy
from caprpc.policy.problems import Problems, suggest
from caprpc.policy.shared import NO_SHARED, SharedFacets
from caprpc.policy.source import decode, opened_directory, read_file
from caprpc.policy.text import TomlDocument, TomlProblem

INDEX_FILE: Final = "caprpc.toml"
NOTE_FILE: Final = "caprpc.note"
"""Signatures over all other files; not one of them, so that signing changes no digest."""
LANGUAGE_VERSION: Final = 1
MAX_VERSION: Final = 2**63 - 1
_FILE_KINDS: Final = {"policies": "no policy", "facets": "no file of facets", "tests": "no test file"}
_INDEX_KEYS: Final = (
    *("caprpc", "kind", "version", "policies", "contracts", "facets", "tests"),
    *("audit", "revoked", "never"),
)


@dataclass(frozen=True, slots=True)
class PolicySet:
    """All policies of one process, loaded and checked together; it cannot hold one that does not stand up.

    Attributes:
        directory: Where it was read from.
        version: Grows with every change.
        policies: In the order of ``caprpc.toml``.
        contracts: What the code declared when the policies were reviewed.
        audit_directory: Where the audit log goes.
        revoked_file: The list of who is out; None if the directory names none.
        anchors: For each trust anchor the trust domains that it may speak for.
        nevers: The invariants that were checked.
        expectations: What its test files expect of it; they grant nothing, and are run by ``caprpc policy test``.
        files: The digest of each file by its name.
        digest: ``sha256:`` and the digest over all files, names included.
        note: What stands in ``caprpc.note``, not verified; None if there is none.
        warnings: What is likely a mistake, and grants nothing wrong.
    """

    directory: Path
    version: int
    policies: tuple[Policy, ...]
    contracts: Mapping[str, InterfaceContract]
    audit_directory: Path
    revoked_file: Path | None
    anchors: Mapping[str, frozenset[str]]
    nevers: tuple[Never, ...]
    expectations: tuple[Expectation, ...]
    files: Mapping[str, str]
    digest: str
    note: bytes | None
    warnings: tuple[ConfigurationError, ...]
    _by_peer: Mapping[tuple[str, str], Policy]

    @classmethod
    def load(cls, directory: Path, *, now: datetime, previous: "PolicySet | None" = None) -> "PolicySet":
        """Read a directory, each file once, and return what it says.

        Args:
            directory: Its path; it must not be a link.
            now: The time, with its offset from UTC; policies that have expired give a warning.
            previous: What is in force; a changed directory must have a greater version.

        Raises:
            PolicyError: With every problem that was found; nothing of the directory is used.
        """
        problems = Problems()
        with opened_directory(directory, problems) as descriptor:
            loaded = None if descriptor is None else _Loader(descriptor, directory, problems).load(now)
        if loaded is not None and previous is not None:
            _check_version(loaded, previous, problems)
        problems.raise_if_any()
        if loaded is None:
            # Unreachable while every refusal notes a problem; kept so that a slip refuses instead of allowing.
            problems.add(str(directory), "the directory could not be loaded", code="unsafe-file")
            problems.raise_if_any()
            raise ConfigurationError("the directory could not be loaded", where=str(directory), hint="report it")
        return loaded

    def match(self, identity: PeerIdentity, now: datetime) -> Policy:
        """Return the one policy for a peer: its CA's key and its SPIFFE ID, byte for byte.

        Raises:
            IdentityRefused: ``no-policy`` if none names it; ``policy-not-yet``, ``policy-expired`` out of its time.
        """
        policy = self._by_peer.get((identity.anchor, identity.principal))
        if policy is None:
            raise IdentityRefused(
                "no-policy", f"no policy names {shown(identity.principal)} with the CA key {identity.anchor}"
            )
        if policy.not_before is not None and now < policy.not_before:
            raise IdentityRefused(
                "policy-not-yet", f"{policy.file}: policy {policy.name} begins at {policy.not_before.isoformat()}"
            )
        if policy.not_after is not None and not now < policy.not_after:
            raise IdentityRefused(
                "policy-expired", f"{policy.file}: policy {policy.name} ended at {policy.not_after.isoformat()}"
            )
        return policy

    def policy(self, name: str) -> Policy | None:
        """Return the policy of that name, if there is one."""
        return next((policy for policy in self.policies if policy.name == name), None)

    def verify_contracts(self, code: Mapping[str, InterfaceContract], *, complete: bool = True) -> None:
        """Check that everything granted is still what was reviewed.

        Args:
            code: The contracts of the interfaces that this process declares now.
            complete: Whether ``code`` holds all that are offered. Who dials learns of the others with a root.

        Raises:
            PolicyError: A granted member changed or vanished. A member that was added is no problem: nothing grants it.
        """
        problems = Problems()
        granted: dict[tuple[str, int, str], str] = {}
        served: set[str] = set()
        for policy in self.policies:
            lent = {lend.facet for lend in policy.lends.values()} - {root.facet for root in policy.roots.values()}
            for offer in policy.offers.values():
                if offer.name not in lent:
                    served.add(offer.interface)
                for grant in offer.grants.values():
                    granted.setdefault((offer.interface, grant.operation, grant.member), grant.rule)
            for accepted in policy.accepts.values():
                granted.setdefault((accepted.interface, accepted.operation, accepted.member), accepted.rule)
        hint = f"review it, and run: caprpc policy contracts MODULE --write {self.directory}/contracts.toml"
        for (interface, operation, member), rule in granted.items():
            recorded = self.contracts.get(interface)
            reviewed = None if recorded is None else recorded.members.get((operation, member))
            if reviewed is None or (interface not in code and not (complete and interface in served)):
                continue
            if interface in code:
                fault = change(reviewed, code[interface].members.get((operation, member)))
            else:
                fault = "is offered, and the code has no such interface, or no root and no restorer leads to it"
            if fault:
                problems.add(
                    rule,
                    f"{describe_member(operation, member)} of interface {interface} {fault}",
                    hint,
                    code="contract-drift",
                )
        problems.raise_if_any()


class _Loader:
    """Reads one opened directory."""

    def __init__(self, descriptor: int, directory: Path, problems: Problems) -> None:
        self._descriptor = descriptor
        self._directory = directory
        self._problems = problems
        self._digests: dict[str, str] = {}

    def load(self, now: datetime) -> PolicySet | None:
        index = self._open(INDEX_FILE, "directory")
        if index is None:
            return None
        version = index.integer("version", 1, MAX_VERSION)
        listed = index.words("policies", file_fault)
        contracts_file = index.word("contracts", file_fault)
        facets = index.words("facets", file_fault)
        tests = index.words("tests", file_fault)
        audit = index.word("audit", text_fault)
        revoked = index.word("revoked", text_fault)
        for key, example in (
            ("version", "version = 1"),
            ("policies", 'policies = ["org-b.toml"]'),
            ("contracts", 'contracts = "contracts.toml"'),
            ("audit", 'audit = "../audit"'),
        ):
            if not index.has(key):
                index.missing(key, example)
        never_tables = index.tables("never")
        index.finish(_INDEX_KEYS)
        self._check_listing(index, contracts_file, {"policies": listed, "facets": facets, "tests": tests})
        contracts = self._contracts(contracts_file)
        shared = self._shared(facets, contracts)
        policies = [policy for file in listed if (policy := self._policy(file, contracts, shared)) is not None]
        by_peer = self._by_peer(policies)
        expectations = self._expectations(tests, Known.of(policies, shared.offers, contracts or {}))
        nevers = read_invariants(never_tables, policies, contracts, shared.elsewhere)
        check_invariants(nevers, policies, self._problems)
        for policy in policies:
            warn_unused(policy, shared.elsewhere, self._problems)
            check_references(policy, contracts, self._problems)
            if policy.not_after is not None and not now < policy.not_after:
                self._problems.warn(
                    policy.file, f"policy {policy.name} ended at {policy.not_after.isoformat()}", code="expired"
                )
        shared.warn_unused(policies, self._problems)
        note = self._note()
        audit_directory = self._outside(index, "audit", audit)
        revoked_file = self._outside(index, "revoked", revoked)
        self._check_unchanged()
        if self._problems or version is None or contracts is None or audit_directory is None:
            return None
        return PolicySet(
            directory=self._directory,
            version=version,
            policies=tuple(policies),
            contracts=MappingProxyType(contracts),
            audit_directory=audit_directory,
            revoked_file=revoked_file,
            anchors=_anchors(policies),
            nevers=tuple(nevers),
            expectations=tuple(expectations),
            files=MappingProxyType(dict(self._digests)),
            digest=_digest(self._digests),
            note=note,
            warnings=self._problems.warnings,
            _by_peer=MappingProxyType(by_peer),
        )

    def _open(self, name: str, expected_kind: str) -> Table | None:
        """Return a file as a table whose ``caprpc`` and ``kind`` are as expected, or None."""
        content = read_file(self._descriptor, name, self._problems)
        text = None if content is None else decode(content, name, self._problems)
        if content is None or text is None:
            return None
        self._digests[name] = "sha256:" + sha256(content).hexdigest()
        try:
            document = TomlDocument(text)
        except TomlProblem as exc:
            self._problems.add(exc.where(name), exc.message, exc.hint, code="not-toml")
            return None
        table = Table.top(document, name, self._problems)
        version = table.integer("caprpc", 0, MAX_VERSION)
        if not table.has("caprpc"):
            table.missing("caprpc", f"caprpc = {LANGUAGE_VERSION}")
        elif version is not None and version != LANGUAGE_VERSION:
            text = f"language version {version}; this program reads {LANGUAGE_VERSION}"
            table.complain("caprpc", text, f"write: caprpc = {LANGUAGE_VERSION}", code="version")
        if not table.has("kind"):
            table.missing("kind", f'kind = "{expected_kind}"')
            return None
        kind = table.choice("kind", ("directory", "contracts", "policy", "facets", "tests"))
        if kind is not None and kind != expected_kind:
            table.complain(
                "kind",
                f"kind {kind!r} where {expected_kind!r} is expected",
                f"as {INDEX_FILE} lists it",
                code="wrong-kind",
            )
        # A file of another kind would only give a list of unknown keys.
        return table if kind == expected_kind else None

    def _check_listing(self, index: Table, contracts_file: str | None, listed: Mapping[str, Mapping[str, str]]) -> None:
        expected = {INDEX_FILE} if contracts_file is None else {INDEX_FILE, contracts_file}
        for key, files in listed.items():
            for file in sorted(expected & set(files)):
                self._problems.add(
                    files[file], f"{file!r} is {_FILE_KINDS[key]}", f"take it out of {key!r}", code="unlisted-file"
                )
            expected |= set(files)
        expected.add(NOTE_FILE)
        for entry in sorted(os.listdir(self._descriptor)):
            if entry not in expected:
                hint = suggest(entry, expected) if entry.endswith(".toml") else ""
                self._problems.add(
                    index.place("policies"),
                    f"{shown(entry)} lies in the directory and is not listed",
                    hint if hint.startswith("did") else "list it in 'policies', or move it elsewhere",
                    code="unlisted-file",
                )

    def _check_unchanged(self) -> None:
        """Note each file that is not what was read any more: what is being written is not loaded by halves."""
        for name, digest in self._digests.items():
            content = read_file(self._descriptor, name, self._problems)
            if content is not None and "sha256:" + sha256(content).hexdigest() != digest:
                self._problems.add(
                    name,
                    "the file was changed while the directory was read",
                    f"load again when all is written; write {INDEX_FILE} last",
                    code="unsafe-file",
                )

    def _note(self) -> bytes | None:
        if NOTE_FILE not in os.listdir(self._descriptor):
            return None
        return read_file(self._descriptor, NOTE_FILE, self._problems)

    def _contracts(self, file: str | None) -> dict[str, InterfaceContract] | None:
        table = None if file is None else self._open(file, "contracts")
        return None if table is None else parse_contracts(table)

    def _shared(self, files: Mapping[str, str], contracts: Mapping[str, InterfaceContract] | None) -> SharedFacets:
        opened = [(file, self._open(file, "facets")) for file in files if file not in self._digests]
        tables = [(file, self._digests[file], table) for file, table in opened if table is not None]
        return SharedFacets.read(tables, contracts) if tables else NO_SHARED

    def _policy(
        self, file: str, contracts: Mapping[str, InterfaceContract] | None, shared: SharedFacets
    ) -> Policy | None:
        if file in self._digests:
            return None
        table = self._open(file, "policy")
        return None if table is None else parse_policy(table, file, self._digests[file], contracts, shared)

    def _expectations(self, files: Iterable[str], known: Known) -> list[Expectation]:
        # A policy with a mistake is not known: what is said of it is looked at when it is mended.
        names = None if self._problems else known
        tables = [table for file in files if file not in self._digests and (table := self._open(file, "tests"))]
        return [one for table in tables for one in parse_expectations(table, names)]

    def _by_peer(self, policies: list[Policy]) -> dict[tuple[str, str], Policy]:
        """Return the policy of each peer; two for one certificate, or two of one name, are problems."""
        by_peer: dict[tuple[str, str], Policy] = {}
        by_name: dict[str, Policy] = {}
        for policy in policies:
            other = by_name.setdefault(policy.name, policy)
            if other is not policy:
                self._problems.add(
                    f"{policy.file}:1",
                    f"the name {policy.name!r} is taken by {other.file}",
                    "names tell policies apart",
                    code="duplicate",
                )
            clashes: dict[str, list[str]] = {}
            for pair in sorted((anchor, spiffe) for anchor in policy.anchors for spiffe in policy.principals):
                holder = by_peer.setdefault(pair, policy)
                if holder is not policy:
                    clashes.setdefault(holder.peer_rule, []).append(pair[1])
            for rule, principals in clashes.items():
                self._problems.add(
                    policy.peer_rule,
                    f"one certificate ({principals[0]}) would match this policy and the one at {rule}",
                    "each pair of CA and SPIFFE ID belongs to exactly one policy",
                    code="ambiguous-peer",
                )
        return by_peer

    def _outside(self, index: Table, key: str, value: str | None) -> Path | None:
        """Return the path that a key names; what changes while the service runs cannot lie among the policies."""
        if value is None:
            return None
        path = Path(os.path.normpath(self._directory.absolute() / value))
        real, inside = path, self._directory.absolute()
        with suppress(OSError):
            real, inside = path.resolve(), inside.resolve()
        if real == inside or inside in real.parents:
            what = "the audit log" if key == "audit" else "the list of the revoked"
            example = "../audit" if key == "audit" else "../state/REVOKED"
            index.complain(
                key, f"{what} cannot lie in the policy directory", f'write: {key} = "{example}"', code="misplaced-path"
            )
        return real if key == "audit" else path


def _check_version(loaded: PolicySet, previous: PolicySet, problems: Problems) -> None:
    if loaded.version < previous.version:
        problems.add(
            INDEX_FILE,
            f"version {loaded.version} is older than version {previous.version}, which is in force",
            "to go back, restore the old text under a new, greater version",
            code="version",
        )
    elif loaded.version == previous.version and loaded.digest != previous.digest:
        problems.add(
            INDEX_FILE,
            f"the files have changed and the version is still {loaded.version}",
            f"write: version = {loaded.version + 1}",
            code="version",
        )


def _anchors(policies: list[Policy]) -> Mapping[str, frozenset[str]]:
    domains: dict[str, set[str]] = {}
    for policy in policies:
        for anchor in policy.anchors:
            domains.setdefault(anchor, set()).update(trust_domain(principal) for principal in policy.principals)
    return MappingProxyType({anchor: frozenset(names) for anchor, names in domains.items()})


def _digest(digests: Mapping[str, str]) -> str:
    lines = "".join(f"{digest} {name}\n" for name, digest in sorted(digests.items()))
    return "sha256:" + sha256(lines.encode()).hexdigest()
