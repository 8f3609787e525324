"""The stages of a job, each able to run alone, and what joins them."""
