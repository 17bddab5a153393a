"""The command `blindsr`."""
