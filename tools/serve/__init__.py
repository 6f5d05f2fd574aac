"""The HTTP service around the int4 model: OpenAI's completions and chat, classification, health and metrics.

    python -m tools.serve --model models/onnx --port 8080

onnxruntime-genai holds Python's global lock while it computes (0.18: for all of a long prompt), so the model lives in a process
of its own (model_process.py), and the one that speaks HTTP keeps answering. One question is answered after the other, alone in
its batch, as `make predict` and `stages.evaluate` do it, so that an answer depends on nothing but its question.
"""
