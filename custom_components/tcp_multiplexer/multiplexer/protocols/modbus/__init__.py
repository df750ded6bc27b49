"""Modbus: TCP and RTU framing, and what their PDUs mean."""
