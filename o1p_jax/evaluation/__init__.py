"""Graded samples become figures, tables and pages."""
