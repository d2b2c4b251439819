"""`python -m relevance`, from the folder above."""

import sys

from .command import main

sys.exit(main())
