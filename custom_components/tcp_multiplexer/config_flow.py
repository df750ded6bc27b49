"""The dialogs: add a multiplexer, reconfigure it, change its options.

The first two show a form, then try everything in it (`flow/trial.py`), and then show
one of three pages: the form again, with what was typed and the error at the field that
caused it; a menu, if only the device did not answer, because inverters sleep at night;
or the end. What is tried, and how a failure is reported, is the same for both.

A running entry holds the device's only slot, and its port. So `reconfigure` unloads it
while it tries, only if what it holds must be tried, and sets it up again before any
page is shown: a dialog that is abandoned leaves a running multiplexer behind. If that
takes longer than two seconds, it is shown what is being tried meanwhile.

The pages are here; what they show, read and try is in `flow/`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, override

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntry,
    ConfigFlow,
    ConfigFlowResult,
    ConfigSubentryFlow,
)
from homeassistant.const import (
    CONF_HOST,
    CONF_NAME,
    CONF_PORT,
    CONF_PROTOCOL,
)
from homeassistant.core import callback
from homeassistant.data_entry_flow import AbortFlow
from homeassistant.helpers.selector import TextSelector
import voluptuous as vol

from .addresses import (
    async_hosts_for_clients,
    async_must_publish,
    format_endpoint,
    host_for_home_assistant,
)
from .const import (
    CONF_IDENTITY,
    CONF_LISTEN_PORT,
    CONF_LOGGER_SERIAL,
    CONF_PROFILE,
    CONF_TLS,
    CONF_UPSTREAM,
    DOMAIN,
    SHARED_UPSTREAMS,
    SUBENTRY_CLIENT,
    SUBENTRY_LOCAL_PORT,
    UPSTREAM_TCP,
)
from .coordinator import TcpMultiplexerConfigEntry
from .entry_settings import GENERIC
from .flow.certificates import Uploads
from .flow.client import ClientSubentryFlow
from .flow.endpoint import is_taken
from .flow.fields import (
    CLIENT_RIGHTS,
    CLIENTS_MAY,
    DEFAULTS,
    LOGGER_SERIAL,
    PORT,
    PROFILE,
    READ_AND_WRITE,
    UPSTREAM,
    FieldError,
    protocol_field,
    tls_to_show,
    to_store,
)
from .flow.forms import ADD, RECONFIGURE, Sections, show_form
from .flow.identified import (
    as_stored,
    described,
    has_proposal,
    identified_form,
    with_identity,
)
from .flow.local_port import LocalPortSubentryFlow
from .flow.local_ports import (
    async_free_port,
    async_other_entries,
    async_port_to_propose,
    listen_addresses,
)
from .flow.options import TcpMultiplexerOptionsFlow
from .flow.plan import DEVICE, Plan, async_plan
from .flow.probe import DeviceError, DeviceProblem, ProbeResult, Report
from .flow.progress import Trial
from .flow.suggestions import async_host_selector, async_names_of_neighbours
from .flow.trial import async_try
from .multiplexer import Framing, find_logger_serial

_OTHER_CAUSES: Final = {
    DeviceProblem.NO_TLS,
    DeviceProblem.NOT_TRUSTED,
    DeviceProblem.OTHER_SETTINGS,
    DeviceProblem.NOT_INSTALLED,
}
"""A neighbour that takes the device's slot does not cause these."""

IN_USE_HERE: Final = "in_use_here"
"""The menu when another integration connects to the device that did not answer."""


