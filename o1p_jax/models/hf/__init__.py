"""Hugging Face folders: found, read into each device's shards, and written back."""
