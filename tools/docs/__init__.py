"""`make docs`: writes the parts of README.md and docs/ that are generated from the code, conf/ and what was measured."""
