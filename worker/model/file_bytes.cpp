#include "worker/model/file_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

// Smaller ranges share their pages with neighbours that are about to be read.
constexpr size_t kDropBytes = 256 * 1024;

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

FileBytes FileBytes::map(const std::string& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) model_error("{}: cannot open: {}", path, std::strerror(errno));
  struct stat status {};
  if (::fstat(file.fd, &status) != 0) model_error("{}: cannot stat: {}", path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) model_error("{}: not a regular file", path);
  if (status.st_size == 0) model_error("{}: the file is empty", path);
  const auto size = static_cast<size_t>(status.st_size);
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
  if (start == MAP_FAILED) model_error("{}: cannot map {} bytes: {}", path, size, std::strerror(errno));
  return FileBytes({static_cast<const uint8_t*>(start), size}, path, true);
}

FileBytes FileBytes::borrow(std::span<const uint8_t> bytes, std::string name) {
  return FileBytes(bytes, std::move(name), false);
}

FileBytes::FileBytes(FileBytes&& other) noexcept
    : bytes_(other.bytes_), name_(std::move(other.name_)), mapped_(std::exchange(other.mapped_, false)) {}

FileBytes::~FileBytes() {
  if (mapped_) ::munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

void FileBytes::advise(std::span<const uint8_t> range, int advice) const {
  if (!mapped_ || range.empty()) return;
  static const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const auto offset = static_cast<size_t>(range.data() - bytes_.data()) / page * page;
  const auto end = static_cast<size_t>(range.data() + range.size() - bytes_.data());
  // Advice only: a kernel that refuses it changes nothing but speed.
  ::madvise(const_cast<uint8_t*>(bytes_.data()) + offset, end - offset, advice);
}

void FileBytes::will_need(std::span<const uint8_t> range) const {
  advise(range, MADV_WILLNEED);
}

void FileBytes::done_with(std::span<const uint8_t> range) const {
  advise(range, MADV_DONTNEED);
}

}  // namespace accrete::worker
