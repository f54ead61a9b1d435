"""Runs a command and prints, when it is done, the most memory it ever had: `peak: BYTES`."""

import resource
import subprocess
import sys

code = subprocess.run(sys.argv[1:]).returncode
print(f"\npeak: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}", flush=True)
sys.exit(code)
