"""The device side: when connections are opened, kept, renewed and closed."""
