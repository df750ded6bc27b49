"""The options flow: a menu of preferences and of additional ports for clients.

Preferences are applied to the running multiplexer; nothing is tried. An additional
listener is tried before it is saved, like the main one: its port is bound, and its
certificate loaded.
"""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.config_entries import ConfigEntryState, ConfigFlowResult, OptionsFlow
from homeassistant.const import CONF_HOST, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import callback
from homeassistant.helpers.selector import (
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
)
import voluptuous as vol

from ..addresses import format_endpoint
from ..const import (
    CONF_ALLOW_SEND_REQUEST,
    CONF_CLIENT_NAMES,
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_MORE_LISTENERS,
    CONF_UPDATE_INTERVAL,
)
from ..coordinator import TcpMultiplexerConfigEntry
from ..entry_settings import profile_settings
from ..multiplexer import PROTOCOLS, Framing, Section
from .certificates import Uploads
from .fields import (
    CLIENT_FRAMING,
    CLIENT_TLS,
    DEFAULTS,
    TLS_CERTIFICATE,
    TLS_CLIENT_CA,
    TLS_KEY,
    FieldError,
    check_rules,
    client_tls_to_show,
    settings_in,
    to_store,
    worth_storing,
)
from .forms import Sections, fields_for, show_form
from .local_ports import (
    ListenAddress,
    async_bind,
    async_check_others,
    async_free_port,
    is_reached,
    listen_addresses,
)
from .plan import checked_settings

_PREFERENCES: Final = {
    **{
        section.value: settings_in(section)
        for section in Section
        if section is not Section.RECORD
    },
    "home_assistant": (
        CONF_UPDATE_INTERVAL,
        CONF_CLIENT_NAMES,
        CONF_ALLOW_SEND_REQUEST,
        *settings_in(Section.RECORD),
    ),
}
_LISTENER: Final = (
    CONF_LISTEN_PORT,
    CLIENT_FRAMING,
    CLIENT_TLS,
    TLS_CERTIFICATE,
    TLS_KEY,
    TLS_CLIENT_CA,
    CONF_LISTEN_HOST,
)
_CHOSEN: Final = "listener"

type _Stored = Mapping[str, Any]
"""An additional listener, as an entry stores it."""


