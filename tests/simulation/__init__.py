"""The real engine on a simulated clock and network, every decision from one seed."""
