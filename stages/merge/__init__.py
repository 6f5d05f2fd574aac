"""Adds the adapter to the weights of the base model."""
