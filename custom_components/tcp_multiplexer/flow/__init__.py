"""What the dialogs of `config_flow.py` show, read, try and store.

This package is above the coordinator, and below the modules that Home Assistant looks
for by name.

* `fields`: each field: its selector, default, and conversion from and to what is stored
* `forms`: which fields stand in which form and section
* `plan`: the entry that a form describes, and what must be tried before it is saved
* `trial`: trying that
* `endpoint`: whether two entries share one device
* `probe`, `probe_shared`, `identify`: whether the device answers, and what it is
* `local_ports`: whether a local port is free, and not promised to another entry
* `certificates`: uploaded files
* `suggestions`: devices that other integrations already use
* `options`: the options flow
"""
