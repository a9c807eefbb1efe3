"""Directories for both sides of a connection in one temporary place: identities, policies, contracts, audit logs."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from caprpc.interface import interface_closure
from caprpc.pki.certificates import Validity
from caprpc.policy import contracts_to_toml
from caprpc.testing.pki import ThrowawayLeaf, ThrowawayPki


class Side:
    """The directories of one side, as ``Server``, ``Client`` and ``connect`` take them."""

    def __init__(self, root: Path) -> None:
        self.identity = root / "identity"
        self.policies = root / "policies"
        self.audit = root / "audit"
        self.principal = ""

    @property
    def directories(self) -> dict[str, Path]:
        """Keyword arguments for ``Server``, ``Client`` and ``connect``."""
        return {"identity": self.identity, "policies": self.policies}


class Deployment:
    """A throw-away CA for one trust domain, and sides made under it.

    Policy texts may use ``@CA@`` for the fingerprint of the CA and ``@DOMAIN@`` for the trust domain.
    """

    def __init__(self, root: Path, *, trust_domain: str = "test.example") -> None:
        self.root = root
        self.trust_domain = trust_domain
        self.pki = ThrowawayPki()
        self.ca = self.pki.ca(trust_domain)
        self.trusted = [self.ca]
        self._leaves: dict[str, ThrowawayLeaf] = {}

    def side(
        self, name: str, policies: dict[str, str], interfaces: Iterable[Callable[..., Any]] = (), *, spiffe: str = ""
    ) -> Side:
        """Make the directories of one side.

        Args:
            name: Of the side; its principal is ``spiffe://<trust domain>/<name>`` unless ``spiffe`` is given.
            policies: Text of each policy by its name (without header: ``caprpc``, ``kind`` and ``name`` are added).
            interfaces: Whose contracts are recorded.
            spiffe: The principal.
        """
        side = Side(self.root / name)
        side.policies.mkdir(parents=True, mode=0o700)
        side.principal = spiffe or f"spiffe://{self.trust_domain}/{name}"
        self.reissue(name, side)
        files = []
        for policy, text in policies.items():
            self.write_policy(side, policy, text)
            files.append(f'"{policy}.toml"')
        self._write(side.policies / "contracts.toml", contracts_to_toml(interface_closure(interfaces)))
        self.write_index(side, files, 1)
        return side

    def trust(self, other: "Deployment") -> None:
        """Have the sides made from now on accept peers of another deployment's CA, too."""
        self.trusted.append(other.ca)

    def reissue(self, name: str, side: Side, validity: Validity | None = None) -> None:
        """Write a fresh certificate for a side, valid for a day around now unless told otherwise."""
        leaf = self._leaves[name] = self.ca.leaf(side.principal, dns_names=("localhost",), validity=validity)
        self.pki.write_identity(side.identity, leaf, trust=self.trusted)

    def revoke(self, name: str, reader: Side) -> None:
        """Put the certificate of a side on the CA's list, and the new list into the directory of ``reader``."""
        self.ca.revoke(self._leaves[name].certificate)
        (reader.identity / "crl.pem").write_bytes(b"".join(ca.crl_pem() for ca in self.trusted))

    def rewrite(self, side: Side, policies: dict[str, str], version: int) -> None:
        """Replace the policies of a side under a new version."""
        for policy, text in policies.items():
            self.write_policy(side, policy, text)
        for path in side.policies.glob("*.toml"):
            if path.stem not in {"caprpc", "contracts", *policies}:
                path.unlink()
        self.write_index(side, [f'"{policy}.toml"' for policy in policies], version)

    def write_policy(self, side: Side, policy: str, text: str) -> None:
        """Write one policy file."""
        header = f'caprpc = 1\nkind = "policy"\nname = "{policy}"\nowner = "test@test.example"\nreason = "a test"\n'
        filled = text.replace("@CA@", self.ca.fingerprint).replace("@DOMAIN@", self.trust_domain)
        self._write(side.policies / f"{policy}.toml", header + filled)

    def write_index(self, side: Side, files: list[str], version: int) -> None:
        """Write ``caprpc.toml``."""
        self._write(
            side.policies / "caprpc.toml",
            f'caprpc = 1\nkind = "directory"\nversion = {version}\npolicies = [{", ".join(files)}]\n'
            'contracts = "contracts.toml"\naudit = "../audit"\n',
        )

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
