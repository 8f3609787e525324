"""One decoder for all families of models: its configuration, its layers, and folders as Hugging Face lays them out."""
