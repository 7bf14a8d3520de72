"""A run's state in one file that is replaced as a whole: killing the process at any moment loses what came after the last save."""
import os
import pathlib

import torch


class CheckpointError(Exception):
    pass


def save(path, state):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".new")
    with open(scratch, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def exists(path):
    return pathlib.Path(path).is_file()


def load(path, device):
    """The state that `save` wrote. device None: tensors stay in the file until they are read."""
    try:
        state = torch.load(path, map_location=device or "cpu", weights_only=True, **({} if device else {"mmap": True}))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception as error:  # whatever torch makes of damaged bytes
        raise CheckpointError(f"{path}: cannot be read ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__}); "
                              "it is damaged or no checkpoint; without it a run begins anew") from None
    if not isinstance(state, dict) or not isinstance(state.get("parameters"), dict):
        raise CheckpointError(f"{path}: no checkpoint of a retrofit")
    return state
