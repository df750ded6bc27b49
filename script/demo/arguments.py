"""What `script/develop` is told.

    python3 -m script.demo.arguments --help

needs nothing but a Python, and is asked first: for help, nothing has to be installed.
"""

import argparse
from pathlib import Path


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="script/develop",
        usage="%(prog)s [--homeassistant RELEASE] [options]",
        description="Run a Home Assistant that shares a simulated inverter.",
        epilog="RELEASE, which comes first: minimum, newest (the default), latest, beta.",
    )
    parser.add_argument("--port", type=int, help="of Home Assistant's pages")
    parser.add_argument("--listen", type=int, help="the port for your Modbus clients")
    parser.add_argument(
        "--host", default="127.0.0.1", help="its address; 0.0.0.0: reachable for others"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(__file__).parents[2] / ".homeassistant",
        help="where it keeps its state; remove it to begin anew",
    )
    return parser.parse_args()


if __name__ == "__main__":
    parse()
