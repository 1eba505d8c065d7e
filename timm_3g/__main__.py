"""`python -m timm_3g VERB`, the same as `timm-3g VERB`. For `torchrun -m timm_3g train`."""

import sys

from timm_3g_cli import VERBS as VERBS
from timm_3g_cli import main as main

if __name__ == '__main__':
    sys.exit(main())
