"""The fast prompt, a baseline of O1-Pruner without any training (arXiv 2501.12570, section 5).

The model before training is asked to be quick. The authors add a sentence to the user's turn; this one says what theirs
does (`o1_scripts/inference.py`, speed "fast": confidence, less pausing and reflecting) in words of our own. As a method
it has no parameters and no weights: only the prompt of the evaluation differs.
"""

FAST_PROMPT = "Be confident, and solve this problem quickly: pause, check and reflect as little as you can."
"""What is asked for, in a line of its own after the problem (`problems.user_template`) or in the system's turn."""
