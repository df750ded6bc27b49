"""The dialogs: add a multiplexer, reconfigure it, change its options.

The way of the first two: a form, then everything in it is tried (`probe.py`), and then
one of three pages. The form again, with the error at the field that caused it and all
that was typed; a menu, if only the device did not answer, because inverters sleep at
night; or the end. What is tried, and with what words a failure is told, is the same
for both.

A running entry holds the device's only slot, and its port. So `reconfigure` unloads it
while it tries, only if what it holds must be tried, and sets it up again before any
page is shown: whoever walks away from a dialog leaves a running multiplexer behind.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final, override

from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntryState,
    ConfigFlow,
    ConfigFlowResult,
    OptionsFlow,
)
from homeassistant.const import CONF_HOST, CONF_NAME, CONF_PORT, CONF_PROTOCOL
from homeassistant.core import callback
from homeassistant.helpers.selector import (
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    TextSelector,
)
from homeassistant.loader import Integration, async_get_integrations
import voluptuous as vol

from .addresses import (
    ANY_IPV4,
    ANY_IPV6,
    async_hosts_for_clients,
    async_must_publish,
    format_endpoint,
    host_for_home_assistant,
    parse_endpoint,
)
from .const import (
    CONF_ALLOW_SEND_REQUEST,
    CONF_CLIENT_NAMES,
    CONF_IDENTITY,
    CONF_LISTEN_HOST,
    CONF_LISTEN_PORT,
    CONF_PROFILE,
    CONF_UPDATE_INTERVAL,
    CONF_UPSTREAM,
    DOMAIN,
    UPSTREAM_HOME_ASSISTANT,
    UPSTREAM_RTU,
    UPSTREAM_TCP,
)
from .coordinator import TcpMultiplexerConfigEntry
from .entry_settings import GENERIC, profile_settings
from .forms import (
    DEFAULTS,
    PORT,
    PROTOCOL,
    FieldError,
    Sections,
    checked_settings,
    whole,
    worth_storing,
)
from .identify import Identity
from .multiplexer.profiles import PROFILES
from .multiplexer.settings import Settings
from .neighbours import async_neighbours, async_who_dials
from .probe import (
    DeviceError,
    DeviceProblem,
    ListenProblem,
    Meeting,
    ask_device,
    next_free_port,
    own_addresses,
    try_listen,
)
from .shared_connection import async_ask_shared

_CONNECTION: Final = (
    "timeout",
    "connect_delay",
    "request_delay",
    "connect_on_demand",
    "idle_timeout",
    "max_lifetime",
    "unit_id",
)
_MODBUS: Final = (
    "share_reads",
    "cache_ttl",
    "writes_first",
    "write_policy",
    "write_networks",
    "allowed_functions",
    "allowed_units",
    "max_read_registers",
    "unit_map",
    "matching",
    "quiet",
)
_POOL: Final = ("max_connections", "max_in_flight", "queue_size")
_ACCESS: Final = ("allowed_networks", "max_clients")

_ADD: Final = Sections(
    connection=_CONNECTION, pool=_POOL, access=(CONF_LISTEN_HOST, *_ACCESS)
)
_RECONFIGURE: Final = Sections(access=(CONF_LISTEN_HOST,))
_OPTIONS: Final = {
    "connection": _CONNECTION,
    "recovery": (
        "reconnect_backoff",
        "reconnect_backoff_max",
        "health_check_interval",
        "probe",
    ),
    "pool": (*_POOL, "on_failure", "max_body"),
    "modbus": _MODBUS,
    "access": _ACCESS,
    "home_assistant": (
        CONF_UPDATE_INTERVAL,
        CONF_CLIENT_NAMES,
        CONF_ALLOW_SEND_REQUEST,
        "trace_size",
    ),
}

_UPSTREAM: Final = {
    CONF_PROTOCOL,
    CONF_HOST,
    CONF_PORT,
    CONF_UPSTREAM,
    CONF_PROFILE,
}
_LISTENING: Final = {CONF_LISTEN_HOST, CONF_LISTEN_PORT}
_EVERYWHERE: Final = {None, ANY_IPV4, ANY_IPV6}

_PROFILE: Final = SelectSelector(
    SelectSelectorConfig(
        options=list(PROFILES),
        mode=SelectSelectorMode.DROPDOWN,
        translation_key="profile",
    )
)
_UPSTREAM_KIND: Final = SelectSelector(
    SelectSelectorConfig(
        options=[UPSTREAM_TCP, UPSTREAM_RTU, UPSTREAM_HOME_ASSISTANT],
        mode=SelectSelectorMode.DROPDOWN,
        translation_key="upstream",
    )
)
_UNIT: Final = "unit_id"
_UNIT_SELECTOR: Final = whole(0, 255)
_UPSTREAM_DEFAULTS: Final = {CONF_PROFILE: GENERIC, CONF_UPSTREAM: UPSTREAM_TCP}
"""What an entry means that names neither."""

IN_USE_HERE: Final = "in_use_here"
"""The menu when somebody in this Home Assistant dials the device that is silent."""

# An entry that waits for its next attempt counts: the attempt would come in between.
_RELEASABLE: Final = (
    ConfigEntryState.LOADED,
    ConfigEntryState.SETUP_RETRY,
    ConfigEntryState.SETUP_ERROR,
)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What the entry will be if all goes well, and what has to be tried before."""

    title: str
    data: dict[str, Any]
    options: Mapping[str, Any]
    settings: Settings
    dial: bool
    bind: bool
    release: bool
    """Whether the running entry holds what has to be tried."""


