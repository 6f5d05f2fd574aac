"""Gets the base model."""
