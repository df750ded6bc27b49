"""Device profiles: the settings known to work with each kind of device, as data.

A profile only presets settings; each value has its source beside it, and each can be
overridden. Threads are on GitHub, as owner/repository#number. If a value was not
measured, the source says how it was judged.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Advice(NamedTuple):
    """The value of one setting, and its source."""

    value: Any
    source: str


class Profile(NamedTuple):
    """The settings for one kind of device."""

    title: str
    """The kind of device, in English; forms have their own words."""
    advice: dict[str, Advice]
    protocol: str = "modbus"
    units: tuple[int, ...] = (1,)
    """Units to ask first when identifying the device."""
    signs: tuple[str, ...] = ()
    """Words, in lower case, all of which such a device uses to identify itself."""
    notes: str = ""
    """What no setting can fix, for people."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name."""
        return {name: advice.value for name, advice in self.advice.items()}


_ONE_SLOT = "accepts one connection"

_LOGGER_STICK = {
    "framing": Advice("solarman", "jmccrohan/pysolarmanv5#11: sticks that speak V5"),
    "request_delay": Advice(
        0.1, "davidrapan/ha-solarman keeps 100 ms between its requests"
    ),
    "max_connections": Advice(
        1, "jmccrohan/pysolarmanv5#51: responses go to other connections, too"
    ),
}
"""What all sticks with Solarman V5 need."""

