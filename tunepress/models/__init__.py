"""A Hugging Face model folder: check it, load it, read and write its tensors."""