class TcpMultiplexerConfigFlow(ConfigFlow, domain=DOMAIN):
    """Adds and reconfigures multiplexers."""

    VERSION = 1
    MINOR_VERSION = 3

    _typed: Mapping[str, Any] = MappingProxyType({})
    """The form as it was last submitted."""
    _logger: Mapping[str, Any] | None = None
    """The page about the logger stick; None: not submitted yet."""
    _plan: Plan
    """What follows from that."""
    _result = ProbeResult()
    """The device's answer."""
    _proposes = False
    """Whether it reported anything to choose from."""
    _failed: DeviceError
    """Why the device did not answer."""
    _trial: Trial
    """The last trial of a plan."""
    _uploads: Uploads | None = None
    """The files that were uploaded in this dialog."""

    @staticmethod
    @callback
    @override
    def async_get_options_flow(
        config_entry: TcpMultiplexerConfigEntry,
    ) -> TcpMultiplexerOptionsFlow:
        """Return the options flow."""
        return TcpMultiplexerOptionsFlow()

    @classmethod
    @callback
    @override
    def async_get_supported_subentry_types(
        cls, config_entry: ConfigEntry
    ) -> dict[str, type[ConfigSubentryFlow]]:
        """Return the flows of named clients and further local ports."""
        return {
            SUBENTRY_CLIENT: ClientSubentryFlow,
            SUBENTRY_LOCAL_PORT: LocalPortSubentryFlow,
        }

    # The pages

    @override
    async def async_step_user(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask what to share and where to listen."""
        return await self._async_step_form(user_input)

    async def async_step_reconfigure(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask where the device is now, and where to listen from now on."""
        return await self._async_step_form(user_input)

    async def _async_step_form(
        self, user_input: dict[str, Any] | None
    ) -> ConfigFlowResult:
        if user_input is None:
            return await self._async_show_form()
        self._typed, self._logger = user_input, None
        return await self.async_step_try_again()

    async def async_step_logger(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for the serial number of the logger stick, and propose what it tells."""
        error: FieldError | None = None
        if user_input is not None:
            try:
                to_store(CONF_LOGGER_SERIAL, user_input.get(CONF_LOGGER_SERIAL, 0))
            except FieldError as err:
                error = err
            else:
                self._logger = user_input
                return await self.async_step_try_again()
            serial = user_input[CONF_LOGGER_SERIAL]
        else:
            serial = await find_logger_serial(self._plan.settings.host)
        settings = self._plan.settings
        stored = self._entry.data if self._entry else {}
        if not serial and stored.get(CONF_HOST) == settings.host:
            serial = stored.get(CONF_LOGGER_SERIAL, 0)
        suggestion = {"suggested_value": serial or None}
        field = vol.Optional(CONF_LOGGER_SERIAL, description=suggestion)
        return self.async_show_form(
            step_id="logger",
            data_schema=vol.Schema({field: LOGGER_SERIAL}),
            errors={CONF_LOGGER_SERIAL: error.key} if error else None,
            description_placeholders={
                "endpoint": settings.target,
                **(error.placeholders if error else {}),
            },
        )

    async def async_step_change(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Go back to the form, with what was typed."""
        return await self._async_show_form()

    async def async_step_try_again(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Try what was typed, and show the page that follows."""
        self._uploads = self._uploads or Uploads(self.hass)
        try:
            plan = self._plan = await async_plan(
                self.hass,
                {**self._typed, **(self._logger or {})},
                self._sections,
                self._uploads,
                self._entry,
            )
            await self._async_abort_if_shared(plan)
            if plan.settings.framing is Framing.SOLARMAN and self._logger is None:
                return await self.async_step_logger()
        except FieldError as err:
            return await self._async_show_form(err)
        self._trial = Trial(self.hass, self._async_try)
        await self._trial.async_wait()
        if self._trial.task.done():
            return await self.async_step_tried()
        return await self.async_step_trying()

    async def async_step_trying(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Show what is being tried, until that has ended."""
        if self._trial.task.done():
            return self.async_show_progress_done(next_step_id="tried")
        return self.async_show_progress(
            step_id="trying",
            progress_action=self._trial.stage,
            progress_task=self._trial.async_watch(),
            description_placeholders={
                "endpoint": self._plan.settings.target,
                "unit": str(self._plan.settings.unit_id),
            },
        )

    async def _async_try(self, report: Report) -> None:
        """Try the plan; an entry that had to give way is changed before it returns."""
        plan, entry = self._plan, self._entry
        async with async_try(self.hass, entry, plan, report) as self._result:
            self._proposes = has_proposal(self._result, plan, entry)
            if (said := self._result.identity) is not None and said.name:
                plan.data[CONF_IDENTITY] = as_stored(said)
            if entry is not None and not self._proposes:
                await self._async_abort_if_shared(plan)
                self._async_update(entry)

    async def async_step_tried(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Show the page that follows from the trial."""
        try:
            self._trial.task.result()
        except FieldError as err:
            return await self._async_show_form(err)
        except DeviceError as err:
            self._failed = err
            return await self._async_step_no_answer()
        if self._proposes:
            return await self.async_step_identified()
        return await self._async_finish_answered()

    @callback
    @override
    def async_remove(self) -> None:
        """End the trial of a dialog that is closed meanwhile."""
        if (trial := getattr(self, "_trial", None)) is not None:
            trial.task.cancel()

    async def async_step_identified(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Propose what follows from what the device reported about itself."""
        plan, said = self._plan, self._result.identity
        error: FieldError | None = None
        if user_input is not None:
            try:
                self._plan = with_identity(plan, user_input)
            except FieldError as err:
                error = err
            else:
                return await self._async_finish_answered()
        return self.async_show_form(
            step_id="identified",
            data_schema=self.add_suggested_values_to_schema(
                identified_form(self._result, plan), user_input
            ),
            errors={error.field: error.key} if error else None,
            description_placeholders={
                "device": (said and said.name) or self._result.answer or "",
                "answer": described(self._result) or "",
                **(error.placeholders if error else {}),
            },
        )

    async def _async_finish_answered(self) -> ConfigFlowResult:
        """Finish, with the device's answer if it was asked anything."""
        answer = described(self._result)
        return await self._async_finish("answered" if answer else "connected", answer)

    async def _async_step_no_answer(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Explain why the device did not answer, and offer what to do about it."""
        settings = self._plan.settings
        problem = self._failed.problem
        names = ""
        if problem not in _OTHER_CAUSES:
            shares = self._plan.data[CONF_UPSTREAM] in SHARED_UPSTREAMS
            names = await async_names_of_neighbours(
                self.hass, settings, beside_shared=not shares
            )
        anyway = "save_anyway" if self._entry else "add_anyway"
        return self.async_show_menu(
            step_id=IN_USE_HERE if names else problem,
            menu_options=["try_again", "change", anyway],
            description_placeholders={
                "endpoint": settings.target,
                "unit": str(settings.unit_id),
                "names": names,
                "detail": self._failed.detail or "",
            },
        )

    # One step per problem: the frontend finds the translation by the name of the step.
    async_step_unknown_host = _async_step_no_answer
    async_step_unreachable = _async_step_no_answer
    async_step_refused = _async_step_no_answer
    async_step_no_port = _async_step_no_answer
    async_step_not_dialled = _async_step_no_answer
    async_step_closed = _async_step_no_answer
    async_step_silent = _async_step_no_answer
    async_step_silent_logger = _async_step_no_answer
    async_step_wrong_serial = _async_step_no_answer
    async_step_not_understood = _async_step_no_answer
    async_step_other_settings = _async_step_no_answer
    async_step_not_installed = _async_step_no_answer
    async_step_no_tls = _async_step_no_answer
    async_step_not_trusted = _async_step_no_answer
    async_step_in_use_here = _async_step_no_answer

    async def async_step_add_anyway(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Finish although the device did not answer."""
        return await self._async_finish("unanswered")

    async_step_save_anyway = async_step_add_anyway

    async def _async_finish(
        self, outcome: str, answer: str | None = None
    ) -> ConfigFlowResult:
        """Create the entry, with the addresses for clients; or update it."""
        plan = self._plan
        await self._async_abort_if_shared(
            plan
        )  # another dialog may have added one meanwhile
        if (entry := self._entry) is not None:
            # The update listener decides whether that needs a reload.
            self._async_update(entry)
            return self.async_update_and_abort(entry)
        listen_host, port = plan.settings.listen_host, plan.settings.listen_port
        hosts = await async_hosts_for_clients(self.hass, listen_host)
        if async_must_publish(self.hass):
            outcome += "_publish"
        return self.async_create_entry(
            title=plan.title,
            data=plan.data,
            options=plan.options,
            description=outcome,
            description_placeholders={
                "answer": answer or "",
                "port": str(port),
                "addresses": "\n".join(
                    f"- `{format_endpoint(host, port)}`" for host in hosts
                ),
                "own_address": format_endpoint(
                    host_for_home_assistant(listen_host), port
                ),
            },
        )

    @callback
    def _async_update(self, entry: TcpMultiplexerConfigEntry) -> None:
        """Store the plan in the entry that is reconfigured."""
        plan = self._plan
        # The identity that is stored may be another device's.
        gone = {*DEVICE, CONF_IDENTITY} if plan.to_try.dial else {CONF_TLS}
        kept = {key: value for key, value in entry.data.items() if key not in gone}
        self.hass.config_entries.async_update_entry(
            entry, title=plan.title, data=kept | plan.data, options=plan.options
        )

    # The form

    async def _async_show_form(
        self, error: FieldError | None = None
    ) -> ConfigFlowResult:
        """Show the form, with what was typed or stored, and the error."""
        values = self._typed
        if not values and self._entry:
            stored = self._entry.data
            tls = tls_to_show(stored.get(CONF_TLS))
            values = stored | self._sections.to_show({**stored, **tls})
            values[CONF_LISTEN_PORT] = await async_port_to_propose(
                self.hass, self._entry, listen_addresses(self._entry)[0]
            )
        # Otherwise the frontend would select the first suggestion.
        nothing = {"suggested_value": ""}
        fields: dict[vol.Marker, Any] = {
            vol.Required(
                CONF_PROTOCOL, default=DEFAULTS[CONF_PROTOCOL]
            ): protocol_field(),
            vol.Optional(CONF_HOST, description=nothing): async_host_selector(
                self.hass
            ),
            vol.Optional(CONF_PORT): PORT,
            vol.Required(
                CONF_LISTEN_PORT,
                default=values[CONF_LISTEN_PORT]
                if values
                else await async_free_port(self.hass, DEFAULTS[CONF_LISTEN_PORT]),
            ): PORT,
            vol.Required(CONF_PROFILE, default=GENERIC): PROFILE,
            vol.Required(CONF_UPSTREAM, default=UPSTREAM_TCP): UPSTREAM,
        }
        if self._entry:
            step_id, hosts = "reconfigure", []
        else:
            step_id, hosts = "user", await async_hosts_for_clients(self.hass, None)
            fields[vol.Required(CLIENTS_MAY, default=READ_AND_WRITE)] = CLIENT_RIGHTS
            fields[vol.Optional(CONF_NAME)] = TextSelector()
        return show_form(
            self,
            step_id,
            fields,
            self._sections,
            values,
            error,
            hosts=", ".join(f"`{host}`" for host in hosts),
        )

    async def _async_abort_if_shared(self, plan: Plan) -> None:
        """Abort if another entry shares this device."""
        others = async_other_entries(self.hass, self._entry)
        if await self.hass.async_add_executor_job(
            is_taken, plan.data, [other.data for other in others]
        ):
            raise AbortFlow("already_configured")

    # What is tried

    @property
    def _entry(self) -> TcpMultiplexerConfigEntry | None:
        """The entry that is reconfigured; None if one is added."""
        if self.source == SOURCE_RECONFIGURE:
            return self._get_reconfigure_entry()
        return None

    @property
    def _sections(self) -> Sections:
        return RECONFIGURE if self._entry else ADD
