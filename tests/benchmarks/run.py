"""Entry of the benchmark: ``python tests/benchmarks/run.py --help``; ``--audit`` measures the audit log alone."""

import sys

from audit_cost import main as audit_cost
from rpcbench.cli import main

if __name__ == "__main__":
    if "--audit" in sys.argv:
        sys.exit(audit_cost())
    code = main()
    if not code and len(sys.argv) == 1:
        # A run of everything ends with what a record costs, at each level and durability.
        print("\nOne record of the audit log, median\n")
        audit_cost()
    sys.exit(code)
