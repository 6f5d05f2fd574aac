"""Collects what the stages measured."""
