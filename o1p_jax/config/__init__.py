"""The whole configuration of a run: the tree, meshes and chips by name, and what depends on which field."""
