"""The package makes the embedded model: tokenizer, corpus and weights."""
