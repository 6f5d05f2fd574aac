"""Commands of one module each; the Makefile calls them."""
