"""Python reads this when it starts with this directory on PYTHONPATH, as the programs that tests start do.

It hides torch, which only the tests need: transformers would import it, for five seconds of each program.
"""

import sys

sys.modules["torch"] = None  # type: ignore[assignment]  # to importlib: there is no such module
