"""Several processes as one run (torchrun): each has its own rows of every batch, rank 0 has the files and the screen.

`Alone` is one process, where all of this is nothing. The global batch, its noise and what is logged are those of one process.
"""
import datetime
import os
import sys

import torch
import torch.distributed as dist

from retrofit.loss import IGNORED

PATIENCE = datetime.timedelta(minutes=30)  # rank 0 may compile or write that long while the others wait
NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class RanksError(Exception):
    pass


class Elsewhere(Exception):
    """Another rank failed, and says why."""


class Alone:
    rank, count, first = 0, 1, True

    def own(self, rows, dim=0):
        """This rank's part of a tensor with all rows."""
        return rows

    def joined(self, result, targets):
        """A Result of this rank's rows -> its means, alpha and decisions over all rows; gradients are still those of its own."""
        return result

    def average(self, parameters):
        """Gradients become their mean over ranks."""

    def same(self, parameters):
        """All ranks get the values of rank 0."""

    def any(self, flag):
        return flag

    def lead(self, values):
        """-> what rank 0 was given"""
        return values

    def attempt(self, do):
        """do() on every rank; where it fails on one, none goes on, and each reason is told once."""
        return do()

    def end(self):
        pass


class Ranks(Alone):
    def __init__(self, cuda):
        lacking = [name for name in NEEDED if name not in os.environ]
        if lacking:
            raise RanksError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(lacking)} not set; start it by torchrun")
        local = int(os.environ["LOCAL_RANK"])
        if cuda:
            if local >= torch.cuda.device_count():
                raise RanksError(f"rank {local} of this machine has no GPU; it has {torch.cuda.device_count()}")
            torch.cuda.set_device(local)
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.first, self.device = self.rank == 0, "cuda" if cuda else "cpu"

    def mesh(self):
        """For FSDP"""
        return dist.device_mesh.init_device_mesh(self.device, (self.count,))

    def own(self, rows, dim=0):
        return rows.chunk(self.count, dim)[self.rank]

    def joined(self, result, targets):
        targeted = (targets != IGNORED).sum().clamp(min=1)
        tokens = torch.stack([torch.full_like(targeted, targets.numel()), targeted, targeted]).float()
        local = result.accumulate.detach()
        sums = torch.cat([result.means * tokens, tokens, local.flatten(), result.hard.flatten()])
        dist.all_reduce(sums)
        means, tokens, alpha, hard = sums.split([3, 3, local.numel(), local.numel()])
        alpha, hard = (x.view_as(local) / self.count for x in (alpha, hard))
        return type(result)(result.loss, means / tokens, result.accumulate + (alpha - local), hard)

    def average(self, parameters):
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.count

    def same(self, parameters):
        with torch.no_grad():
            for parameter in parameters:
                dist.broadcast(parameter, 0)

    def any(self, flag):
        found = torch.tensor(int(flag))
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def lead(self, values):
        found = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(found, 0)
        return found.tolist()

    def attempt(self, do):
        result, failure = None, None
        try:
            result = do()
        except Exception as error:  # told to the others, then raised again
            failure = error
        reasons = [None] * self.count
        dist.all_gather_object(reasons, failure and f"{type(failure).__name__} {failure}")
        if failure and reasons[self.rank] not in reasons[:self.rank]:
            raise failure
        if any(reasons):
            raise Elsewhere from failure
        return result

    def end(self):
        if sys.exc_info()[0] is None:  # all come here: nobody's connections close while another still uses them
            dist.barrier()
        dist.destroy_process_group()
