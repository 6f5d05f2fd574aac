"""Rows and models on other machines: addresses, downloads, Azure."""
