"""The benchmarks are scripts beside each other: their folder is on the path here as it is where one is run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks"))
