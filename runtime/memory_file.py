"""How does a library that reads files read what is in memory?

On Linux as a file without a disk: what is to be written because a disk is full would not fit there.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def as_file(data: memoryview) -> Iterator[str]:
    """A path under which this process can read `data`, until the block is left."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("insert")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(prefix="headwater-insert-") as file:
            file.write(data)
            file.flush()
            yield file.name
