"""Certificates for tests, as the PEM texts that settings hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
import trustme


class Pair(NamedTuple):
    """A certificate and its key, both PEM."""

    certificate: str
    key: str


class Authority:
    """A certificate authority."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    @property
    def certificate(self) -> str:
        """Its own certificate, PEM."""
        return self._ca.cert_pem.bytes().decode()

    def issue(self, name: str) -> Pair:
        """Return a certificate for a host name or an IP address, and its key."""
        leaf = self._ca.issue_cert(name)
        return Pair(
            leaf.cert_chain_pems[0].bytes().decode(),
            leaf.private_key_pem.bytes().decode(),
        )


class PlainAuthority:
    """One as `openssl req -x509` makes it: it does not say what its key is for."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Own CA")])
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self._authority = (
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        )
        self.certificate = self._sign(
            self._name,
            self._key,
            x509.BasicConstraints(ca=True, path_length=None),
            identifier,
        )
        """Its own certificate, PEM."""

    def issue(self, address: str) -> Pair:
        """Return a certificate for an IP address, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Device")]),
            key,
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]),
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Pair(certificate, pem.decode())

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *extensions: x509.ExtensionType,
    ) -> str:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=name,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(days=1),
            not_valid_after=now + timedelta(days=1),
        )
        for extension in (*extensions, self._authority):
            builder = builder.add_extension(extension, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()


def locked(
    key: str,
    layout: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
) -> str:
    """Return a key with a password, in PKCS #8 or as OpenSSL once wrote it."""
    return (
        serialization.load_pem_private_key(key.encode(), None)
        .private_bytes(
            serialization.Encoding.PEM,
            layout,
            serialization.BestAvailableEncryption(b"secret"),
        )
        .decode()
    )
