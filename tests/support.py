"""What tests of several folders do."""

import os
import subprocess
import sys


def run_python(code, *arguments, cwd=None, **environment):
    """Run code in a process of its own and return what it prints; environment variables that are None are not set."""
    env = {name: value for name, value in (os.environ | environment).items() if value is not None}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout
