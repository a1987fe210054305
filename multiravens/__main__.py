"""`python -m multiravens` is the console script `multiravens`."""

from multiravens.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
