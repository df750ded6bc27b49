"""The dialogs behind `config_flow.py`: what they show, read, try and keep.

It stands above the coordinator, and below the modules that Home Assistant looks for by
name.

* `fields`: every field once: how it is shown, read and stored, and its default
* `forms`: which fields stand in which form and section
* `plan`: what an entry will be, and what has to be tried before
* `trial`: that being tried
* `probe`, `probe_shared`, `identify`: whether the device answers, and what it is
* `local_ports`: whether a local port is free
* `certificates`: uploaded files
* `suggestions`: what others in this Home Assistant already talk to
* `options`: the options flow
"""
