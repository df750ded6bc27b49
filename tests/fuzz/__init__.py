"""Fuzzing: any bytes, at any moment, to every codec and to the engine as a whole.

An input is a *tape*: bytes that say what happens, one thing after the other, and with
what. A target plays a tape and looks whether all that is promised holds; whatever it
raises is a finding. `script/fuzz` lets libFuzzer (through Atheris) write tapes, guided
by the coverage that they reach. Tapes that reached something new are kept in `corpus/`,
and so are those that found a fault; the tests play all of them again.
"""
