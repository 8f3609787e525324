"""Pairs of answers that graders get wrong: (prediction, gold)."""

RIGHT = [
    # fractions, decimals, mixed numbers
    (r"\frac{1}{2}", "0.5"), (r"\dfrac12", r"\tfrac{1}{2}"), ("1/2", r"\frac{2}{4}"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"), (r"3\frac{1}{2}", "3.5"), ("3 1/2", "3.5"), (r"-1\frac{3}{4}", "-1.75"),
    (r"0.\overline{3}", r"\frac{1}{3}"), (r"1.2\overline{34}", r"\frac{611}{495}"), ("0.333333", r"\frac13"),
    (".5", "0.50"), ("+7", "7"), ("5.0", "5"), ("007", "7"), ("3.", "3"), (r"\frac{10}{2}", "5"),
    (r"\frac{2.5}{5}", "0.5"), ("\N{MINUS SIGN}4", "-4"), (r"\cfrac{3}{4}", "0.75"),
    # thousands separators, scientific notation, scales
    ("1,234", "1234"), ("1{,}234{,}567", "1234567"), (r"12\,345", "12345"), ("1 234 567", "1234567"),
    ("1,234.50", "1234.5"), (r"1.2\times10^{5}", "120000"), ("1.2e5", "120000"), (r"1.2 \cdot 10^5", "120,000"),
    (r"5\times 10^{-3}", "0.005"), ("3 million", "3,000,000"), ("1.5E3", "1500"), ("2.5 thousand dollars", r"\$2500"),
    # money, percent, degrees, units
    (r"\$5.50", "5.5"), ("$1,000", "1000"), ("€20", "20"), (r"50\%", "50"), ("50%", "0.5"), ("0.25", r"25\%"),
    ("25 percent", "25%"), (r"90^\circ", "90"), (r"90^{\circ}", "90"), ("45°", r"45^\circ"), ("90 degrees", "90"),
    (r"5 \text{ cm}", "5"), ("5 cm", r"5\text{ cm}"), ("5 centimeters", "5 cm"), (r"12 \text{ cm}^2", "12"),
    (r"12\text{ square centimeters}", r"12 \text{ cm}^2"), ("72 km/h", "72"), ("3 hours", r"3\text{ hr}"),
    (r"7 \text{ apples}", "7"), ("18 dollars", "18"), (r"\frac{1}{2}\text{ inch}", "0.5"), ("5.", "5"),
    ("42 .", "42"), (r"2\sqrt{3}\text{ cm}", r"2\sqrt{3}"), (r"60 \mathrm{~mph}", "60"), ("16 units", "16"),
    # text
    (r"\text{east}", "east"), ("East", r"\text{east}"), (r"\textbf{Yes}", "yes"), (r"\text{(A)}", "A"),
    ("(B)", r"\text{B}"), (r"\mathrm{Tuesday}", r"\text{tuesday}"), (r"\text{no solution}", "No solution."),
    ("C.", "C"),
    # surds, constants, algebra
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"), (r"\sqrt{12}", r"2\sqrt{3}"), (r"\sqrt2", r"\sqrt{2}"),
    (r"\frac{\pi}{2}", r"0.5\pi"), ("π", r"\pi"), ("(x+1)^2", "x^2+2x+1"), ("yx", "xy"), ("3i+2", "2+3i"),
    (r"2^{10}", "1024"), (r"\binom{5}{2}", "10"), ("5!", "120"), (r"\log_2 8", "3"), ("x=5", "5"), ("5", "x=5"),
    ("x = 5", "x=5"), ("y=3+2x", "y=2x+3"), ("2x+3", "y=2x+3"), (r"x \approx 3.5", "3.5"), ("1+1=2", "2"),
    ("1011_2", "1011_2"), (r"\left(\frac{1}{2}\right)^2", r"\frac14"), ("-\\infty", r"-\infty"), ("6:8", "3:4"),
    # sets, tuples, intervals, matrices
    ("3, 2, 1", "1,2,3"), (r"\{2, 1\}", r"\{1,2\}"), (r"1, 2", r"\{1,2\}"), (r"\pm 2", "2, -2"), ("(1,2)", "(1, 2)"),
    (r"\left( \frac12, 3\right)", "(0.5,3)"), (r"\left[0, 1\right)", "[0,1)"), (r"(2,3)\cup[0,1)", r"[0,1)\cup(2,3)"),
    (r"x \in [1,2]", "[1,2]"), (r"(-\infty, 3]", r"x \le 3"), (r"\emptyset", r"\{\}"),
    (r"x=2 \text{ or } x=-2", "-2,2"),
    (r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\begin{pmatrix} 0.5 \\ 2 \end{pmatrix}", r"\begin{pmatrix} \frac12 \\ 2 \end{pmatrix}"),
    # wrapping
    (r"\boxed{5}", "5"), (r"\(5\)", "5"), (r"\mathbf{12}", "12"), ("$x^2$", "x^2"),
    (r"\displaystyle\frac{3}{4}", "3/4"), (r"\text{3}", "3"), ("5\\ \\text{m}", "5"), ("~7~", "7"), ("5 m", "5"),
    ("72 kilometers per hour", r"72 \text{ km/h}"), ("60 miles per hour", "60 mph"),
    ("10:30 am", r"10:30 \text{ am}"), (r"1\,234\,567", "1234567"), (r"2 \text{ and } 3", "2,3"),
    (r"\frac{a}{b}", r"\dfrac{a}{b}"), ("3/4 cup", "0.75"), (r"\text{all real numbers}", "All real numbers"),
    ("100 square feet", r"100 \text{ ft}^2"), (r"\boxed{\boxed{7}}", "7"),
]
WRONG = [
    ("5 m", "5 cm"), (r"5\text{ m}", r"5 \text{ cm}"), (r"12 \text{ cm}^3", r"12 \text{ cm}^2"), ("5 million", "5"),
    ("6 cm", "5 cm"), (r"2\sqrt{3}\text{ m}", r"2\sqrt{3}\text{ cm}"), ("3 minutes", "3 hours"), ("slate", "least"),
    (r"\text{slate}", r"\text{least}"), ("odd", "even"), ("no", "yes"), (r"\text{west}", "east"), ("east", "5"),
    ("5", "east"), ("B", "A"), (r"\text{(B)}", "(A)"), ("tea", "eat"), ("Alice", "Bob"), ("(1,2)", "(2,1)"),
    ("2, 1", "(1,2)"), ("[1,2]", "(1,2)"), ("[1,2)", "[1,2]"), (r"\{1,2,3\}", r"\{1,2\}"),
    ("(0,2)", r"(0,1)\cup(1,2)"), ("1, 2, 4", "1,2,3"), ("y=5", "x=5"), ("a-b", "a+b"), ("5x", "5"), ("5xy", "5"),
    ("0.33", r"\frac13"), ("3.14", r"\pi"), ("0.3333", r"\frac{1}{3}"), ("2", r"\pm 2"), ("1234", "1235"),
    ("1000000001", "1000000000"), ("1.2e6", "120000"), (r"5\%", "0.5"), ("-5", "5"), (r"\infty", r"-\infty"),
    ("1101_2", "1011_2"), (r"\frac{2}{3}", r"\frac{3}{2}"), (r"\sqrt{3}", r"\sqrt{2}"), ("x^2", "x^3"),
    ("12,34", "1234"), (r"\begin{pmatrix}1&3\\2&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    ("1/0", "0"), ("0", r"\frac{1}{7}"), ("12", "1, 2"), ("3 1/2", "1.5"), (r"3\frac12", "1.5"), ("i", "1"),
    ("10:30 am", "10:30 pm"), ("60 km/h", "60 mph"), (r"\{1, 234\}", "1234"), ("12 345", "12,346"),
    ("2 \\text{ and } 4", "2,3"), ("-1", r"\pm 1"),
]
