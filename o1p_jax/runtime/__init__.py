"""What every process needs, whatever it does: errors, files, progress, signals, children, places. No JAX."""
