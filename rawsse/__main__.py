"""`python -m rawsse`: the command line."""

import sys

from rawsse.cli import main

sys.exit(main())
