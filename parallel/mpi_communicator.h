// Ranks of an mpirun job. Owned and used by one thread (the step thread); abort alone may be called from any.
// Nothing here waits inside MPI, which would keep a core busy: every wait tests, and sleeps longer the longer it waits
// (polite_wait.h). A rank that dies takes the job with it: mpirun ends the others, so a wait needs no timeout of its
// own.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace accrete::parallel {

// MPI from construction to destruction; one in a process, made by main(). Destroyed by an exception on its way out it
// ends the whole job with exit code 1, because the other ranks would wait for this one for ever.
class MpiSession {
 public:
  MpiSession();  // throws CommError
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  // All ranks of the job. Collective. The session must outlive every communicator.
  std::unique_ptr<Communicator> world();
  // Ranks of the job on this host.
  int local_ranks() const { return local_ranks_; }

 private:
  int local_ranks_ = 1;
};

// Whether this process was started by mpirun or srun (their variables are in the environment).
bool under_mpi_launcher();

}  // namespace accrete::parallel
