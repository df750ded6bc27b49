"""The options flow: preferences, which are applied to the running multiplexer."""

from typing import Any, Final

from homeassistant.config_entries import ConfigFlowResult, OptionsFlow
from homeassistant.const import CONF_PROTOCOL

from ..const import CONF_ALLOW_SEND_REQUEST, CONF_UPDATE_INTERVAL
from ..coordinator import TcpMultiplexerConfigEntry
from ..entry_settings import profile_settings
from ..multiplexer import Section
from ..named_clients import named_clients
from .fields import FieldError, check_rules, settings_in, worth_storing
from .forms import Sections, show_form
from .plan import checked_settings

_PREFERENCES: Final = {
    **{
        section.value: settings_in(section)
        for section in Section
        if section is not Section.RECORD
    },
    "home_assistant": (
        CONF_UPDATE_INTERVAL,
        CONF_ALLOW_SEND_REQUEST,
        *settings_in(Section.RECORD),
    ),
}


class TcpMultiplexerOptionsFlow(OptionsFlow):
    """Changes preferences."""

    config_entry: TcpMultiplexerConfigEntry

    async def async_step_init(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Begin with the only page."""
        return await self.async_step_preferences()

    async def async_step_preferences(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for all preferences, by section."""
        entry = self.config_entry
        profile = profile_settings(entry.data)
        sections = Sections(entry.data[CONF_PROTOCOL], **_PREFERENCES)
        error: FieldError | None = None
        if user_input is not None:
            subentries = entry.subentries.values()
            try:
                values = sections.to_store(user_input)
                check_rules(values, named_clients(subentries))
                # What the form did not show stays as it is.
                kept = {k: v for k, v in entry.options.items() if k not in values}
                options = kept | worth_storing(values, profile)
                checked_settings(entry.data, options, subentries)
            except FieldError as err:
                error = err
            else:
                return self.async_create_entry(data=options)
        values = user_input or sections.to_show(profile | entry.options)
        return show_form(self, "preferences", {}, sections, values, error)
