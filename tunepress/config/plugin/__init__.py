"""What hydra_plugins/tunepress.py registers, besides the schema: resolvers of conf/, and what overrides mean."""
