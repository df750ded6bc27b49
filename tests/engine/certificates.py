"""Certificates for tests, as the PEM texts that settings hold."""

from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
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
