"""What every process needs, whatever it does: errors, files, progress, signals, child processes and its place in a job.

Nothing in this folder imports JAX.
"""
