"""Attention over packed rows: one function, an implementation a platform."""
