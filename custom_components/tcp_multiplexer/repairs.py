"""Fix flows for the issues that `issues.py` creates.

Most lead to the dialog that changes a config entry: ours for the port, the other
integration's for the device. They end with an abort, so that the issue stays until
the problem is gone, not only until a dialog was opened.
"""

import asyncio
from functools import partialmethod
from typing import Any, Final, override

from homeassistant.components.repairs import (
    ConfirmRepairFlow,
    FlowType,
    RepairsFlow,
    RepairsFlowResult,
)
from homeassistant.config_entries import (
    SOURCE_RECONFIGURE,
    ConfigEntry,
    OperationNotAllowed,
    UnknownEntry,
)
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import issue_registry as ir

from .const import DOMAIN, SUBENTRY_LOCAL_PORT
from .coordinator import TcpMultiplexerConfigEntry
from .issues import (
    ATTR_ENTRY_ID,
    ATTR_NEIGHBOUR_ID,
    ATTR_SHARED,
    ATTR_SUBENTRY_ID,
    LENIENT_MATCHING,
)
from .multiplexer import Health, Multiplexer
from .refused_clients import (
    ATTR_CLIENTS,
    REFUSED_CLIENTS,
    allow,
    leave_out,
    offers,
)

SLOT_TIMEOUT: Final = 120.0
"""Seconds: some devices take a minute or more to free their slot."""


async def async_create_fix_flow(
    hass: HomeAssistant, issue_id: str, data: dict[str, Any] | None
) -> RepairsFlow:
    """Return the flow that fixes an issue."""
    ids = data or {}
    entry = hass.config_entries.async_get_known_entry(ids[ATTR_ENTRY_ID])
    if neighbour_id := ids.get(ATTR_NEIGHBOUR_ID):
        neighbour = hass.config_entries.async_get_known_entry(neighbour_id)
        if ids[ATTR_SHARED]:
            return SharedConnectionFlow(entry, neighbour)
        return DirectConnectionFlow(entry, neighbour)
    if issue_id.startswith(REFUSED_CLIENTS):
        return RefusedClientsFlow(entry, ids[ATTR_CLIENTS].split())
    if issue_id.startswith(LENIENT_MATCHING):
        return LenientMatchingFlow(entry)
    if subentry_id := ids.get(ATTR_SUBENTRY_ID):
        return LocalPortFlow(entry, subentry_id)
    return ReconfigureFlow(entry)


_LOOK_SECONDS: Final = 0.1
"""How often it is looked whether the device has answered."""


class ReconfigureFlow(ConfirmRepairFlow):
    """Explains, then leads to the dialog that reconfigures an entry."""

    def __init__(self, entry: ConfigEntry[Any]) -> None:
        self._entry = entry

    @override
    async def async_step_confirm(
        self, user_input: dict[str, Any] | None = None
    ) -> RepairsFlowResult:
        """Explain the problem and what happens next."""
        if user_input is not None:
            return await self.async_step_reconfigure()
        return await super().async_step_confirm()

    async def async_step_reconfigure(
        self, _: dict[str, Any] | None = None
    ) -> RepairsFlowResult:
        """Open the dialog that changes the entry."""
        return await self._async_lead_to(self._entry)

    async def _async_lead_to(self, entry: ConfigEntry[Any]) -> RepairsFlowResult:
        """End with the dialog that reconfigures `entry`."""
        result = await self.hass.config_entries.flow.async_init(
            entry.domain,
            context={"source": SOURCE_RECONFIGURE, "entry_id": entry.entry_id},
        )
        if result["type"] is FlowResultType.ABORT:
            return self.async_abort(reason="cannot_reconfigure")
        return self.async_abort(
            reason="reconfigure",
            next_flow=(FlowType.CONFIG_FLOW, result["flow_id"]),
        )


class LocalPortFlow(ReconfigureFlow):
    """Explains, then leads to the dialog that changes a further local port."""

    def __init__(self, entry: ConfigEntry[Any], subentry_id: str) -> None:
        super().__init__(entry)
        self._subentry_id = subentry_id

    @override
    async def _async_lead_to(self, entry: ConfigEntry[Any]) -> RepairsFlowResult:
        """End with the dialog of the port, unless it has been removed."""
        if self._subentry_id not in entry.subentries:
            return self.async_abort(reason="cannot_reconfigure")
        result = await self.hass.config_entries.subentries.async_init(
            (entry.entry_id, SUBENTRY_LOCAL_PORT),
            context={"source": SOURCE_RECONFIGURE, "subentry_id": self._subentry_id},
        )
        return self.async_abort(
            reason="reconfigure",
            next_flow=(FlowType.CONFIG_SUBENTRIES_FLOW, result["flow_id"]),
        )


