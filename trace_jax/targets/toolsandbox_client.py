"""The process of a ToolSandbox episode, as its target sees it: one JSON line there, one back."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_name("toolsandbox_process.py")


class SandboxProcess:
    """A process that has the checkout. It ends with this object."""

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT), path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | {"TZ": "UTC", "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """The process's answer. Raises RuntimeError if the checkout raised, or if the process has ended."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None, "both are pipes"
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, which reading finds
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"the process of the episode ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        with self._process:
            pass

    def __del__(self) -> None:
        if hasattr(self, "_process"):  # it could be started
            self.close()
