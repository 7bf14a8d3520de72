#include "launch/cli/job_ranks.h"

#include <algorithm>
#include <cstdlib>

#include "parallel/mpi_communicator.h"

namespace accrete::launch {
namespace {

// The first of the variables that is set; their order follows how surely each tells of this very job.
int first_number(std::initializer_list<const char*> names, int otherwise) {
  if (!parallel::under_mpi_launcher()) return otherwise;
  for (const char* name : names) {
    if (const char* value = std::getenv(name); value != nullptr) return std::atoi(value);
  }
  return otherwise;
}

}  // namespace

int job_rank() { return first_number({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"}, 0); }

int job_ranks() { return std::max(1, first_number({"OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS"}, 1)); }

}  // namespace accrete::launch
