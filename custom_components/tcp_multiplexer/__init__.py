"""Share one upstream TCP connection among many clients."""
