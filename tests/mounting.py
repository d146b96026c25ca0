"""May tests mount a small file system here, to fill it up?"""

import shutil
import subprocess
import tempfile
from functools import cache


@cache
def lacks_mount() -> str:
    """Why not; empty when they may."""
    if not shutil.which("mount"):
        return "no mount"
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(["mount", "-t", "tmpfs", "headwater", place], capture_output=True)
        if done.returncode != 0:
            return "may not mount a file system; be root"
        subprocess.run(["umount", place], check=True)
    return ""
