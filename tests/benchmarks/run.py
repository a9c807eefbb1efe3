"""Entry of the benchmark: ``python tests/benchmarks/run.py --help``."""

import sys

from audit_cost import main as audit_cost
from rpcbench.cli import main

if __name__ == "__main__":
    sys.exit(audit_cost() if "--audit" in sys.argv else main())
