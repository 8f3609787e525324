"""What a run would take on a pod that is not here: memory, the time of a step, the cost of the job."""
