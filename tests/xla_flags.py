"""XLA's flags for the tests and for the programs that they start. Both have eight devices, for meshes.

Results of two processes are equal to the bit only if both have the same flags.
"""

import os

_DEVICES = "--xla_force_host_platform_device_count=8"
# Tests compile for longer than they compute: LLVM neither optimises nor splits its work. Programs compute for longer.
_QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
_GIVEN = os.environ.get("XLA_FLAGS", "").replace(_QUICK, "").replace(_DEVICES, "").strip()

PROGRAMS = f"{_GIVEN} {_DEVICES}".strip()
TESTS = f"{PROGRAMS} {_QUICK}"
