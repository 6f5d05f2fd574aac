"""Builds the ONNX model."""
