"""Stands in for a package that has to be compiled, and listens to microphones.

Without it Home Assistant's voice assistant does not load, and without that its
frontend stays blank. The demo has no microphone.
"""


class MicroVad:
    """Detects voices; never made in the demo."""
