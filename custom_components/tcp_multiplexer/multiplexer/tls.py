"""TLS for either face: certificates and keys as text, contexts made of them.

Modbus/TCP Security (port 802) is Modbus/TCP within TLS with certificates on both
sides. The role identifiers that it puts into certificates are not looked at.

Making a context reads files, so it is to be called outside the event loop.
"""

from contextlib import contextmanager
from dataclasses import dataclass
import os
import ssl
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDSHAKE_SECONDS = 10
SHUTDOWN_SECONDS = 2


class TlsError(ValueError):
    """A certificate or key cannot be used; the text says which and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsUpstream:
    """How to know the device, and how to be known by it; all of it PEM."""

    verify: bool = True
    """False takes any certificate for the device's."""
    ca: str = ""
    """Who vouches for the device; empty: whom this system trusts."""
    server_name: str = ""
    """The name in the device's certificate, if it is not the host's."""
    certificate: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Make the context of a TLS client.

        Raises:
            TlsError: a certificate or key cannot be used.

        """
        try:
            context = ssl.create_default_context(cadata=self.ca or None)
        except (ssl.SSLError, TypeError, ValueError) as err:
            message = f"the CA certificate cannot be used: {err}"
            raise TlsError(message) from err
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            _load(context, self.certificate, self.key)
        return context


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsListener:
    """How to be known by clients, and how to know them; all of it PEM."""

    certificate: str
    key: str = ""
    client_ca: str = ""
    """Who vouches for clients; empty: clients need no certificate."""

    def context(self) -> ssl.SSLContext:
        """Make the context of a TLS server.

        Raises:
            TlsError: a certificate or key cannot be used.

        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load(context, self.certificate, self.key)
        if self.client_ca:
            try:
                context.load_verify_locations(cadata=self.client_ca)
            except (ssl.SSLError, TypeError, ValueError) as err:
                message = f"the CA certificate for clients cannot be used: {err}"
                raise TlsError(message) from err
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    def refuse_password() -> str:
        message = "the key is encrypted; give one without a password"
        raise TlsError(message)

    try:
        with _file(certificate + "\n" + key) as path:
            context.load_cert_chain(path, password=refuse_password)
    except ssl.SSLError as err:
        message = f"the certificate and its key cannot be used: {err}"
        raise TlsError(message) from err


@contextmanager
def _file(text: str) -> Iterator[str]:
    """Lend a file that only this user can read: the ssl module takes no text."""
    descriptor, path = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        yield path
    finally:
        os.unlink(path)  # noqa: PTH108 - mkstemp gives a string
