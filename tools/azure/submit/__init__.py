"""Submits the pipeline as a job of Azure ML."""
