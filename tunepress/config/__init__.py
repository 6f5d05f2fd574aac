"""The types of the configuration, one module for each group of conf/, and the rules between groups.

conf/ has the values; here are only the names and types that a value must have. A field without a default must be set in
conf/, so that no value has two homes. The modules are apart so that a stage depends on the groups that it reads and on no others.
"""
