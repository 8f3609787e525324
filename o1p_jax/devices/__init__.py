"""Processes, meshes and axes: on which devices what lies."""
