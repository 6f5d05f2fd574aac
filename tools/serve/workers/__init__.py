"""The processes that hold the model, and the queue of prompts in front of them."""
