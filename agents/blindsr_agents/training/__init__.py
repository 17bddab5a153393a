"""What every training of an agent does."""
