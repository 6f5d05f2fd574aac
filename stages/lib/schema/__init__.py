"""The types of the configuration, one module for each top-level key of params.yaml.

conf/ holds the values; here are only the names and types that a value must have. A field without a default must be
set in conf/, so nothing has two homes. The modules are apart so that a stage depends on the sections it reads and no
others: a new key of `evaluate` retrains nothing.
"""
