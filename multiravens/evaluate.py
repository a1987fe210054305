"""Measure agents on held-out episodes."""

import sys

from multiravens.evaluation.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
