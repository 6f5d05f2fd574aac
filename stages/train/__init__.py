"""Trains an adapter."""
