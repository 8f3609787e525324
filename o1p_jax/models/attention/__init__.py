"""Attention over packed rows: `packed.packed_attention` chooses an implementation for the platform."""
