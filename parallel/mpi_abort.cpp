#include "parallel/mpi_abort.h"

#include <fcntl.h>
#include <mpi.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

namespace accrete::parallel {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAbortPatience{1000};  // for MPI_Abort to tell the launcher
constexpr int kGenerations = 4;               // a script or two may stand between the launcher and this rank

struct ProcessStatus {
  std::string name;
  pid_t parent = 0;
};

ProcessStatus status_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  ProcessStatus status;
  for (std::string key, value; std::getline(file, key, ':') && std::getline(file >> std::ws, value);) {
    if (key == "Name") status.name = value;
    if (key == "PPid") status.parent = std::atoi(value.c_str());
  }
  return status;
}

// Open MPI's mpirun or its daemon among this process's ancestors; 0 when none is near.
pid_t find_launcher() {
  constexpr std::array kNames{"orted",           "prted",  "mpirun",  "mpirun.openmpi", "mpiexec",
                              "mpiexec.openmpi", "orterun", "prterun"};
  pid_t pid = getppid();
  for (int generation = 0; generation < kGenerations && pid > 1; ++generation) {
    const ProcessStatus status = status_of(pid);
    if (std::find(kNames.begin(), kNames.end(), status.name) != kNames.end()) return pid;
    pid = status.parent;
  }
  return 0;
}

bool ends_within(int process, milliseconds patience) {
  pollfd ended{process, POLLIN, 0};
  return poll(&ended, 1, static_cast<int>(patience.count())) != 0;
}

// The child's life. Only calls that are safe after a fork of a process with threads. mpirun takes a second SIGTERM
// within five seconds as the order to end at once, with exit code 1.
[[noreturn]] void outlive(int launcher, milliseconds patience) {
  setsid();  // launchers kill their ranks by process group
  signal(SIGTERM, SIG_IGN);
  dup2(launcher, 0);
  close_range(1, ~0U, 0);  // who holds a rank's pipes counts as its output still to come
  const milliseconds waits[] = {patience, milliseconds(500), milliseconds(1000), milliseconds(0)};
  const int signals[] = {SIGTERM, SIGTERM, SIGKILL};
  for (size_t step = 0; step < std::size(signals) && !ends_within(0, waits[step]); ++step)
    syscall(SYS_pidfd_send_signal, 0, signals[step], nullptr, 0);
  _exit(0);
}

void end_launcher_after(milliseconds patience) {
  const pid_t pid = find_launcher();
  if (pid == 0) return;
  const int launcher = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));  // <sys/pidfd.h> is for C alone in glibc 2.36
  if (launcher < 0) return;
  if (fork() == 0) outlive(launcher, patience);
  close(launcher);
}

}  // namespace

void arm_job_end(int code, milliseconds patience) {
  static std::atomic<bool> armed{false};
  if (armed.exchange(true)) return;
  end_launcher_after(patience);
  std::thread([code] {
    std::this_thread::sleep_for(kAbortPatience);
    _exit(code);
  }).detach();
}

void end_job(int code, milliseconds patience) {
  arm_job_end(code, patience);
  MPI_Abort(MPI_COMM_WORLD, code);
  _exit(code);  // mpirun ends a job whose rank exits without finalizing
}

}  // namespace accrete::parallel
