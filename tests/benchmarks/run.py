"""Entry of the benchmark: ``python tests/benchmarks/run.py --help``."""

import sys

from rpcbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
