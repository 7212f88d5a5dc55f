"""``python -m saf_env`` is ``saf-env``."""

import sys

from saf_env.cli import main

sys.exit(main())
