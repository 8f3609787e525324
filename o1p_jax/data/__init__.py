"""The package holds what travels between the stages, and how it lies on disk: problems, prompts and samples."""