def _as_stored(identity: Identity) -> dict[str, str]:
    """Give what a device said of itself, as an entry keeps it."""
    return {key: value for key, value in asdict(identity).items() if key != "unit"}


@callback
def _show_form(  # noqa: PLR0917 - one page, all of it
    flow: ConfigFlow | OptionsFlow,
    step_id: str,
    fields: dict[vol.Marker, Any],
    sections: Sections,
    values: Mapping[str, Any] | None,
    error: FieldError | None,
) -> ConfigFlowResult:
    """Show fields and sections with their values, and the error where it belongs."""
    place = sections.place(error.field) if error else ""
    fields = fields | sections.schema(opened=place)
    return flow.async_show_form(
        step_id=step_id,
        data_schema=flow.add_suggested_values_to_schema(vol.Schema(fields), values),
        errors={place if place in fields else "base": error.key} if error else None,
        description_placeholders=error.placeholders if error else None,
    )


class TcpMultiplexerConfigFlow(ConfigFlow, domain=DOMAIN):
    """Adds and reconfigures multiplexers."""

    VERSION = 1
    MINOR_VERSION = 1

    _typed: Mapping[str, Any] = MappingProxyType({})
    """What the form held when it was last sent."""
    _plan: _Plan
    """What it said."""
    _met = Meeting()
    """What came of asking the device."""
    _problem: DeviceProblem
    """Why the device did not answer."""

    @staticmethod
    @callback
    @override
    def async_get_options_flow(
        config_entry: TcpMultiplexerConfigEntry,
    ) -> TcpMultiplexerOptionsFlow:
        """Give the flow that changes preferences."""
        return TcpMultiplexerOptionsFlow()

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
        self._typed = user_input
        return await self.async_step_try_again()

    async def async_step_change(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Go back to the form, with what was typed."""
        return await self._async_show_form()

    async def async_step_try_again(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Try what was typed, and show the page that follows from it."""
        try:
            plan = self._plan = self._async_plan()
            await self._async_check_own_listeners(plan)
            async with self._async_out_of_the_way(plan):
                if plan.bind:
                    await self._async_bind(plan)
                met = await self._async_dial(plan) if plan.dial else Meeting()
                self._met = met
                if (said := met.identity) is not None and said.name:
                    plan.data[CONF_IDENTITY] = _as_stored(said)
                if self._async_has_proposal():
                    return await self.async_step_identified()
                return await self._async_finish_met()
        except FieldError as err:
            return await self._async_show_form(err)
        except DeviceError as err:
            self._problem = err.problem
            return await self._async_step_no_answer()

    async def async_step_identified(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Propose what follows from what the device said of itself."""
        plan, said = self._plan, self._met.identity
        if user_input is not None:
            plan.data[CONF_PROFILE] = user_input[CONF_PROFILE]
            unit = worth_storing({_UNIT: user_input[_UNIT]})
            options = {k: v for k, v in plan.options.items() if k != _UNIT} | unit
            self._plan = replace(
                plan,
                title=user_input[CONF_NAME].strip() or plan.title,
                options=options,
                settings=checked_settings(plan.data, options),
            )
            return await self._async_finish_met()
        typed = self._typed.get(CONF_NAME, "").strip()
        profile = (said and said.profile) or plan.data[CONF_PROFILE]
        if plan.data[CONF_PROFILE] != GENERIC:
            profile = plan.data[CONF_PROFILE]
        fields = {
            vol.Required(
                CONF_NAME, default=typed or (said and said.name) or plan.title
            ): TextSelector(),
            vol.Required(CONF_PROFILE, default=profile): _PROFILE,
            vol.Required(
                _UNIT, default=said.unit if said else plan.settings.unit_id
            ): _UNIT_SELECTOR,
        }
        return self.async_show_form(
            step_id="identified",
            data_schema=vol.Schema(fields),
            description_placeholders={
                "device": (said and said.name) or self._met.answer or "",
                "answer": self._met.answer or "",
            },
        )

    @callback
    def _async_has_proposal(self) -> bool:
        """Tell whether the device said more than was typed."""
        said = self._met.identity
        return (
            self._entry is None
            and said is not None
            and bool(said.name or said.unit != self._plan.settings.unit_id)
        )

    async def _async_finish_met(self) -> ConfigFlowResult:
        """End with what the device answered, if it was asked anything."""
        answer = self._met.answer
        return await self._async_finish("answered" if answer else "connected", answer)

    async def _async_step_no_answer(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Say why the device did not answer, and ask what to do about it."""
        settings = self._plan.settings
        names = await self._async_names_of_neighbours(settings)
        anyway = "save_anyway" if self._entry else "add_anyway"
        return self.async_show_menu(
            step_id=IN_USE_HERE if names else self._problem,
            menu_options=["try_again", "change", anyway],
            description_placeholders={
                "endpoint": format_endpoint(settings.host, settings.port),
                "unit": str(settings.unit_id),
                "names": names,
            },
        )

    # A page of its own for each problem: that is how the frontend finds its words.
    async_step_unknown_host = _async_step_no_answer
    async_step_unreachable = _async_step_no_answer
    async_step_refused = _async_step_no_answer
    async_step_closed = _async_step_no_answer
    async_step_silent = _async_step_no_answer
    async_step_not_understood = _async_step_no_answer
    async_step_other_settings = _async_step_no_answer
    async_step_in_use_here = _async_step_no_answer

    async def async_step_add_anyway(
        self, _: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """End although the device did not answer."""
        return await self._async_finish("unanswered")

    async_step_save_anyway = async_step_add_anyway

    async def _async_finish(
        self, outcome: str, answer: str | None = None
    ) -> ConfigFlowResult:
        """Create or update the entry, and say which addresses to use from now on."""
        plan = self._plan
        self._async_abort_if_shared(plan)  # in the meantime, from another dialog
        if self._entry:
            # Whoever listens to updates decides whether that needs a reload.
            return self.async_update_and_abort(self._entry, data_updates=plan.data)
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

    # The form

    async def _async_show_form(
        self, error: FieldError | None = None
    ) -> ConfigFlowResult:
        """Show the form, with what was typed and what is wrong with it."""
        values = self._typed
        if not values and self._entry:
            values = self._entry.data | self._sections.to_show(self._entry.data)
        # The frontend would choose the first suggestion by itself.
        nothing = {"suggested_value": ""}
        fields: dict[vol.Marker, Any] = {
            vol.Required(CONF_PROTOCOL, default=DEFAULTS[CONF_PROTOCOL]): PROTOCOL,
            vol.Required(CONF_HOST, description=nothing): self._async_host_selector(),
            vol.Required(CONF_PORT, default=DEFAULTS[CONF_PORT]): PORT,
            vol.Required(
                CONF_LISTEN_PORT,
                default=values[CONF_LISTEN_PORT]
                if values
                else await self._async_free_port(DEFAULTS[CONF_LISTEN_PORT]),
            ): PORT,
            vol.Required(CONF_PROFILE, default=GENERIC): _PROFILE,
            vol.Required(CONF_UPSTREAM, default=UPSTREAM_TCP): _UPSTREAM_KIND,
        }
        if not self._entry:
            fields[vol.Optional(CONF_NAME)] = TextSelector()
        step_id = "reconfigure" if self._entry else "user"
        return _show_form(self, step_id, fields, self._sections, values, error)

    @callback
    def _async_host_selector(self) -> TextSelector | SelectSelector:
        """Suggest whom others already talk to; anything else may be typed."""
        own = {
            endpoint
            for entry in self._async_current_entries()
            for endpoint in (
                (entry.data[CONF_HOST], entry.data[CONF_PORT]),
                (
                    host_for_home_assistant(entry.data[CONF_LISTEN_HOST]),
                    entry.data[CONF_LISTEN_PORT],
                ),
            )
        }
        suggestions = {
            format_endpoint(neighbour.host, neighbour.port): neighbour.name
            for neighbour in sorted(
                async_neighbours(self.hass),
                # Devices that speak Modbus first
                key=lambda other: (not other.shared, other.port != DEFAULTS[CONF_PORT]),
            )
            if (neighbour.host, neighbour.port) not in own
        }
        if not suggestions:
            return TextSelector()
        return SelectSelector(
            SelectSelectorConfig(
                options=[
                    SelectOptionDict(value=endpoint, label=f"{name} ({endpoint})")
                    for endpoint, name in suggestions.items()
                ],
                custom_value=True,
                mode=SelectSelectorMode.DROPDOWN,
            )
        )

    @callback
    def _async_plan(self) -> _Plan:
        """Read the form.

        Raises:
            FieldError: something in it cannot be used.
            AbortFlow: another entry shares this device.

        """
        try:
            host, port = parse_endpoint(self._typed[CONF_HOST])
        except ValueError:
            raise FieldError(CONF_HOST, "invalid_host") from None
        values = self._sections.to_store(self._typed)
        data: dict[str, Any] = {
            CONF_PROTOCOL: self._typed[CONF_PROTOCOL],
            CONF_HOST: host,
            CONF_PORT: port or self._typed[CONF_PORT],
            CONF_LISTEN_HOST: values.pop(CONF_LISTEN_HOST),
            CONF_LISTEN_PORT: self._typed[CONF_LISTEN_PORT],
            CONF_PROFILE: self._typed[CONF_PROFILE],
            CONF_UPSTREAM: self._typed[CONF_UPSTREAM],
        }
        is_modbus = data[CONF_PROTOCOL] == "modbus"
        if data[CONF_UPSTREAM] != UPSTREAM_TCP and not is_modbus:
            raise FieldError(CONF_UPSTREAM, "only_modbus")
        options = self._entry.options if self._entry else worth_storing(values)
        plan = _Plan(
            title=self._typed.get(CONF_NAME, "").strip() or host,
            data=data,
            options=options,
            settings=checked_settings(data, options),
            **self._async_what_to_try(data),
        )
        self._async_abort_if_shared(plan)
        return plan

    @callback
    def _async_what_to_try(self, data: dict[str, Any]) -> dict[str, bool]:
        """Compare with the entry that is reconfigured: what runs needs no proof."""
        if (entry := self._entry) is None:
            return {"dial": True, "bind": True, "release": False}
        running = entry.state is ConfigEntryState.LOADED
        before = _UPSTREAM_DEFAULTS | entry.data
        changed = {key for key, value in data.items() if before[key] != value}
        dial = not changed.isdisjoint(_UPSTREAM)
        bind = not (running and changed.isdisjoint(_LISTENING))
        needs_own_port = bind and not (running and CONF_LISTEN_PORT in changed)
        return {
            "dial": dial,
            "bind": bind,
            "release": entry.state in _RELEASABLE and (dial or needs_own_port),
        }

    @callback
    def _async_abort_if_shared(self, plan: _Plan) -> None:
        """Abort if another entry shares this device."""
        self._async_abort_entries_match(
            {key: plan.data[key] for key in (CONF_HOST, CONF_PORT)}
        )

    # What is tried

    @property
    def _entry(self) -> TcpMultiplexerConfigEntry | None:
        """The entry that is reconfigured; None: one is added."""
        if self.source == SOURCE_RECONFIGURE:
            return self._get_reconfigure_entry()
        return None

    @property
    def _sections(self) -> Sections:
        return _RECONFIGURE if self._entry else _ADD

    @property
    def _others(self) -> list[TcpMultiplexerConfigEntry]:
        """All entries but the one that is reconfigured."""
        return [
            entry
            for entry in self._async_current_entries(include_ignore=False)
            if entry is not self._entry
        ]

    async def _async_check_own_listeners(self, plan: _Plan) -> None:
        """Check the plan against what this integration listens on.

        Raises:
            FieldError: it wants another entry's port, or a listener for a device.

        """
        settings = plan.settings
        listeners = [
            (entry.title, entry.data[CONF_LISTEN_HOST], entry.data[CONF_LISTEN_PORT])
            for entry in self._others
        ]
        for title, host, port in listeners:
            if port == settings.listen_port and (
                host == settings.listen_host
                or _EVERYWHERE & {host, settings.listen_host}
            ):
                raise FieldError(
                    CONF_LISTEN_PORT,
                    "port_of_entry",
                    title=title,
                    suggestion=str(await self._async_free_port(port + 1)),
                )
        listeners.append(("", settings.listen_host, settings.listen_port))
        listeners = [each for each in listeners if each[2] == settings.port]
        own = await own_addresses(settings.host) if listeners else set()
        for title, host, _ in listeners:
            if own and host in _EVERYWHERE | own:
                key = "own_listener" if title else "itself"
                raise FieldError(CONF_HOST, key, title=title)

    async def _async_dial(self, plan: _Plan) -> Meeting:
        """Ask the device something harmless, on the way that will be used.

        Raises:
            DeviceError: it does not answer.

        """
        if plan.data[CONF_UPSTREAM] == UPSTREAM_HOME_ASSISTANT:
            return await async_ask_shared(self.hass, plan.settings)
        profile = PROFILES.get(plan.data[CONF_PROFILE], PROFILES[GENERIC])
        return await ask_device(plan.settings, profile.units)

    async def _async_bind(self, plan: _Plan) -> None:
        """Try to listen.

        Raises:
            FieldError: that is not possible.

        """
        host, port = plan.settings.listen_host, plan.settings.listen_port
        match problem := await try_listen(host, port):
            case None:
                return
            case ListenProblem.NOT_HERE:
                raise FieldError(CONF_LISTEN_HOST, problem)
            case ListenProblem.IN_USE:
                free = await self._async_free_port(port + 1, host)
            case _:
                free = await self._async_free_port(DEFAULTS[CONF_LISTEN_PORT], host)
        raise FieldError(CONF_LISTEN_PORT, problem, suggestion=str(free))

    async def _async_free_port(self, port: int, host: str | None = None) -> int:
        """Give the first port from `port` on that nobody has, nor wants to have."""
        taken = {entry.data[CONF_LISTEN_PORT] for entry in self._others}
        return await next_free_port(host, port, taken)

    @asynccontextmanager
    async def _async_out_of_the_way(self, plan: _Plan) -> AsyncIterator[None]:
        """Unload the entry that is reconfigured, while what it holds is tried."""
        entry = self._entry
        # One that cannot be unloaded stays; what is tried then tells what is wrong.
        released = (
            entry is not None
            and plan.release
            and await self.hass.config_entries.async_unload(entry.entry_id)
        )
        try:
            yield
        finally:
            if released and entry and entry.state is ConfigEntryState.NOT_LOADED:
                await self.hass.config_entries.async_setup(entry.entry_id)

    async def _async_names_of_neighbours(self, settings: Settings) -> str:
        """Name those in this Home Assistant who dial the same device."""
        neighbours = async_who_dials(self.hass, settings.host, settings.port)
        integrations = await async_get_integrations(
            self.hass, {neighbour.domain for neighbour in neighbours}
        )
        names = {
            domain: integration.name if isinstance(integration, Integration) else domain
            for domain, integration in integrations.items()
        }
        return ", ".join(
            f"{neighbour.name} ({names[neighbour.domain]})" for neighbour in neighbours
        )


class TcpMultiplexerOptionsFlow(OptionsFlow):
    """Changes preferences. Nothing is tried: they are applied to what runs."""

    async def async_step_init(
        self, user_input: dict[str, Any] | None = None
    ) -> ConfigFlowResult:
        """Ask for all preferences, by section."""
        entry = self.config_entry
        profile = profile_settings(entry.data)
        sections = Sections(entry.data[CONF_PROTOCOL], **_OPTIONS)
        error: FieldError | None = None
        if user_input is not None:
            try:
                values = sections.to_store(user_input)
                # What the form did not show stays as it is.
                kept = {k: v for k, v in entry.options.items() if k not in values}
                options = kept | worth_storing(values, profile)
                checked_settings(entry.data, options)
            except FieldError as err:
                error = err
            else:
                return self.async_create_entry(data=options)
        values = user_input or sections.to_show(profile | entry.options)
        return _show_form(self, "init", {}, sections, values, error)
