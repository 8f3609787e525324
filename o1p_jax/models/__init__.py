"""One decoder for the dense families, its Hugging Face configuration, names and files."""
