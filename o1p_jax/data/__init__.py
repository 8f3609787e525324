"""Problems, prompts and samples: what travels between the stages, and how it lies on disk."""
