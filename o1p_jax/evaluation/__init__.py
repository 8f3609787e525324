"""Graded samples in, figures, tables and pages out."""