class DirectConnectionFlow(ReconfigureFlow):
    """Takes the device's slot for the multiplexer, then opens the neighbour's dialog.

    In the order that works where there is one slot: the neighbour is unloaded, the
    multiplexer gets an answer from the device, the neighbour is set up again, and only
    then can its dialog reach the device at the multiplexer's address.
    """

    def __init__(
        self,
        entry: TcpMultiplexerConfigEntry,
        neighbour: ConfigEntry[Any],
        *,
        slot_timeout: float = SLOT_TIMEOUT,
    ) -> None:
        super().__init__(neighbour)
        self._serving = entry
        self._slot_timeout = slot_timeout
        self._task: asyncio.Task[bool] | None = None

    @override
    async def async_step_confirm(
        self, user_input: dict[str, Any] | None = None
    ) -> RepairsFlowResult:
        """Explain the problem and what happens next."""
        if user_input is not None:
            return await self.async_step_take_slot()
        return await super().async_step_confirm()

    async def async_step_take_slot(
        self, _: dict[str, Any] | None = None
    ) -> RepairsFlowResult:
        """Show progress until the device has answered the multiplexer."""
        if self._task is None:
            self._task = self.hass.async_create_task(self._async_take_slot())
        if not self._task.done():
            return self.async_show_progress(
                step_id="take_slot",
                progress_action="take_slot",
                progress_task=self._task,
                description_placeholders={
                    "title": self._serving.title,
                    "neighbour": self._entry.title,
                },
            )
        taken = self._task.result()
        return self.async_show_progress_done(
            next_step_id="reconfigure" if taken else "no_slot"
        )

    async def async_step_no_slot(
        self, _: dict[str, Any] | None = None
    ) -> RepairsFlowResult:
        """End: the device did not answer, so something else must be wrong."""
        return self.async_abort(
            reason="no_slot",
            description_placeholders={"neighbour": self._entry.title},
        )

    async def _async_take_slot(self) -> bool:
        """Unload the neighbour until the device answers the multiplexer.

        It is unloaded, not disabled: that is not stored, so that the neighbour is
        back after a restart, whatever happens.
        """
        config_entries = self.hass.config_entries
        neighbour_id = self._entry.entry_id
        try:
            if not await config_entries.async_unload(neighbour_id):
                return False
            try:
                async with asyncio.timeout(self._slot_timeout):
                    multiplexer = self._serving.runtime_data.multiplexer
                    before = multiplexer.snapshot().last_response
                    await multiplexer.reconnect()
                    await _async_answered(multiplexer, before)
            finally:
                await config_entries.async_reload(neighbour_id)
        except OperationNotAllowed, TimeoutError, UnknownEntry:
            return False
        return True


async def _async_answered(multiplexer: Multiplexer, before: float | None) -> None:
    """Wait for a response after that at `before`, or until nothing is asked."""
    while multiplexer.health is not Health.IDLE:
        if multiplexer.snapshot().last_response != before:
            return
        await asyncio.sleep(_LOOK_SECONDS)  # no event tells of a response


class SharedConnectionFlow(DirectConnectionFlow):
    """Offers the connection that the neighbour shares, before re-pointing it."""

    @override
    async def async_step_init(
        self, _: dict[str, Any] | None = None
    ) -> RepairsFlowResult:
        """Ask whether to share the connection or to change the neighbour."""
        ways = ["use_shared_connection"]
        if self._entry.supports_reconfigure:
            ways.append("confirm")
        issue = ir.async_get(self.hass).async_get_issue(DOMAIN, self.issue_id)
        return self.async_show_menu(
            step_id="init",
            menu_options=ways,
            description_placeholders=issue.translation_placeholders if issue else None,
        )

    async def async_step_use_shared_connection(
        self, _: dict[str, Any] | None = None
    ) -> RepairsFlowResult:
        """Open the multiplexer's own dialog, which offers the connection type."""
        return await self._async_lead_to(self._serving)


class LenientMatchingFlow(ConfirmRepairFlow):
    """Turns lenient matching on."""

    def __init__(self, entry: TcpMultiplexerConfigEntry) -> None:
        self._entry = entry

    @override
    async def async_step_confirm(
        self, user_input: dict[str, Any] | None = None
    ) -> RepairsFlowResult:
        """Explain what it means, and do it."""
        if user_input is not None:
            self.hass.config_entries.async_update_entry(
                self._entry,
                options={
                    **self._entry.options,
                    "matching": "lenient",
                    # without identifiers, only one may be in flight
                    "max_in_flight": 1,
                },
            )
        return await super().async_step_confirm(user_input)


class RefusedClientsFlow(RepairsFlow):
    """Lets clients in that are turned away, or leaves them out for good."""

    def __init__(self, entry: TcpMultiplexerConfigEntry, clients: list[str]) -> None:
        self._entry = entry
        self._clients = clients
        self._offers: dict[str, list[str]] = {}

    async def async_step_init(
        self, _: dict[str, Any] | None = None
    ) -> RepairsFlowResult:
        """Say who they are, and offer what may be done."""
        self._offers = offers(self.hass, self._clients)
        issue = ir.async_get(self.hass).async_get_issue(DOMAIN, self.issue_id)
        addresses = {
            f"client_{number}": client for number, client in enumerate(self._clients, 1)
        }
        networks = {step: ", ".join(each) for step, each in self._offers.items()}
        return self.async_show_menu(
            step_id="init",
            menu_options=[*self._offers, "leave_out"],
            description_placeholders={
                **((issue and issue.translation_placeholders) or {}),
                **addresses,
                "network": networks.get("allow_own_network", ""),
            },
        )

    async def _async_allow(
        self, _: dict[str, Any] | None = None, *, step: str
    ) -> RepairsFlowResult:
        """Allow what a step of the menu offers."""
        allow(self.hass, self._entry, self._offers[step])
        return self.async_create_entry(data={})

    async_step_allow_1 = partialmethod(_async_allow, step="allow_1")
    async_step_allow_2 = partialmethod(_async_allow, step="allow_2")
    async_step_allow_3 = partialmethod(_async_allow, step="allow_3")
    async_step_allow_4 = partialmethod(_async_allow, step="allow_4")
    async_step_allow_5 = partialmethod(_async_allow, step="allow_5")
    async_step_allow_tailscale = partialmethod(_async_allow, step="allow_tailscale")
    async_step_allow_own_network = partialmethod(_async_allow, step="allow_own_network")

    async def async_step_leave_out(
        self, _: dict[str, Any] | None = None
    ) -> RepairsFlowResult:
        """Turn them away in silence from now on."""
        leave_out(self.hass, self._entry, self._clients)
        return self.async_create_entry(data={})
