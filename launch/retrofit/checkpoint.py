"""A run's state in one file that is replaced as a whole: killing the process at any moment loses what came after the last save."""
import os
import pathlib

import torch


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


def load(path, device):
    """The state, or None when there is none yet."""
    path = pathlib.Path(path)
    return torch.load(path, map_location=device, weights_only=True) if path.is_file() else None
