"""What every room of the package shares."""
