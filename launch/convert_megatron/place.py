"""Output that is either whole or not there: it grows in a folder beside its place and is renamed at the end."""
import contextlib
import os
import shutil
import signal
import tempfile

from failure import Refused


def _stop(*_):
    raise KeyboardInterrupt


def _folder_beside(place, wanted_bytes):
    parent, name = os.path.split(place)
    os.makedirs(parent, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if free < wanted_bytes:
        raise Refused(f"{parent}: {wanted_bytes / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
    return tempfile.mkdtemp(prefix=f"{name}.partial-", dir=parent)


@contextlib.contextmanager
def whole_or_nothing(place, wanted_bytes):
    """Yields a path at which the block makes a file or a folder; that becomes `place` when the block ends well, else nothing is left
    (SIGKILL leaves a folder NAME.partial-...). Refused when `place` is taken or the disk lacks room for `wanted_bytes`."""
    place = os.path.abspath(place)
    if os.path.lexists(place) and not (os.path.isdir(place) and not os.listdir(place)):
        raise Refused(f"{place}: is already there; remove it or name another place")
    folder, before = None, signal.signal(signal.SIGTERM, _stop)
    try:
        folder = _folder_beside(place, wanted_bytes)
        path = os.path.join(folder, os.path.basename(place))
        yield path
        os.rename(path, place)
    except OSError as error:
        raise Refused(f"{error.filename or place}: {error.strerror}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
