"""The command line: the engine as a program of its own."""
