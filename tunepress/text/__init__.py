"""From a row to tokens: prompt, chat template, tokenizer, packing."""
