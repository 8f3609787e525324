"""Is a solution right? Answers found in texts, compared, in processes that can be killed."""
