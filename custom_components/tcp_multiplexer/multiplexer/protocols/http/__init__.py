"""HTTP/1.1: a gateway between clients and a device (RFC 9110, RFC 9112)."""
