#include "launch/process/child_job.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>

namespace accrete::launch {
namespace {

// Between fork and exec: only calls that are safe there.
[[noreturn]] void become(char* const* argv, pid_t parent, int report) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);  // the parent died before the line above
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = open("/dev/null", O_RDONLY);
  if (null >= 0) dup2(null, STDIN_FILENO);
  execvp(argv[0], argv);
  const int error = errno;
  if (write(report, &error, sizeof error) < 0) _exit(126);
  _exit(127);
}

}  // namespace

ChildJob::ChildJob(std::string name, const std::vector<std::string>& command) : name_(std::move(name)) {
  std::vector<char*> argv;
  for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int ends[2];  // carries errno when exec fails, closes without a byte when it works
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error(fmt::format("pipe: {}", std::strerror(errno)));
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) become(argv.data(), parent, ends[1]);
  const int fork_error = errno;
  close(ends[1]);
  int error = pid_ < 0 ? fork_error : 0;
  if (pid_ > 0) {
    setpgid(pid_, pid_);
    if (read(ends[0], &error, sizeof error) != sizeof error) error = 0;
  }
  close(ends[0]);
  if (error == 0) return;
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
  throw std::runtime_error(fmt::format("cannot start {}: {}", command.front(), std::strerror(error)));
}

ChildJob::~ChildJob() {
  if (!running()) return;
  kill();
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
}

std::optional<int> ChildJob::poll() {
  if (exit_code_) return exit_code_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return exit_code_;
}

void ChildJob::terminate() {
  if (running()) ::kill(pid_, SIGTERM);
}

void ChildJob::kill() {
  if (running()) ::kill(-pid_, SIGKILL);
}

}  // namespace accrete::launch
