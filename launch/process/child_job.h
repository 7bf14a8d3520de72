// ChildJob: a program of ours in a process group of its own, which never outlives us: the kernel ends it when this process dies,
// however it dies, and the destructor ends it otherwise. Made, used and destroyed by the main thread only (the kernel ties a
// child's fate to the thread that forked it).
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace accrete::launch {

class ChildJob {
 public:
  // Starts command[0] (looked up in PATH) with stdin closed, our stdout and stderr, no blocked signals.
  // Throws std::runtime_error when it cannot be started.
  ChildJob(std::string name, const std::vector<std::string>& command);
  ~ChildJob();  // kills what still runs and waits for it
  ChildJob(const ChildJob&) = delete;
  ChildJob& operator=(const ChildJob&) = delete;

  const std::string& name() const { return name_; }
  pid_t pid() const { return pid_; }
  // The exit code once it has ended (128 + n after signal n), nothing while it runs.
  std::optional<int> poll();
  bool running() { return !poll().has_value(); }
  void terminate();  // SIGTERM to the program; an mpirun passes it to its ranks
  void kill();       // SIGKILL to the whole group

 private:
  std::string name_;
  pid_t pid_ = -1;
  std::optional<int> exit_code_;
};

}  // namespace accrete::launch
