"""What changes often is shown seldom, and what is bad at once."""

from homeassistant.const import STATE_OFF, STATE_ON
from homeassistant.core import HomeAssistant
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.tcp_multiplexer.const import CONF_UPDATE_INTERVAL
from custom_components.tcp_multiplexer.pace import Damper, Pace, Sparing
from tests.waiting import until

from .peers import ModbusDevice
from .test_entities import load
from .test_init import CONNECTION, HEALTH

GOOD, POOR, BAD = range(3)


def test_a_burst_and_then_now_and_then() -> None:
    pace = Pace(10, burst=2)
    assert pace.idle(100)
    for _ in range(2):
        assert pace.due(100) == 100
        pace.spend(100)
    assert not pace.idle(100)
    assert pace.due(100) == 110
    assert pace.due(100, more=1) == 100
    assert pace.due(111) == 111
    assert pace.idle(120)


# Good news and bad news


def test_bad_news_at_once_and_good_news_once_it_lasts() -> None:
    damper = Damper()
    now = 1000.0
    assert damper.due(GOOD, now) == now
    for wait in (*Damper.WAITS, Damper.WAITS[-1]):
        assert damper.due(BAD, now) == now
        assert damper.shown == BAD
        assert damper.due(GOOD, now) == now + wait
        if wait:
            # Meanwhile it may be better or worse, as long as it is better than shown.
            assert damper.due(POOR, now + wait / 2) == now + wait
            assert damper.shown == BAD
        now += wait
        assert damper.due(GOOD, now) == now
        assert damper.shown == GOOD
        now += 1


def test_good_news_that_does_not_last_begins_anew() -> None:
    damper = Damper()
    for rank in (BAD, GOOD, BAD, GOOD, BAD):
        assert damper.due(rank, 0) == 0
    assert damper.due(GOOD, 10) == 70
    assert damper.due(BAD, 60) == 60
    assert damper.due(GOOD, 61) == 121


def test_what_was_good_for_long_is_forgiven() -> None:
    damper = Damper()
    now = 0.0
    for _ in range(10):
        damper.due(BAD, now)
        now = damper.due(GOOD, now)
        damper.due(GOOD, now)
    now += Damper.CALM_SECONDS
    assert damper.due(BAD, now) == now
    assert damper.due(GOOD, now) == now


def test_what_the_owner_does_is_shown_at_once() -> None:
    damper = Damper()
    for rank in (GOOD, BAD, GOOD, BAD, GOOD, BAD):
        damper.due(rank, 0)
    assert damper.due(GOOD, 1) > 1
    assert damper.due(None, 2) == 2
    assert damper.due(GOOD, 3) == 3


# Numbers


@pytest.mark.parametrize(
    ("shown", "value", "much"),
    [
        (0, 1, False),
        (0, 9, False),
        (0, 10, True),
        (100, 199, False),
        (100, 200, True),
        (100, 51, False),
        (100, 50, True),
        (15.0, 24.9, False),
        (None, 0, True),
        (7.5, None, True),
        ("then", "now", False),
    ],
)
def test_what_moves_much_is_shown_at_once(
    shown: object, value: object, much: bool
) -> None:
    sparing = Sparing()
    assert sparing.may_show(None, shown, 0)
    assert sparing.may_show(shown, value, 1) is much
    assert sparing.may_show(shown, value, 2 * Sparing.LITTLE_SECONDS)


def test_not_even_what_moves_much_is_shown_all_the_time() -> None:
    sparing = Sparing()
    value, count = 0, 0
    for now in range(0, 3600, 10):
        if sparing.may_show(value, 1000 - value, now):
            value, count = 1000 - value, count + 1
    assert count <= 3600 / Sparing.LITTLE_SECONDS + Sparing.BURST


# A real device


async def test_a_device_that_comes_and_goes_is_shown_at_its_worst(
    hass: HomeAssistant,
    entry: MockConfigEntry,
    device: ModbusDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = 1.0
    monkeypatch.setattr(Damper, "WAITS", (0.0, 0.0, seconds))
    options = {"reconnect_backoff": 0.1, "reconnect_backoff_max": 0.1}
    # Nothing but its own timer lets an entity look again.
    await load(hass, entry, **options, **{CONF_UPDATE_INTERVAL: 86_400})
    await until(lambda: hass.states.is_state(HEALTH, "healthy"))
    multiplexer = entry.runtime_data.multiplexer
    for times in range(3):
        await device.stop()
        await until(lambda: hass.states.is_state(HEALTH, "unreachable"))
        await until(lambda: hass.states.is_state(CONNECTION, STATE_OFF))
        await device.start()
        await until(lambda: multiplexer.snapshot().health == "healthy")
        back = hass.loop.time()
        await until(lambda: hass.states.is_state(HEALTH, "healthy"))
        await until(lambda: hass.states.is_state(CONNECTION, STATE_ON))
        if times == 2:
            assert hass.loop.time() - back > 0.9 * seconds
