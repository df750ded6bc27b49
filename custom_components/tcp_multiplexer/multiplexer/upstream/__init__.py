"""The device side: opens, keeps, renews and closes connections to the device."""
