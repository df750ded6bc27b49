"""The dialog of a named client: who it is, and what it may write."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, Final

from homeassistant.config_entries import ConfigEntryState, SubentryFlowResult
from homeassistant.const import CONF_NAME, CONF_PROTOCOL
from homeassistant.core import callback
from homeassistant.helpers.selector import (
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    TextSelector,
)
import voluptuous as vol

from ..const import (
    CONF_ADDRESSES,
    CONF_SILENT_MINUTES,
    CONF_WRITE_RULES,
    DEFAULT_SILENT_MINUTES,
)
from ..named_clients import (
    NamedClient,
    async_keep_rules,
    client_at,
    named_clients,
)
from .fields import FieldError, applies_to, to_show, to_store, whole
from .forms import Sections, show_form
from .subentry import SubentryDialog
from .write_rules import CLIENT_WRITE_RULES

_MOST_MINUTES: Final = 7 * 24 * 60
_SILENT_MINUTES: Final = whole(1, _MOST_MINUTES, "min")


class ClientSubentryFlow(SubentryDialog):
    """Adds and changes a named client."""

    async def async_step_user(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask who the client is."""
        return self._async_step_form("user", user_input)

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> SubentryFlowResult:
        """Ask who the client is from now on."""
        return self._async_step_form("reconfigure", user_input)

    @callback
    def _async_step_form(
        self, step_id: str, user_input: dict[str, Any] | None
    ) -> SubentryFlowResult:
        error: FieldError | None = None
        if user_input is not None:
            try:
                name, data = self._checked(user_input)
            except FieldError as err:
                error = err
            else:
                return self._async_save(name, data)
        # Otherwise the frontend would select the first proposal.
        values: Mapping[str, Any] = user_input or {CONF_ADDRESSES: []}
        if user_input is None and (before := self._changed) is not None:
            rules = before.data.get(CONF_WRITE_RULES, ())
            values = {
                CONF_NAME: before.title,
                **before.data,
                CONF_WRITE_RULES: to_show(CONF_WRITE_RULES, rules),
            }
        fields: dict[vol.Marker, Any] = {
            vol.Required(CONF_NAME): TextSelector(),
            vol.Required(CONF_ADDRESSES): self._async_address_selector(),
            vol.Required(
                CONF_SILENT_MINUTES, default=DEFAULT_SILENT_MINUTES
            ): _SILENT_MINUTES,
        }
        if applies_to(self._entry.data[CONF_PROTOCOL], CONF_WRITE_RULES):
            fields[vol.Optional(CONF_WRITE_RULES)] = CLIENT_WRITE_RULES
        return show_form(self, step_id, fields, Sections(), values, error)

    @callback
    def _async_save(self, name: str, data: dict[str, Any]) -> SubentryFlowResult:
        """Add or change the client; rules for all clients know it by its new name."""
        if (changed := self._changed) is None:
            return self.async_create_entry(title=name, data=data)
        entry = self._entry
        before = named_clients(entry.subentries.values())
        result = self.async_update_and_abort(entry, changed, title=name, data=data)
        async_keep_rules(self.hass, entry, before)
        return result

    def _checked(self, typed: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the name, and what is stored of the client.

        Raises:
            FieldError: something in it cannot be used.

        """
        name = typed[CONF_NAME].strip()
        if not name or _is_network(name):
            raise FieldError(CONF_NAME, "invalid_name")
        addresses = _addresses(typed[CONF_ADDRESSES])
        for other in self._others:
            if other.name == name:
                raise FieldError(CONF_NAME, "name_taken")
            for address in addresses:
                if ip_network(address) in other.networks:
                    raise FieldError(
                        CONF_ADDRESSES,
                        "address_of_client",
                        address=address,
                        client=other.name,
                    )
        data: dict[str, Any] = {
            CONF_ADDRESSES: addresses,
            CONF_SILENT_MINUTES: typed[CONF_SILENT_MINUTES],
        }
        if rules := to_store(CONF_WRITE_RULES, typed.get(CONF_WRITE_RULES)):
            data[CONF_WRITE_RULES] = rules
        return name, data

    @callback
    def _async_address_selector(self) -> SelectSelector:
        """Propose the addresses of clients without a name; others may be typed."""
        entry, others = self._entry, self._others
        proposed: dict[str, None] = {}
        if entry.state is ConfigEntryState.LOADED:
            multiplexer = entry.runtime_data.multiplexer
            seen = [client.address for client in multiplexer.snapshot().clients]
            # Many connect only to ask, and are gone by now.
            seen += [
                record.client.rpartition(":")[0].strip("[]")
                for record in multiplexer.trace()
            ]
            proposed = dict.fromkeys(
                address
                for address in seen
                if address and client_at(others, address) is None
            )
        return SelectSelector(
            SelectSelectorConfig(
                options=[
                    SelectOptionDict(value=address, label=address)
                    for address in proposed
                ],
                multiple=True,
                custom_value=True,
                mode=SelectSelectorMode.DROPDOWN,
            )
        )

    @property
    def _others(self) -> list[NamedClient]:
        """The other named clients of the entry."""
        changed = self._changed
        return [
            client
            for client in named_clients(self._entry.subentries.values())
            if changed is None or client.subentry_id != changed.subentry_id
        ]


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _addresses(texts: list[str]) -> list[str]:
    """Return addresses and networks in their usual form, each once.

    Raises:
        FieldError: one is neither, or there is none.

    """
    addresses: dict[str, None] = {}
    for text in filter(None, map(str.strip, texts)):
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            raise FieldError(
                CONF_ADDRESSES, "invalid_addresses", address=text
            ) from None
        single = network.prefixlen == network.max_prefixlen
        addresses[str(network.network_address if single else network)] = None
    if not addresses:
        raise FieldError(CONF_ADDRESSES, "no_addresses")
    return list(addresses)
