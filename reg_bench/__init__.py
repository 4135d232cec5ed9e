"""RegBench: trains and benchmarks medical image registration.

Importing this package is cheap (no torch): the command line, the lists and the reports rely on it.
"""

import os

# Two spinning OpenMP threads on a busy machine cost up to 18 times; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
