"""evaluate: lets base, merged and onnx answer the same held-out rows."""
