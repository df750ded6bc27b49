"""TLS on either face, from the dialogs to the sockets: real files, real handshakes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
import json
from pathlib import Path
import ssl
import tempfile
from typing import Any

from aiohttp import FormData
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat
from cryptography.x509.oid import NameOID
from homeassistant.config_entries import SOURCE_RECONFIGURE, ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.setup import async_setup_component
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

from custom_components.tcp_multiplexer.const import CONF_LISTEN_PORT, CONF_TLS
from tests.engine.certificates import Authority, Pair, PlainAuthority, locked
from tests.wire import read, values

from .dialogs import Dialog
from .peers import ModbusClient, ModbusDevice
from .ports import free_port
from .test_diagnostics import REDACTED, diagnostics

FORM, MENU, ABORT, CREATE_ENTRY = (
    FlowResultType.FORM,
    FlowResultType.MENU,
    FlowResultType.ABORT,
    FlowResultType.CREATE_ENTRY,
)

type Upload = Callable[[str | bytes], Awaitable[str]]


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Return the authority that issued the device's certificate and ours."""
    return Authority()


@pytest.fixture(scope="module")
def of_device(authority: Authority) -> Pair:
    """Return the certificate of the device, or of our listener, and its key."""
    return authority.issue("127.0.0.1")


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Pair:
    """Return a certificate of who connects, and its key."""
    return authority.issue("client.example")


