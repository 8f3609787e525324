"""Hugging Face folders: found on disk or on the hub, read into each device's shards, and written back."""
