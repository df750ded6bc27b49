"""Where requests meet connections; imports neither of the two sides."""
