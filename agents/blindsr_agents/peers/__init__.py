"""Methods of others, for comparison."""
