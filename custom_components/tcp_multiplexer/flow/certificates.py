"""Certificates and keys that users upload: read, checked, kept as text.

An uploaded file can be read only once, and a form may have to be submitted again
because of another field. So a dialog keeps what it has read until it ends. What an
entry already stores is never shown; it stays unless something new is uploaded.

Each common mistake has an error of its own: a file in another format, a key with a
password, a key of another certificate. The TLS library has the last word, because it is
what will load them. All of this runs in an executor, and none of it is logged.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from homeassistant.components.file_upload import process_uploaded_file
from homeassistant.core import HomeAssistant

from ..multiplexer import TlsError, TlsListener, TlsUpstream
from .fields import (
    CLIENT_TLS,
    TLS,
    TLS_CA,
    TLS_CERTIFICATE,
    TLS_CLIENT_CA,
    TLS_KEY,
    TLS_SERVER_NAME,
    FieldError,
)

_FILES: Final = (TLS_CA, TLS_CERTIFICATE, TLS_KEY, TLS_CLIENT_CA)
_KEY: Final = "PRIVATE KEY-----"
_MOST_BYTES: Final = 1 << 20
"""More is not read: no certificate is that long."""


class Uploads:
    """The files that were uploaded in one dialog."""

    def __init__(self, hass: HomeAssistant) -> None:
        self._hass = hass
        self._read: dict[str, str] = {}

    async def async_upstream(
        self, typed: Mapping[str, Any], stored: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        """Return what an entry stores about TLS to the device; None: no TLS.

        Raises:
            FieldError: a file cannot be used, or one is missing.

        """
        if (way := typed[TLS]) == "off":
            return None
        files = await self._async_files(typed, stored)
        if way != "own_ca":
            files[TLS_CA] = ""
        elif not files[TLS_CA]:
            raise FieldError(TLS_CA, "tls_ca_missing")
        tls = TlsUpstream(
            verify=way != "unverified",
            ca=files[TLS_CA],
            server_name=typed.get(TLS_SERVER_NAME, "").strip(),
            certificate=files[TLS_CERTIFICATE],
            key=files[TLS_KEY],
        )
        await self._async_check(tls, TLS)
        return asdict(tls)

    async def async_listener(
        self, typed: Mapping[str, Any], stored: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        """Return what an entry stores about TLS to clients; None: no TLS.

        Raises:
            FieldError: a file cannot be used, or one is missing.

        """
        if (way := typed[CLIENT_TLS]) == "off":
            return None
        files = await self._async_files(typed, stored)
        if not (files[TLS_CERTIFICATE] or files[TLS_KEY]):
            raise FieldError(TLS_CERTIFICATE, "tls_files_missing")
        if not files[TLS_CERTIFICATE]:
            raise FieldError(TLS_CERTIFICATE, "tls_certificate_missing")
        if way != "client_certificates":
            files[TLS_CLIENT_CA] = ""
        elif not files[TLS_CLIENT_CA]:
            raise FieldError(TLS_CLIENT_CA, "tls_client_ca_missing")
        tls = TlsListener(
            certificate=files[TLS_CERTIFICATE],
            key=files[TLS_KEY],
            client_ca=files[TLS_CLIENT_CA],
        )
        await self._async_check(tls, CLIENT_TLS)
        return asdict(tls)

    async def _async_files(
        self, typed: Mapping[str, Any], stored: Mapping[str, Any] | None
    ) -> dict[str, str]:
        """Return the text of each file, uploaded now or stored before."""
        uploaded = {
            field: await self._async_text(field, typed[field])
            for field in _FILES
            if typed.get(field)
        }
        kept = {
            field: text
            for field in _FILES
            if (text := (stored or {}).get(field.removeprefix("tls_")))
        }
        if _KEY in uploaded.get(TLS_CERTIFICATE, ""):
            kept.pop(TLS_KEY, None)  # the certificate file has its own
        files = dict.fromkeys(_FILES, "") | kept | uploaded
        await self._hass.async_add_executor_job(_look_at, files)
        return files

    async def _async_text(self, field: str, file_id: str) -> str:
        if file_id not in self._read:
            try:
                data = await self._hass.async_add_executor_job(
                    _take, self._hass, file_id
                )
            except ValueError:  # Home Assistant was restarted meanwhile
                raise FieldError(field, "upload_gone") from None
            # What is not text is not PEM either, and gets that error.
            self._read[file_id] = data.decode("ascii", "replace")
        return self._read[file_id]

    async def _async_check(self, tls: TlsUpstream | TlsListener, field: str) -> None:
        try:
            await self._hass.async_add_executor_job(tls.context)
        except TlsError as err:
            raise FieldError(field, "tls_unusable", message=str(err)) from None


def _take(hass: HomeAssistant, file_id: str) -> bytes:
    """Return the content of an uploaded file, and delete it."""
    with process_uploaded_file(hass, file_id) as path, path.open("rb") as file:
        return file.read(_MOST_BYTES)


def _look_at(files: Mapping[str, str]) -> None:
    """Check the formats, and that key and certificate belong together."""
    found = {
        field: _certificates(field, files[field])
        for field in (TLS_CA, TLS_CERTIFICATE, TLS_CLIENT_CA)
        if files[field]
    }
    chain, key = found.get(TLS_CERTIFICATE), files[TLS_KEY]
    if key and chain is None:
        raise FieldError(TLS_CERTIFICATE, "tls_certificate_missing")
    if chain is None:
        return
    if not key and _KEY not in files[TLS_CERTIFICATE]:
        raise FieldError(TLS_KEY, "tls_key_missing")
    try:
        # The key may be in the certificate file.
        secret = load_pem_private_key((key or files[TLS_CERTIFICATE]).encode(), None)
        fits = secret.public_key() == chain[0].public_key()
    except TypeError:
        raise FieldError(TLS_KEY, "tls_key_encrypted") from None
    except ValueError, UnsupportedAlgorithm:
        raise FieldError(TLS_KEY, "tls_key_not_pem") from None
    if not fits:
        raise FieldError(TLS_KEY, "tls_key_mismatch")


def _certificates(field: str, text: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise FieldError(field, f"{field}_not_pem") from None
