"""`python -m nvembed_export`."""

import sys

from nvembed_export.cli import main

if __name__ == "__main__":
    sys.exit(main())