class TcpMultiplexerOptionsFlow(OptionsFlow):
    """Changes preferences and additional listeners."""

    config_entry: TcpMultiplexerConfigEntry
    _uploads: Uploads | None = None
    """The files that were uploaded in this dialog."""
    _changes: int | None = None
    """The index of the listener that is changed; None: one is added."""

    async def async_step_init(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask what to change."""
        options = ["preferences", "add_listener"]
        if listeners := self._listeners:
            options += ["change_listener", "remove_listener"]
        main = listen_addresses(self.config_entry)[0]
        shown = [_describe(self._protocol, main)]
        shown += [_describe_listener(self._protocol, each) for each in listeners]
        return self.async_show_menu(
            step_id="init",
            menu_options=options,
            description_placeholders={
                "listeners": "\n".join(f"- {text}" for text in shown)
            },
        )

    # Preferences

    async def async_step_preferences(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for all preferences, by section."""
        entry = self.config_entry
        profile = profile_settings(entry.data)
        sections = Sections(self._protocol, **_PREFERENCES)
        error: FieldError | None = None
        if user_input is not None:
            try:
                values = sections.to_store(user_input)
                check_rules(values)
                # What the form did not show stays as it is.
                kept = {k: v for k, v in entry.options.items() if k not in values}
                options = kept | worth_storing(values, profile)
                checked_settings(entry.data, options)
            except FieldError as err:
                error = err
            else:
                return self.async_create_entry(data=options)
        values = user_input or sections.to_show(profile | entry.options)
        return show_form(self, "preferences", {}, sections, values, error)

    # Additional listeners

    async def async_step_add_listener(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask where and how more clients connect."""
        return await self._async_step_listener("add_listener", user_input)

    async def async_step_change_listener(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask which listener to change, if there are several."""
        if user_input is None and len(self._listeners) > 1:
            return self._async_show_choice("change_listener", multiple=False)
        self._changes = int(user_input[_CHOSEN]) if user_input else 0
        return await self.async_step_listener()

    async def async_step_listener(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask where and how these clients connect from now on."""
        return await self._async_step_listener("listener", user_input)

    async def async_step_remove_listener(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask which listeners to remove."""
        if user_input is None:
            return self._async_show_choice("remove_listener", multiple=True)
        gone = set(map(int, user_input[_CHOSEN]))
        left = [each for n, each in enumerate(self._listeners) if n not in gone]
        return self._async_save(left)

    async def _async_step_listener(
        self, step_id: str, user_input: dict[str, Any] | None
    ) -> ConfigFlowResult:
        error: FieldError | None = None
        values: Mapping[str, Any] | None = user_input
        if user_input is not None:
            try:
                listener = await self._async_checked_listener(user_input)
            except FieldError as err:
                error = err
            else:
                listeners = list(self._listeners)
                if self._changes is None:
                    listeners.append(listener)
                else:
                    listeners[self._changes] = listener
                return self._async_save(listeners)
        elif (before := self._before) is not None:
            values = {
                CONF_LISTEN_PORT: before["port"],
                CLIENT_FRAMING: before["framing"],
                CONF_LISTEN_HOST: before["host"] or "",
                **client_tls_to_show(before["tls"]),
            }
        else:
            address = listen_addresses(self.config_entry)[0]
            port = await async_free_port(self.hass, address.port + 1, address.host)
            values = {
                CONF_LISTEN_PORT: port,
                CONF_LISTEN_HOST: address.host or "",
            }
        fields = fields_for(self._protocol, *_LISTENER)
        return show_form(self, step_id, fields, Sections(), values, error)

    async def _async_checked_listener(self, typed: Mapping[str, Any]) -> _Stored:
        """Return the listener that was typed, once its port was bound.

        Raises:
            FieldError: something in it cannot be used.

        """
        hass, entry = self.hass, self.config_entry
        host = to_store(CONF_LISTEN_HOST, typed.get(CONF_LISTEN_HOST, ""))
        address = ListenAddress(host, typed[CONF_LISTEN_PORT])
        siblings = listen_addresses(entry)
        mine = None if self._changes is None else siblings.pop(self._changes + 1)
        await async_check_others(hass, entry, address, siblings)
        data = entry.data
        if CONF_HOST in data and await is_reached(
            data[CONF_HOST], data[CONF_PORT], [address]
        ):
            raise FieldError(CONF_LISTEN_PORT, "listener_is_device")
        if address != mine or entry.state is not ConfigEntryState.LOADED:
            await async_bind(hass, address)
        self._uploads = self._uploads or Uploads(hass)
        before = self._before
        return {
            "host": host,
            "port": address.port,
            "framing": typed.get(CLIENT_FRAMING, DEFAULTS[CLIENT_FRAMING]),
            "tls": await self._uploads.async_listener(
                typed, before["tls"] if before else None
            ),
        }

    @callback
    def _async_show_choice(self, step_id: str, *, multiple: bool) -> ConfigFlowResult:
        """Ask for one or several of the listeners."""
        selector = SelectSelector(
            SelectSelectorConfig(
                options=[
                    SelectOptionDict(
                        value=str(number),
                        label=_describe_listener(self._protocol, listener),
                    )
                    for number, listener in enumerate(self._listeners)
                ],
                multiple=multiple,
                mode=SelectSelectorMode.LIST,
            )
        )
        # Otherwise the frontend would select the first one for removal.
        nothing: dict[str, Any] = {"suggested_value": []} if multiple else {}
        schema = vol.Schema({vol.Required(_CHOSEN, description=nothing): selector})
        return self.async_show_form(step_id=step_id, data_schema=schema)

    @callback
    def _async_save(self, listeners: list[_Stored]) -> ConfigFlowResult:
        options = {**self.config_entry.options, CONF_MORE_LISTENERS: listeners}
        if not listeners:
            del options[CONF_MORE_LISTENERS]
        return self.async_create_entry(data=options)

    @property
    def _protocol(self) -> str:
        protocol: str = self.config_entry.data[CONF_PROTOCOL]
        return protocol

    @property
    def _listeners(self) -> list[_Stored]:
        listeners: list[_Stored]
        listeners = self.config_entry.options.get(CONF_MORE_LISTENERS, [])
        return listeners

    @property
    def _before(self) -> _Stored | None:
        """The listener that is changed, as it is stored."""
        return None if self._changes is None else self._listeners[self._changes]


def _describe_listener(protocol: str, listener: _Stored) -> str:
    address = ListenAddress(listener["host"], listener["port"])
    return _describe(
        protocol, address, listener["framing"], secure=listener["tls"] is not None
    )


def _describe(
    protocol: str,
    address: ListenAddress,
    framing: str = Framing.TCP,
    *,
    secure: bool = False,
) -> str:
    """Describe a listener in words that are the same in every language."""
    port = (
        format_endpoint(address.host, address.port)
        if address.host
        else str(address.port)
    )
    framings = PROTOCOLS[protocol].framings
    kind = [framings[Framing(framing)]] if framings else []
    if secure:
        kind.append("TLS")
    return f"{port} ({', '.join(kind)})" if kind else port
