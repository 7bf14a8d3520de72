// How this process was started: alone, or as one rank of a job of mpirun or srun. Read from their environment, before MPI is up.
#pragma once

namespace accrete::launch {

int job_rank();   // 0 when alone
int job_ranks();  // 1 when alone

}  // namespace accrete::launch
