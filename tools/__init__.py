"""Commands a user runs that are not stages."""
