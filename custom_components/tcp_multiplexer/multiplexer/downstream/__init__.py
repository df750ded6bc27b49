"""The client side: accepts clients, reads their requests, writes their responses."""
