"""TLS on both sides: certificates and keys as PEM text, and the contexts made of them.

Modbus/TCP Security (port 802) is Modbus/TCP over TLS with certificates on both sides.
The roles that it defines as a certificate extension are not evaluated.

Making a context reads files, so do it outside the event loop.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
import os
import ssl
from typing import TYPE_CHECKING

from .typed import server_name_from

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDSHAKE_SECONDS = 10
"""How long a client's handshake may take."""
SHUTDOWN_SECONDS = 2
"""How long the closing of a TLS connection may take."""


class TlsError(ValueError):
    """A certificate or key cannot be used; the text says which and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsUpstream:
    """How to verify the device, and our own certificate for it; all of it PEM."""

    verify: bool = True
    """False accepts any certificate."""
    ca: str = ""
    """CA certificates to verify the device with; empty: those of this system."""
    server_name: str = ""
    """The name expected in the device's certificate; empty: the host."""
    certificate: str = ""
    """Our certificate, for a device that requires one."""
    key: str = ""
    """Its key; may stand in `certificate` instead."""

    def context(self) -> ssl.SSLContext:
        """Make the context of a TLS client.

        Raises:
            TlsError: a certificate, key or name cannot be used.

        """
        try:
            server_name_from(self.server_name)
        except ValueError as err:
            message = f"{self.server_name!r} cannot be a name in a certificate"
            raise TlsError(message) from err
        try:
            context = ssl.create_default_context(cadata=self.ca or None)
        except (ssl.SSLError, TypeError, ValueError) as err:
            message = f"the CA certificate cannot be used: {err}"
            raise TlsError(message) from err
        if self.ca:
            # Few who make a CA of their own say for what its key may be used, and the
            # strict check (RFC 5280, 4.2.1.3) would refuse all that it has signed.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            _load(context, self.certificate, self.key)
        return context


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsListener:
    """Our certificate for clients, and how to verify theirs; all of it PEM."""

    certificate: str
    key: str = ""
    """Its key; may stand in `certificate` instead."""
    client_ca: str = ""
    """CA certificates to verify clients with; empty: they need no certificate."""

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
        message = "the key is encrypted; use one without a password"
        raise TlsError(message)

    try:
        with _file(certificate + "\n" + key) as path:
            context.load_cert_chain(path, password=refuse_password)
    except ssl.SSLError as err:
        message = f"the certificate and its key cannot be used: {err}"
        raise TlsError(message) from err


@contextmanager
def _file(text: str) -> Iterator[str]:
    """Yield the path of a temporary file with `text`, readable by this user only.

    The ssl module loads certificates and keys from files alone.
    """
    import tempfile  # noqa: PLC0415 - 6 ms of a start, and few have a key

    descriptor, path = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        yield path
    finally:
        os.unlink(path)  # noqa: PTH108 - mkstemp returns a string
