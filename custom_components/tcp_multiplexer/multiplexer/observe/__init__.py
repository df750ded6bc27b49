"""What is counted, traced and reported about a running multiplexer."""
