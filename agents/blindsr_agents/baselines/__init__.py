"""What an agent has to beat."""
