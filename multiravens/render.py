"""Draw a video of a problem being solved."""

import sys

from multiravens.drawing.render import main

if __name__ == "__main__":
    sys.exit(main())
