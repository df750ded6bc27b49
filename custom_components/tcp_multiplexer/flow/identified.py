"""The page that proposes what follows from what a device reported about itself."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from homeassistant.const import CONF_NAME
from homeassistant.helpers.selector import TextSelector
import voluptuous as vol

from ..const import CONF_IDENTITY, CONF_PROFILE
from ..coordinator import TcpMultiplexerConfigEntry
from ..entry_settings import GENERIC
from .fields import FIELDS, PROFILE, to_store, worth_storing
from .identify import Identity
from .plan import Plan, checked_settings
from .probe import ProbeResult

_UNIT = "unit_id"


def as_stored(identity: Identity) -> dict[str, str]:
    """Return what a device reported about itself, as an entry stores it."""
    return {key: value for key, value in asdict(identity).items() if key != "unit"}


def described(result: ProbeResult) -> str | None:
    """Return what a device is, or else what it answered; None: it was not asked."""
    said = result.identity
    if said and said.name:
        return ", ".join(filter(None, (said.name, said.version, said.serial)))
    return result.answer


def has_proposal(
    result: ProbeResult, plan: Plan, entry: TcpMultiplexerConfigEntry | None
) -> bool:
    """Return whether a device reported anything that is not typed or stored."""
    if (said := result.identity) is None:
        return False
    known = entry.data.get(CONF_IDENTITY) if entry else None
    news = bool(said.name) and known != as_stored(said)
    return news or said.unit != plan.settings.unit_id


def identified_form(result: ProbeResult, plan: Plan) -> vol.Schema:
    """Return the form that proposes a name, a profile and the unit that answered."""
    said = result.identity
    profile = plan.data[CONF_PROFILE]
    if profile == GENERIC and said and said.profile:
        profile = said.profile
    # The name that the user gave the device, or else its own.
    name = plan.title if plan.named or not (said and said.name) else said.name
    unit = said.unit if said else plan.settings.unit_id
    return vol.Schema(
        {
            vol.Required(CONF_NAME, default=name): TextSelector(),
            vol.Required(CONF_PROFILE, default=profile): PROFILE,
            vol.Required(_UNIT, default=unit): FIELDS[_UNIT],
        }
    )


def with_identity(plan: Plan, typed: Mapping[str, Any]) -> Plan:
    """Return a plan with what its user made of the device's answer.

    Raises:
        FieldError: something of that is invalid.

    """
    data = {**plan.data, CONF_PROFILE: typed[CONF_PROFILE]}
    unit = worth_storing({_UNIT: to_store(_UNIT, typed[_UNIT])})
    options = {k: v for k, v in plan.options.items() if k != _UNIT} | unit
    return replace(
        plan,
        title=typed[CONF_NAME].strip() or plan.title,
        data=data,
        options=options,
        settings=checked_settings(data, options, plan.subentries),
    )
