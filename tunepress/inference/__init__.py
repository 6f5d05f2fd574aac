"""Answers and likelihoods of a model, with torch and with onnxruntime-genai."""
