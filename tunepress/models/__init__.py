"""Hugging Face model folders: checking and loading them, reading and writing their tensors."""