PROFILES: dict[str, Profile] = {
    "generic": Profile("Generic Modbus/TCP device", {}),
    "solaredge": Profile(
        "SolarEdge inverter",
        {
            "connect_delay": Advice(1.0, "jbuehl/solaredge#80"),
            "max_lifetime": Advice(
                300.0,
                "machtnichts/modbus-proxy-rs: every connection is closed after about "
                "330 s; renewed before that, between two requests",
            ),
            "timeout": Advice(
                5.0, "WillCodeForCats/solaredge-modbus-multi#394: answers after 3 s"
            ),
            "max_connections": Advice(
                1,
                "WillCodeForCats/solaredge-modbus-multi#24; newer firmware more, #505",
            ),
        },
        notes="Reads 65535 and 32768 for some 40 s at night while it restarts "
        "(binsentsu/home-assistant-solaredge-modbus#127). Settings need up to 10 s to "
        "take effect.",
        signs=("solaredge",),
    ),
    "huawei_sdongle": Profile(
        "Huawei SUN2000 through the SDongle",
        {
            "timeout": Advice(
                15.0, "wlcrs/huawei_solar#1360: answers after 13 to 14 s"
            ),
            "max_connections": Advice(
                1, "wlcrs/huawei_solar#3: a new connection ends the older one"
            ),
        },
        notes="Needs 8 to 15 s after connecting until it answers, and often says that "
        "it is busy (0x06) (HSchill/sun2000-modbus-cache).",
        signs=("huawei", "sun2000"),
    ),
    "huawei_emma": Profile(
        "Huawei EMMA",
        {
            "connect_on_demand": Advice(
                value=True,
                source="wlcrs/huawei_solar#1436: closes a connection that is silent "
                "for 1 s after it was opened",
            ),
            "connect_delay": Advice(0.0, "wlcrs/huawei_solar#1436, likewise"),
        },
        signs=("huawei", "emma"),
    ),
    "sungrow_winet": Profile(
        "Sungrow inverter through the WiNet-S",
        {
            "max_connections": Advice(
                1, "mkaiser/Sungrow-SHx-Inverter-Modbus-Home-Assistant#327"
            ),
            "idle_timeout": Advice(
                0.0,
                "the same thread: drops idle connections; they are reopened at once",
            ),
        },
        signs=("sungrow",),
    ),
    "sma": Profile(
        "SMA inverter",
        {"request_delay": Advice(1.0, "SMA STP60 manual: one command a second")},
        units=(3, 1),
        signs=("sma",),
    ),
    "fronius": Profile(
        "Fronius GEN24",
        {"max_connections": Advice(2, "Fronius GEN24: two parallel queries")},
        signs=("fronius",),
    ),
    "growatt": Profile(
        "Growatt inverter",
        {
            "request_delay": Advice(0.5, "0xAHA/Growatt_ModbusTCP#433: 500 ms gap"),
            "timeout": Advice(15.0, "0xAHA/Growatt_ModbusTCP#433"),
            "max_read_registers": Advice(25, "0xAHA/Growatt_ModbusTCP#433"),
            "max_connections": Advice(1, "judged, from the gap that it needs"),
        },
        signs=("growatt",),
    ),
    "goodwe": Profile(
        "GoodWe inverter",
        {"max_connections": Advice(1, "mletenay/home-assistant-goodwe-inverter#388")},
        units=(247, 1),
        notes="Its port is always 502, and local polling can disturb its portal "
        "(home-assistant/core#101817).",
        signs=("goodwe",),
    ),
    "solax": Profile(
        "SolaX inverter through the Pocket dongle",
        {
            "connect_on_demand": Advice(
                value=True,
                source="wills106/homeassistant-solax-modbus#2336: closes after 5 to "
                "20 s without a request",
            ),
            "max_connections": Advice(1, "wills106/homeassistant-solax-modbus#2336"),
        },
        signs=("solax",),
    ),
    "solis_stick": Profile(
        "Solis inverter or Solarman stick with Modbus/TCP",
        {
            "max_connections": Advice(
                1, "StephanJoubert/home_assistant_solarman#523: " + _ONE_SLOT
            ),
            "reconnect_backoff": Advice(
                5.0,
                "the same thread: a connection closed rudely keeps the slot a while; "
                "5 s are judged",
            ),
        },
        signs=("solis",),
    ),
    "deye_logger": Profile(
        "Deye or Sunsynk inverter through its logger stick (Solarman V5)",
        {
            **_LOGGER_STICK,
            "timeout": Advice(
                15.0, "kbialek/deye-inverter-mqtt#83: 15 s do as well as asking again"
            ),
        },
        notes="The port is 8899, and the serial number is the stick's, not the "
        "inverter's. Its values may be five minutes old "
        "(StephanJoubert/home_assistant_solarman#289).",
    ),
    "sofar_logger": Profile(
        "Sofar inverter through its logger stick (Solarman V5)",
        {
            **_LOGGER_STICK,
            "cache_ttl": Advice(
                5.0,
                "davidrapan/ha-solarman#510: many requests in a row cut the portal "
                "off; 5 s are judged",
            ),
        },
        notes="The port is 8899. It is silent to reads of registers that are not there "
        "(StephanJoubert/home_assistant_solarman#53).",
    ),
    "solis_logger": Profile(
        "Solis inverter through its logger stick (Solarman V5)",
        {
            **_LOGGER_STICK,
            "reconnect_backoff": Advice(
                5.0,
                "StephanJoubert/home_assistant_solarman#523: a connection closed "
                "rudely keeps the slot a while; 5 s are judged",
            ),
        },
        notes="The port is 8899, of some sticks with Ethernet 30003 "
        "(StephanJoubert/home_assistant_solarman#87). S3-WIFI-ST sticks do not speak "
        "V5 (jmccrohan/pysolarmanv5#15).",
    ),
    "kostal": Profile(
        "Kostal inverter",
        {
            "connect_delay": Advice(
                1.0, "nathanmarlor/foxess_modbus#305: a delay after connecting; judged"
            )
        },
        units=(71, 1),
        signs=("kostal",),
    ),
    "marstek_venus": Profile(
        "Marstek Venus battery",
        {
            "max_connections": Advice(1, "the thread below: " + _ONE_SLOT),
            "cache_ttl": Advice(
                5.0,
                "MarstekVenusV3#25: asks to be polled every 5 to 10 s, so that what "
                "several clients ask within 5 s is asked once",
            ),
        },
        signs=("marstek",),
    ),
    "serial_server": Profile(
        "Serial server or gateway with RTU over TCP (EW11, Waveshare, USR)",
        {
            "framing": Advice(
                "rtu", "what such a server speaks when it is transparent"
            ),
            "request_delay": Advice(
                0.1, "home-assistant/core#153707 and mbusd's pause: 100 ms"
            ),
            "max_connections": Advice(1, "one line, one question at a time"),
        },
    ),
}
