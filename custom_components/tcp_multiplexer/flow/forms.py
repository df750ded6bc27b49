"""The forms: which field stands in which section, and where an error is shown.

A form is a list of sections, and a section a list of names of fields.
"""

from collections.abc import Mapping
from typing import Any, Final

from homeassistant.const import CONF_DEVICE
from homeassistant.core import callback
from homeassistant.data_entry_flow import FlowHandler, FlowResult, section
import voluptuous as vol

from ..const import (
    CONF_BAUDRATE,
    CONF_DIAL_IN_DEVICE,
    CONF_DIAL_IN_PORT,
    CONF_LISTEN_HOST,
    CONF_PARITY,
    CONF_STOPBITS,
)
from ..multiplexer import Section
from .fields import (
    DEFAULTS,
    FIELDS,
    TLS,
    TLS_CA,
    TLS_CERTIFICATE,
    TLS_KEY,
    TLS_SERVER_NAME,
    FieldError,
    applies_to,
    marker,
    settings_in,
    to_show,
    to_store,
)

SERIAL_LINE: Final = (CONF_DEVICE, CONF_BAUDRATE, CONF_PARITY, CONF_STOPBITS)
DIAL_IN: Final = (CONF_DIAL_IN_PORT, CONF_DIAL_IN_DEVICE)
UPSTREAM_TLS: Final = (TLS, TLS_CA, TLS_SERVER_NAME, TLS_CERTIFICATE, TLS_KEY)


class Sections:
    """The collapsed part of a form: fields by section."""

    def __init__(self, protocol: str | None = None, **names: tuple[str, ...]) -> None:
        """Keep the fields that apply to `protocol`; None: all."""
        names_of_protocol = {
            title: tuple(
                field
                for field in fields
                if protocol is None or applies_to(protocol, field)
            )
            for title, fields in names.items()
        }
        self._names = {k: fields for k, fields in names_of_protocol.items() if fields}

    def schema(self, opened: str = "") -> dict[vol.Marker, section]:
        """Return the last fields of a form; only the section `opened` is open."""
        return {
            vol.Required(title): section(
                vol.Schema({marker(field): FIELDS[field] for field in fields}),
                {"collapsed": title != opened},
            )
            for title, fields in self._names.items()
        }

    def error_key(self, field: str) -> str:
        """Return the key under which a form shows the error of a field.

        Home Assistant's frontend shows no errors in a section, only above it.
        """
        for title, fields in self._names.items():
            if field in fields:
                return title
        return field

    def to_store(self, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Convert what was typed in these sections to what is stored.

        Raises:
            FieldError: something is invalid.

        """
        return {
            field: to_store(field, typed[title].get(field, ""))
            for title, fields in self._names.items()
            for field in fields
        }

    def to_show(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Convert what is stored to what the form shows."""
        return {
            title: {
                field: to_show(field, stored.get(field, DEFAULTS[field]))
                for field in fields
            }
            for title, fields in self._names.items()
        }


ADD: Final = Sections(
    serial=SERIAL_LINE,
    dial_in=DIAL_IN,
    connection=settings_in(Section.CONNECTION),
    tls=UPSTREAM_TLS,
    pool=("max_connections", "max_in_flight", "queue_size"),
    access=(CONF_LISTEN_HOST, *settings_in(Section.ACCESS)),
)
RECONFIGURE: Final = Sections(
    serial=SERIAL_LINE, dial_in=DIAL_IN, tls=UPSTREAM_TLS, access=(CONF_LISTEN_HOST,)
)


@callback
def show_form[ResultT: FlowResult[Any, Any]](  # noqa: PLR0917 - a page as a whole
    flow: FlowHandler[Any, ResultT, Any],
    step_id: str,
    fields: dict[vol.Marker, Any],
    sections: Sections,
    values: Mapping[str, Any] | None,
    error: FieldError | None,
    **placeholders: str,
) -> ResultT:
    """Show fields and sections with their values, and the error at its place."""
    key = sections.error_key(error.field) if error else ""
    fields = fields | sections.schema(opened=key)
    return flow.async_show_form(
        step_id=step_id,
        data_schema=flow.add_suggested_values_to_schema(vol.Schema(fields), values),
        errors={key if key in fields else "base": error.key} if error else None,
        description_placeholders=placeholders | (error.placeholders if error else {}),
    )


def fields_for(protocol: str, *names: str) -> dict[vol.Marker, Any]:
    """Return those of the fields that apply to `protocol`."""
    return {marker(name): FIELDS[name] for name in names if applies_to(protocol, name)}
