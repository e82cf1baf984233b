"""`python -m nyx_stream` is `nyx`."""

import sys

from nyx_stream.cli import main

if __name__ == "__main__":
    sys.exit(main())
