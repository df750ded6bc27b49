"""Captures as files: a link that is the right by itself.

A response of an action cannot be clicked, and a browser that follows a link sends no
token of the user's. So the link has a secret in it, works once and for five minutes,
and stands in a notification that goes with it. It is kept in memory alone, one for each
entry.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
import secrets
from typing import Final

from aiohttp import web
from homeassistant.components import persistent_notification
from homeassistant.components.http import HomeAssistantView
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.event import async_call_later
from homeassistant.helpers.network import NoURLAvailableError, get_url
from homeassistant.helpers.translation import async_get_translations
from homeassistant.util import dt as dt_util, slugify
from homeassistant.util.hass_dict import HassKey

from ..const import DOMAIN
from ..coordinator import TcpMultiplexerConfigEntry

LIFETIME: Final = timedelta(minutes=5)
_PATH: Final = f"/api/{DOMAIN}/capture/"


@dataclass(frozen=True, kw_only=True)
class _Offer:
    """A capture that may be fetched."""

    entry_id: str
    name: str
    content: bytes
    forget: Callable[[], None]
    """Cancels the end of its time."""


_OFFERS: Final[HassKey[dict[str, _Offer]]] = HassKey(f"{DOMAIN}_captures")


@callback
def _async_offers(hass: HomeAssistant) -> dict[str, _Offer]:
    """Return what is offered; from the first time on, it is served."""
    if (offers := hass.data.get(_OFFERS)) is None:
        offers = hass.data[_OFFERS] = {}
        hass.http.register_view(CaptureView())
    return offers


class CaptureView(HomeAssistantView):
    """Serves a capture to whoever has its link."""

    url = _PATH + "{token}"
    name = f"api:{DOMAIN}:capture"
    requires_auth = False

    async def get(self, request: web.Request, token: str) -> web.Response:
        """Return a capture, once."""
        hass = request.app["hass"]
        offer = _async_take(hass, token)
        if offer is None:
            raise web.HTTPNotFound
        return web.Response(
            body=offer.content,
            content_type="application/vnd.tcpdump.pcap",
            headers={
                "Cache-Control": "no-store",
                "Content-Disposition": f'attachment; filename="{offer.name}"',
            },
        )


async def async_offer(
    hass: HomeAssistant, entry: TcpMultiplexerConfigEntry, content: bytes
) -> tuple[str, datetime]:
    """Offer a capture in a notification; return its link, and when that ends.

    Raises:
        HomeAssistantError: Home Assistant does not know its own address.

    """
    base = _own_url(hass)
    offers = _async_offers(hass)
    for token, offer in tuple(offers.items()):
        if offer.entry_id == entry.entry_id:
            _async_take(hass, token)
    token = secrets.token_urlsafe(32)

    @callback
    def expire(_now: datetime) -> None:
        _async_take(hass, token)

    offers[token] = _Offer(
        entry_id=entry.entry_id,
        name=f"{slugify(entry.title)}.pcap",
        content=content,
        forget=async_call_later(hass, LIFETIME, expire),
    )
    link = f"{base}{_PATH}{token}"
    words = await async_get_translations(hass, hass.config.language, "common", {DOMAIN})
    common = f"component.{DOMAIN}.common"
    minutes = LIFETIME // timedelta(minutes=1)
    persistent_notification.async_create(
        hass,
        words[f"{common}.capture_link"].format(link=link, minutes=minutes),
        title=words[f"{common}.capture_title"].format(title=entry.title),
        notification_id=_notification_id(entry.entry_id),
    )
    return link, dt_util.utcnow() + LIFETIME


def _notification_id(entry_id: str) -> str:
    return f"{DOMAIN}_capture_{entry_id}"


@callback
def _async_take(hass: HomeAssistant, token: str) -> _Offer | None:
    """Return what is offered at a link, and end that; None: nothing is."""
    if (offer := _async_offers(hass).pop(token, None)) is not None:
        offer.forget()
        persistent_notification.async_dismiss(hass, _notification_id(offer.entry_id))
    return offer


def _own_url(hass: HomeAssistant) -> str:
    """Return the address at which whoever asks reaches Home Assistant, or any."""
    with suppress(NoURLAvailableError):
        return get_url(hass, require_current_request=True)
    try:
        return get_url(hass)
    except NoURLAvailableError as err:
        raise HomeAssistantError(
            translation_domain=DOMAIN, translation_key="no_own_url"
        ) from err
