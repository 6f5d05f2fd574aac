"""A build whose adapter is in a file of its own."""
