"""Making what was written survive a power loss. It writes nothing itself."""

import errno
import fcntl
import os

_UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.ENOTTY}


def sync_to_disk(descriptor: int) -> None:
    """Return when the bytes of an open file, or the names in an open directory, are on the disk and not in its cache.

    ``fsync`` of macOS leaves them in the cache of the disk, and another call does not, where the file system knows it.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(descriptor, full)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
        else:
            return
    os.fsync(descriptor)
