"""Stands in for a package that has to be compiled; see `pymicro_vad.py`."""


class AudioProcessor:
    """Cleans recordings; never made in the demo."""
