"""Print `deploy/config.example.toml`: every setting, with its default.

    python -m script.config_example >deploy/config.example.toml

It follows from the settings; a test sees that the file in deploy/ is what this prints.
"""

from __future__ import annotations

from dataclasses import fields
import re
import textwrap

from custom_components.tcp_multiplexer.multiplexer.command_line.toml_text import (
    toml_setting,
)
from custom_components.tcp_multiplexer.multiplexer.profiles import PROFILES
from custom_components.tcp_multiplexer.multiplexer.protocols import (
    PROTOCOLS,
    protocols_with,
)
from custom_components.tcp_multiplexer.multiplexer.settings import (
    ROWS,
    Section,
    Settings,
)

HEAD = """\
# The devices that tcp-multiplexer shares:
#
#     tcp-multiplexer check /etc/tcp-multiplexer.toml
#     tcp-multiplexer run /etc/tcp-multiplexer.toml
#
# Lines that begin with #: are settings with their defaults. Times are in seconds, or
# texts such as "500ms" and "1m30s"; 0 turns a feature off. SIGHUP reads this file again
# and applies what has changed; if something in it is wrong, nothing is changed.
"""

DEVICES = """\
# A table for each device. Its name stands in the log and in metrics.
[devices.inverter]
host = "192.168.1.22"
listen_port = 5020

# The device: its port, and what it speaks ({protocols}).
#: protocol = "modbus"
#: port = 502

# Settings known to work with a device; what is given beside it wins over it:
# {profiles}
#: profile = "generic"

# The local address to listen on. Default: all
#: listen_host = "0.0.0.0"

# More local addresses, for clients that use Modbus/TCP ("tcp"), Modbus RTU over TCP
# ("rtu"), Solarman V5 ("solarman"), or TLS. Certificates and keys are files in PEM,
# beside this one.
#: more_listeners = [
#:     {{ host = "127.0.0.1", port = 5021, framing = "rtu" }},
#:     {{ port = 802, tls = {{ certificate = "server.pem", key = "server.key" }} }},
#: ]

# TLS with the device.
#: [devices.inverter.tls]
#: verify = true
#: ca = "ca.pem"
#: server_name = "inverter.example.org"
#: certificate = "client.pem"
#: key = "client.key"

# A logger stick with Solarman V5. Its serial number is found by itself as a rule.
#: [devices.logger]
#: host = "192.168.1.23"
#: listen_port = 5022
#: framing = "solarman"
#: logger_serial = 2712345678

# A device on a serial port. In place of a path, a URL of the library serialx will do.
#: [devices.meter]
#: serial = {{ device = "/dev/ttyUSB0", baudrate = 9600, parity = "none", stopbits = 1 }}
#: listen_port = 5023

# A device that connects by itself, to a local port. Default for `device`: the first
# that answers
#: [devices.stick]
#: dial_in = {{ host = "0.0.0.0", port = 5502, device = "192.168.1.24" }}
#: listen_port = 5024
"""

TITLES = {
    Section.CONNECTION: "Connection to the device",
    Section.RECOVERY: "Health and reconnecting",
    Section.POOL: "Pool and queue",
    Section.MODBUS: "Modbus",
    Section.ACCESS: "Access",
    Section.RECORD: "Trace",
}
WIDTH = 86


def comment(text: str) -> str:
    """Return lines of comment."""
    lines = textwrap.wrap(text, WIDTH, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)


def example() -> str:
    """Return the text of the example."""
    text = HEAD
    text += "\n# For every device that does not say otherwise.\n[defaults]\n"
    defaults = {each.name: each.default for each in fields(Settings)}
    for section in Section:
        text += f"\n# ---- {TITLES[section]} ".ljust(WIDTH, "-") + "\n"
        for name, row in ROWS.items():
            if row.section is not section:
                continue
            # Flags are named as settings are, with dashes; a list has no repetition.
            words = row.help.removesuffix(". May be repeated")
            words = re.sub(
                r"--([a-z-]+)", lambda flag: flag[1].replace("-", "_"), words
            )
            protocols = protocols_with(name)
            told = section is Section.MODBUS or words.startswith(("Modbus:", "HTTP:"))
            if not told and len(protocols) < len(PROTOCOLS):
                only = ", ".join(PROTOCOLS[each].title for each in protocols)
                words = f"{only}: {words}"
            words = words[0].upper() + words[1:]
            text += f"\n{comment(words)}#: {toml_setting(name, defaults[name])}\n"
    profiles = "\n# ".join(textwrap.wrap(", ".join(PROFILES), WIDTH))
    return (
        text + "\n" + DEVICES.format(protocols=", ".join(PROTOCOLS), profiles=profiles)
    )


if __name__ == "__main__":
    print(example(), end="")
