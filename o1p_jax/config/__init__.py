"""The package holds the whole configuration of a run: the tree of fields, meshes, chips, and what depends on which."""
