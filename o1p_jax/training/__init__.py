"""From weighed samples to a trained checkpoint."""
