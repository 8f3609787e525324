"""The package holds the stages of a job, each of which can run alone, and what joins them."""
