"""The dialog of a further local port: where more clients connect, and how.

It is tried before it is saved, like the main one: its port is bound, and its
certificate loaded.
"""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.config_entries import ConfigEntryState, SubentryFlowResult
from homeassistant.const import CONF_HOST, CONF_PORT, CONF_PROTOCOL

from ..const import CONF_LISTEN_HOST, CONF_LISTEN_PORT
from ..further_ports import describe_listener
from .certificates import Uploads
from .fields import (
    CLIENT_FRAMING,
    CLIENT_TLS,
    DEFAULTS,
    TLS_CERTIFICATE,
    TLS_CLIENT_CA,
    TLS_KEY,
    FieldError,
    client_tls_to_show,
    to_store,
)
from .forms import Sections, fields_for, show_form
from .local_ports import (
    ListenAddress,
    async_bind,
    async_check_others,
    async_free_port,
    async_port_to_propose,
    is_reached,
    listen_addresses,
)
from .subentry import SubentryDialog

_FIELDS: Final = (CONF_LISTEN_PORT, CONF_LISTEN_HOST, CLIENT_FRAMING)
_SECTIONS: Final = Sections(tls=(CLIENT_TLS, TLS_CERTIFICATE, TLS_KEY, TLS_CLIENT_CA))


class LocalPortSubentryFlow(SubentryDialog):
    """Adds and changes a further local port."""

    _uploads: Uploads | None = None
    """The files that were uploaded in this dialog."""

    async def async_step_user(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask where and how more clients connect."""
        return await self._async_step_form("user", user_input)

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask where and how these clients connect from now on."""
        return await self._async_step_form("reconfigure", user_input)

    async def _async_step_form(
        self, step_id: str, user_input: dict[str, Any] | None
    ) -> SubentryFlowResult:
        entry, protocol = self._entry, self._entry.data[CONF_PROTOCOL]
        error: FieldError | None = None
        values: Mapping[str, Any] | None = user_input
        if user_input is not None:
            try:
                listener = await self._async_checked(user_input)
            except FieldError as err:
                error = err
            else:
                title = describe_listener(protocol, listener)
                if self._changed is None:
                    return self.async_create_entry(title=title, data=listener)
                return self.async_update_and_abort(
                    entry, self._changed, title=title, data=listener
                )
        elif self._changed is not None:
            before = self._changed.data
            values = {
                CONF_LISTEN_PORT: await async_port_to_propose(
                    self.hass, entry, ListenAddress(before["host"], before["port"])
                ),
                CLIENT_FRAMING: before["framing"],
                CONF_LISTEN_HOST: before["host"] or "",
                "tls": client_tls_to_show(before["tls"]),
            }
        else:
            main = listen_addresses(entry)[0]
            port = await async_free_port(self.hass, main.port + 1, main.host)
            values = {CONF_LISTEN_PORT: port, CONF_LISTEN_HOST: main.host or ""}
        fields = fields_for(protocol, *_FIELDS)
        return show_form(self, step_id, fields, _SECTIONS, values, error)

    async def _async_checked(self, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is stored of the port that was typed, once it was bound.

        Raises:
            FieldError: something in it cannot be used.

        """
        hass, entry, before = self.hass, self._entry, self._changed
        host = to_store(CONF_LISTEN_HOST, typed.get(CONF_LISTEN_HOST, ""))
        port = to_store(CONF_LISTEN_PORT, typed[CONF_LISTEN_PORT])
        address = ListenAddress(host, port)
        siblings = listen_addresses(entry)
        mine: ListenAddress | None = None
        if before is not None:
            mine = ListenAddress(before.data["host"], before.data["port"])
            siblings.remove(mine)
        await async_check_others(hass, entry, address, siblings)
        data = entry.data
        if CONF_HOST in data and await is_reached(
            data[CONF_HOST], data[CONF_PORT], [address]
        ):
            raise FieldError(CONF_LISTEN_PORT, "listener_is_device")
        if address != mine or entry.state is not ConfigEntryState.LOADED:
            await async_bind(hass, address)
        self._uploads = self._uploads or Uploads(hass)
        return {
            "host": host,
            "port": address.port,
            "framing": typed.get(CLIENT_FRAMING, DEFAULTS[CLIENT_FRAMING]),
            "tls": await self._uploads.async_listener(
                typed["tls"], before.data["tls"] if before else None
            ),
        }
