"""Kills, damage, full disks, lost processes, hostile text and bad inputs, at random and judged by rules.

python -m tests.torture                     # all of it; docs/reliability.md has the table of a run
python -m tests.torture --kinds damages --damages=50 --seed=7
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
