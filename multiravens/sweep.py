"""Run what a table of runs still lacks, and report it."""

import sys

from multiravens.experiments.sweep import main

if __name__ == "__main__":
    sys.exit(main())