def context_of(pair: Pair, folder: Path, *, client_ca: str = "") -> ssl.SSLContext:
    """Make the context of a server."""
    path = folder / "server.pem"
    path.write_text(pair.certificate + pair.key)
    # In debug mode asyncio reports each handshake that fails to Home Assistant.
    asyncio.get_running_loop().set_debug(False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    if client_ca:
        context.load_verify_locations(cadata=client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
async def secure_device(
    of_device: Pair, tmp_path: Path
) -> AsyncGenerator[ModbusDevice]:
    """Return a device that speaks within TLS."""
    device = ModbusDevice()
    device.tls = context_of(of_device, tmp_path)
    await device.start()
    yield device
    await device.stop()


@pytest.fixture
async def upload(
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Upload:
    """Return what sends a file to Home Assistant as a browser does."""
    # Home Assistant uses one folder for all; other tests may run beside this one.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for component in ("file_upload", "diagnostics"):
        assert await async_setup_component(hass, component, {})
    client = await hass_client()

    async def upload(content: str | bytes) -> str:
        form = FormData()
        data = content.encode() if isinstance(content, str) else content
        form.add_field("file", data, filename="file.pem")
        response = await client.post("/api/file_upload", data=form)
        assert response.status == HTTPStatus.OK
        file_id: str = (await response.json())["file_id"]
        return file_id

    return upload


async def open_dialog(hass: HomeAssistant, entry: MockConfigEntry | None) -> Dialog:
    """Open the dialog that adds an entry, or reconfigures one."""
    dialog = Dialog(hass)
    if entry is None:
        await dialog.start()
    else:
        await dialog.start(source=SOURCE_RECONFIGURE, entry_id=entry.entry_id)
    return dialog


def at(device: ModbusDevice, **typed: Any) -> dict[str, Any]:
    """Give what to type for a device on this machine."""
    return {
        "host": "127.0.0.1",
        "port": device.port,
        "listen_port": free_port(),
        "listen_host": "127.0.0.1",
        **typed,
    }


async def assert_serves(port: int, tls: ssl.SSLContext | None = None) -> None:
    """Check that a client gets the device's registers there."""
    async with ModbusClient(port, tls=tls) as client:
        assert await client.ask(read(5)) == values(5)


# The device


async def test_a_device_that_speaks_tls(  # noqa: PLR0917
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    secure_device: ModbusDevice,
    authority: Authority,
    ours: Pair,
    upload: Upload,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dialog = await open_dialog(hass, None)
    page = await dialog.send(
        **at(secure_device),
        tls_upstream="own_ca",
        tls_ca=await upload(authority.certificate),
        tls_certificate=await upload(ours.certificate),
        tls_key=await upload(ours.key),
    )
    assert page["type"] is CREATE_ENTRY
    assert page["data"][CONF_TLS] == {
        "verify": True,
        "ca": authority.certificate,
        "server_name": "",
        "certificate": ours.certificate,
        "key": ours.key,
    }
    assert page["options"] == {}
    entry = page["result"]
    assert entry.state is ConfigEntryState.LOADED
    await assert_serves(entry.data[CONF_LISTEN_PORT])
    told = await diagnostics(hass, hass_client, entry)
    assert told["entry"]["data"][CONF_TLS] == REDACTED
    assert "BEGIN" not in json.dumps(told)
    assert "BEGIN" not in caplog.text


async def test_a_device_that_asks_for_a_certificate(  # noqa: PLR0917
    hass: HomeAssistant,
    authority: Authority,
    of_device: Pair,
    ours: Pair,
    upload: Upload,
    tmp_path: Path,
) -> None:
    device = ModbusDevice()
    device.tls = context_of(of_device, tmp_path, client_ca=authority.certificate)
    await device.start()
    dialog = await open_dialog(hass, None)
    page = await dialog.send(
        **at(device),
        tls_upstream="own_ca",
        tls_ca=await upload(authority.certificate),
    )
    assert page["type"] is MENU
    assert page["step_id"] == "no_tls"
    assert page["description_placeholders"]["detail"] == "connection closed"
    await dialog.choose("change")
    # One file may hold both.
    page = await dialog.send(tls_certificate=await upload(ours.key + ours.certificate))
    assert page["type"] is CREATE_ENTRY
    await assert_serves(page["data"][CONF_LISTEN_PORT])
    await device.stop()


async def test_a_certificate_that_is_not_trusted(
    hass: HomeAssistant, secure_device: ModbusDevice
) -> None:
    dialog = await open_dialog(hass, None)
    page = await dialog.send(**at(secure_device), tls_upstream="system_ca")
    assert page["type"] is MENU
    assert page["step_id"] == "not_trusted"
    assert "issuer" in page["description_placeholders"]["detail"]
    await dialog.choose("change")
    assert dialog.values["tls_upstream"] == "system_ca"
    page = await dialog.send(tls_upstream="unverified")
    assert page["type"] is CREATE_ENTRY
    assert page["data"][CONF_TLS]["verify"] is False
    await assert_serves(page["data"][CONF_LISTEN_PORT])


async def test_a_certificate_for_another_name(
    hass: HomeAssistant, authority: Authority, upload: Upload, tmp_path: Path
) -> None:
    device = ModbusDevice()
    device.tls = context_of(authority.issue("inverter.example"), tmp_path)
    await device.start()
    dialog = await open_dialog(hass, None)
    ca = await upload(authority.certificate)
    page = await dialog.send(**at(device), tls_upstream="own_ca", tls_ca=ca)
    assert page["step_id"] == "not_trusted"
    assert "127.0.0.1" in page["description_placeholders"]["detail"]
    await dialog.choose("change")
    page = await dialog.send(tls_server_name=" inverter.example ")
    assert page["type"] is CREATE_ENTRY
    assert page["data"][CONF_TLS]["server_name"] == "inverter.example"
    await assert_serves(page["data"][CONF_LISTEN_PORT])
    await device.stop()


async def test_a_device_that_speaks_no_tls(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    device.closes_on_garbage = True
    asyncio.get_running_loop().set_debug(False)
    dialog = await open_dialog(hass, None)
    page = await dialog.send(**at(device), tls_upstream="unverified")
    assert page["type"] is MENU
    assert page["step_id"] == "no_tls"
    assert page["description_placeholders"]["detail"] == "connection closed"
    await dialog.choose("change")
    page = await dialog.send(tls_upstream="off")
    assert page["type"] is CREATE_ENTRY
    assert CONF_TLS not in page["data"]
    await assert_serves(page["data"][CONF_LISTEN_PORT])


def weak() -> str:
    """Give a certificate and its key, so short that the system refuses them."""
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return (certificate.public_bytes(serialization.Encoding.PEM) + secret).decode()


def der(certificate: str) -> bytes:
    """Give a certificate in the other format."""
    found = x509.load_pem_x509_certificate(certificate.encode())
    return found.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("name", [".foo", "a..b", "x" * 64 + ".example", "a b", "a/b"])
async def test_a_name_that_no_certificate_can_have(
    hass: HomeAssistant, secure_device: ModbusDevice, name: str
) -> None:
    dialog = await open_dialog(hass, None)
    typed = at(secure_device, tls_upstream="unverified")
    page = await dialog.send(**typed, tls_server_name=name)
    assert page["errors"] == {"tls": "invalid_tls_server_name"}
    assert dialog.values["tls_server_name"] == name
    page = await dialog.send(**typed, tls_server_name="inverter.example.")
    assert page["type"] is CREATE_ENTRY


async def test_an_own_ca_that_does_not_say_what_its_key_is_for(
    hass: HomeAssistant, upload: Upload, tmp_path: Path
) -> None:
    plain = PlainAuthority()
    made = x509.load_pem_x509_certificate(plain.certificate.encode())
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.KeyUsage)
    device = ModbusDevice()
    device.tls = context_of(plain.issue("127.0.0.1"), tmp_path)
    await device.start()
    dialog = await open_dialog(hass, None)
    page = await dialog.send(
        **at(device), tls_upstream="own_ca", tls_ca=await upload(plain.certificate)
    )
    assert page["type"] is CREATE_ENTRY
    await assert_serves(page["result"].data[CONF_LISTEN_PORT])
    assert await hass.config_entries.async_remove(page["result"].entry_id)
    await device.stop()


WRONG: dict[str, tuple[str, dict[str, str]]] = {
    "CA missing": ("tls_ca_missing", {}),
    "CA empty": ("tls_ca_missing", {"tls_ca": "empty"}),
    "CA not PEM": ("tls_ca_not_pem", {"tls_ca": "der"}),
    "certificate not PEM": ("tls_certificate_not_pem", {"tls_certificate": "key"}),
    "certificate missing": ("tls_certificate_missing", {"tls_key": "key"}),
    "key missing": ("tls_key_missing", {"tls_certificate": "certificate"}),
    "key not PEM": (
        "tls_key_not_pem",
        {"tls_certificate": "certificate", "tls_key": "certificate"},
    ),
    "key encrypted": (
        "tls_key_encrypted",
        {"tls_certificate": "certificate", "tls_key": "encrypted"},
    ),
    "key encrypted as of old": (
        "tls_key_encrypted",
        {"tls_certificate": "certificate", "tls_key": "encrypted as of old"},
    ),
    "key of another": (
        "tls_key_mismatch",
        {"tls_certificate": "certificate", "tls_key": "key of another"},
    ),
    "too weak": ("tls_unusable", {"tls_certificate": "weak"}),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_file_that_cannot_be_used(  # noqa: PLR0917
    hass: HomeAssistant,
    secure_device: ModbusDevice,
    authority: Authority,
    ours: Pair,
    of_device: Pair,
    upload: Upload,
    case: str,
) -> None:
    """Each has words of its own, and nothing that was right is lost."""
    error, files = WRONG[case]
    contents: dict[str, str | bytes] = {
        "empty": "",
        "certificate": ours.certificate,
        "key": ours.key,
        "key of another": of_device.key,
        "encrypted": locked(ours.key),
        "encrypted as of old": locked(ours.key, PrivateFormat.TraditionalOpenSSL),
        "der": der(authority.certificate),
        "weak": weak(),
    }
    typed = at(secure_device, tls_upstream="own_ca", idle_timeout=60)
    if not error.startswith("tls_ca"):
        typed["tls_ca"] = await upload(authority.certificate)
    typed |= {name: await upload(contents[file]) for name, file in files.items()}
    dialog = await open_dialog(hass, None)
    page = await dialog.send(**typed)
    assert page["type"] is FORM
    assert page["errors"] == {"tls": error}
    assert dialog.opened == ["tls"]
    assert dialog.values.items() >= typed.items()
    # The browser sends "" for a file that was taken away.
    right = {"tls_certificate": "", "tls_key": ""}
    if error.startswith("tls_ca"):
        right["tls_ca"] = await upload(authority.certificate)
    page = await dialog.send(**right)
    assert page["type"] is CREATE_ENTRY
    assert page["data"][CONF_TLS]["ca"] == authority.certificate
    assert page["data"][CONF_TLS]["certificate"] == ""
    assert page["options"] == {"idle_timeout": 60}
    await assert_serves(page["data"][CONF_LISTEN_PORT])


async def test_what_was_uploaded_outlasts_an_error_elsewhere(
    hass: HomeAssistant,
    secure_device: ModbusDevice,
    authority: Authority,
    upload: Upload,
) -> None:
    """Home Assistant lends a file once."""
    dialog = await open_dialog(hass, None)
    typed = at(secure_device, tls_upstream="own_ca")
    page = await dialog.send(
        **typed | {"port": typed["listen_port"]},
        tls_ca=await upload(authority.certificate),
    )
    assert page["errors"] == {"host": "itself"}
    page = await dialog.send(port=secure_device.port)
    assert page["type"] is CREATE_ENTRY
    await assert_serves(page["data"][CONF_LISTEN_PORT])


async def test_a_file_that_is_gone(
    hass: HomeAssistant,
    secure_device: ModbusDevice,
    authority: Authority,
    upload: Upload,
) -> None:
    ca = await upload(authority.certificate)
    dialog = await open_dialog(hass, None)
    page = await dialog.send(
        **at(secure_device), tls_upstream="own_ca", tls_ca="0" * 32
    )
    assert page["errors"] == {"tls": "upload_gone"}
    page = await dialog.send(tls_ca=ca)
    assert page["type"] is CREATE_ENTRY


async def test_home_assistants_own_connection_speaks_no_tls(
    hass: HomeAssistant, device: ModbusDevice
) -> None:
    dialog = await open_dialog(hass, None)
    page = await dialog.send(
        **at(device), tls_upstream="unverified", upstream="home_assistant"
    )
    assert page["errors"] == {"tls": "tls_not_shared"}
    page = await dialog.send(tls_upstream="off", upstream="tcp")
    assert page["type"] is CREATE_ENTRY


@pytest.fixture
async def secure_entry(
    hass: HomeAssistant,
    secure_device: ModbusDevice,
    authority: Authority,
    ours: Pair,
    upload: Upload,
) -> Any:
    """Return an entry that runs and shares a device that speaks TLS."""
    dialog = await open_dialog(hass, None)
    page = await dialog.send(
        **at(secure_device),
        tls_upstream="own_ca",
        tls_ca=await upload(authority.certificate),
        tls_certificate=await upload(ours.certificate),
        tls_key=await upload(ours.key),
    )
    return page["result"]


async def test_what_is_stored_stays_and_is_never_shown(
    hass: HomeAssistant, secure_entry: Any, secure_device: ModbusDevice
) -> None:
    before = dict(secure_entry.data[CONF_TLS])
    dialog = await open_dialog(hass, secure_entry)
    assert dialog.values["tls_upstream"] == "own_ca"
    assert {dialog.values[f"tls_{file}"] for file in ("ca", "certificate", "key")} == {
        ""
    }
    assert "BEGIN" not in str(dialog.page)
    page = await dialog.send(listen_port=free_port())
    assert page["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    assert secure_entry.data[CONF_TLS] == before
    await assert_serves(secure_entry.data[CONF_LISTEN_PORT])


async def test_a_new_certificate_with_and_without_a_new_key(
    hass: HomeAssistant, secure_entry: Any, authority: Authority, upload: Upload
) -> None:
    new = authority.issue("client.example")
    dialog = await open_dialog(hass, secure_entry)
    page = await dialog.send(tls_certificate=await upload(new.certificate))
    assert page["errors"] == {"tls": "tls_key_mismatch"}
    # With a key of its own it needs none of those that are stored.
    page = await dialog.send(tls_certificate=await upload(new.certificate + new.key))
    assert page["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    assert secure_entry.data[CONF_TLS]["certificate"] == new.certificate + new.key
    assert secure_entry.data[CONF_TLS]["key"] == ""
    await assert_serves(secure_entry.data[CONF_LISTEN_PORT])


async def test_without_tls_nothing_of_it_is_kept(
    hass: HomeAssistant, secure_entry: Any, device: ModbusDevice
) -> None:
    dialog = await open_dialog(hass, secure_entry)
    page = await dialog.send(port=device.port, tls_upstream="off")
    assert page["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    assert CONF_TLS not in secure_entry.data
    await assert_serves(secure_entry.data[CONF_LISTEN_PORT])


async def test_another_way_to_check_is_tried_on_the_device(
    hass: HomeAssistant, secure_entry: Any
) -> None:
    """TLS is part of how the device is reached, and its slot is free meanwhile."""
    dialog = await open_dialog(hass, secure_entry)
    page = await dialog.send(tls_upstream="system_ca")
    assert page["step_id"] == "not_trusted"
    await dialog.choose("change")
    page = await dialog.send(tls_upstream="unverified")
    assert page["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    assert secure_entry.data[CONF_TLS]["verify"] is False
    assert secure_entry.data[CONF_TLS]["ca"] == ""
    dialog = await open_dialog(hass, secure_entry)
    assert dialog.values["tls_upstream"] == "unverified"
    await assert_serves(secure_entry.data[CONF_LISTEN_PORT])


async def test_a_stored_certificate_that_cannot_be_used(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    tls = {
        "verify": True,
        "ca": "none",
        "server_name": "",
        "certificate": "",
        "key": "",
    }
    hass.config_entries.async_update_entry(entry, data={**entry.data, CONF_TLS: tls})
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_ERROR
    assert entry.error_reason_translation_key == "invalid_tls"
