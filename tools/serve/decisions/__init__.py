"""POST /v1/decisions in OpenAI's format and POST /v1/systemone in TypeSafe's: typed questions, answered with probabilities.

Nothing is generated. The model reads the input, and each option is scored as its answer.
"""
