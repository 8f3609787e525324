"""Methods: each turns graded samples into weights, and weights into an objective."""
