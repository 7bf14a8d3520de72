// The end of an mpirun job that may no longer hear: MPI_Abort travels over the launcher's own connections, and where a
// link between hosts is cut it waits on them, as mpirun and its daemons (orted) then do, for ever. So the end is armed
// first: this rank exits a second later whatever MPI does, and a child process that outlives it ends the launcher of
// this host when that has not ended by itself.
#pragma once

#include <chrono>

namespace accrete::parallel {

// For a failure that the launcher may be cut off from: long enough for an orderly abort to arrive everywhere.
constexpr std::chrono::milliseconds kLauncherPatience{2000};
// For a failure of this rank alone: longer than mpirun gives the other ranks between SIGTERM and SIGKILL.
constexpr std::chrono::milliseconds kOrderlyPatience{8000};

// From any thread, also while another is inside MPI; only the first call counts. From here on this process exits with
// `code` within a second, and the launcher has `patience` to end by itself. A launcher that is not Open MPI's is left
// alone: batch systems end their jobs themselves.
void arm_job_end(int code, std::chrono::milliseconds patience);

// Arms the end and calls MPI_Abort.
[[noreturn]] void end_job(int code, std::chrono::milliseconds patience);

}  // namespace accrete::parallel
