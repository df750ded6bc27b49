"""What the bytes mean: bytes in, messages out, no I/O."""
