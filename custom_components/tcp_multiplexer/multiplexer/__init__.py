"""Share one upstream TCP connection among many clients."""

__version__ = "1.0.0"
