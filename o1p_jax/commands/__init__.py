"""The commands, `o1p NAME`: a module each, whose docstring and `Arguments` are the command's help."""
