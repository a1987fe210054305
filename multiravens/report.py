"""Compare runs in a page, plots and a table."""

import sys

from multiravens.experiments.report import main

if __name__ == "__main__":
    sys.exit(main())
