"""Answers and likelihoods of a model, in torch and in onnxruntime-genai."""
