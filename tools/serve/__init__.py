"""HTTP server for the int4 model: OpenAI's completions and chat, classification, health and metrics.

    python -m tools.serve --model models/onnx --port 8080

onnxruntime-genai holds Python's global lock while it computes (0.18: for all of a long prompt), so the model runs in a process
of its own (model_process.py), and the HTTP process stays responsive. Prompts are answered one after the other, each alone in its
batch, as in `make predict` and `stages.evaluate`, so that an answer depends only on its prompt.
"""
