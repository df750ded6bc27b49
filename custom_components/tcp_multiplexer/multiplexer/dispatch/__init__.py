"""What assigns requests to connections; imports neither downstream nor upstream."""
