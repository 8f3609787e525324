import pytest

from o1p_jax.grading.extract import first_answer


@pytest.mark.parametrize(("text", "gold", "upto"), [
    (r"So \boxed{4}. Wait, again: \boxed{4}.", "4", r"So \boxed{4}"),
    (r"It is \boxed{5}. No, \boxed{4}.", "4", r"It is \boxed{5}. No, \boxed{4}"),
    ("2 + 2 = 4. Let me check: 4 - 2 = 2.", "4", "2 + 2 = 4"),
    ("1 = 12 + 3 - 14, so 12", "1", None),
    ("x = 12 + 30 = 42", "12", None),
    ("My first guess is 33. Try 33", "33", "My first guess is 33"),
    ("The answer is 1,234.", "1234", "The answer is 1,234"),
    (r"the answer is $\boxed{\frac{1}{2}}$", r"\frac{1}{2}", r"the answer is $\boxed{\frac{1}{2}}"),
    ("So the answer should be 18, or not.", "18", "So the answer should be 18"),
    (r"Therefore, the value of \(p\) is \(11\). Check.", "11", r"Therefore, the value of \(p\) is \(11"),
    ("which is **1,234**\nfor all", "1234", "which is **1,234"),
    ("She is 4 years old; it is 4pm; 2 are 4/2 of them", "4", None),
    ("some reasoning\n#### 18", "18", "some reasoning\n#### 18"),
    ("we have 4 apples", "4", None),
    ("", "4", None),
    (f"x = {'7' * 6000}. No. The answer is 12.", "12", f"x = {'7' * 6000}. No. The answer is 12"),
    (f"x = {'7' * 6000}", "7" * 6000, None),
    (r"So \boxed{5}.", r"Adding gives $2+3=\boxed{5}$.", r"So \boxed{5}"),
])  # fmt: skip
def test_where_the_first_correct_answer_stands(text, gold, upto):
    end = first_answer(text, gold)
    assert (None if end is None else text[:end]) == upto
