"""The job's processes, the mesh of its devices, and which part of an array lies on which device."""
