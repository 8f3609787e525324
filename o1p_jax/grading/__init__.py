"""The package grades solutions: answers are found in texts and compared, in processes that can be killed."""
