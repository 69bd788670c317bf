#include "config/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>
#include <vector>

#include "config/error.h"

namespace preheat {
namespace {

constexpr std::string_view suffix = ".tmp";

[[noreturn]] void fail(const std::filesystem::path& path, const char* what, int error) {
  throw Error(fmt::format("{}: {}: {}", path.string(), what, std::strerror(error)));
}

// The end of a chain of symbolic links, whether a file exists there or not.
std::filesystem::path resolve_links(const std::filesystem::path& path) {
  constexpr int max_links = 40;  // the kernel's limit
  std::filesystem::path end = path;
  std::error_code none;
  for (int links = 0; std::filesystem::is_symlink(end, none); ++links) {
    if (links == max_links) fail(path, "cannot be written", ELOOP);
    end = end.parent_path() / std::filesystem::read_symlink(end, none);
  }
  return end;
}

}  // namespace

// A pipe or a terminal is written directly: links under /proc to one do not contain a path.
AtomicFile::AtomicFile(const std::filesystem::path& path) {
  std::error_code none;
  // Writing the temporary file would succeed; only the rename over the folder would fail.
  if (std::filesystem::is_directory(path, none)) preheat::fail(path, "cannot be written", EISDIR);
  const bool special =
      std::filesystem::exists(path, none) && !std::filesystem::is_regular_file(path, none);
  path_ = special ? path : resolve_links(path);
  // A file that is replaced keeps its permissions, which the umask must not reduce.
  struct stat old {};
  const bool replaces = !special && stat(path_.c_str(), &old) == 0;
  const mode_t mode = replaces ? old.st_mode & 0777 : 0644;
  if (special) {
    file_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  } else {
    constexpr int max_attempts = 1000;  // others are writing, or were killed while they did
    for (int i = 1; i <= max_attempts; ++i) {
      temporary_ = fmt::format("{}.{}{}", path_.string(), i, suffix);
      file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
      if (file_ >= 0 || errno != EEXIST) break;
    }
  }
  if (file_ < 0) fail(errno);
  if (replaces) fchmod(file_, mode);
}

AtomicFile::~AtomicFile() {
  if (file_ < 0) return;  // committed
  close(file_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::fail(int error) const {
  preheat::fail(path_, "cannot be written", error);
}

void AtomicFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(errno);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

void AtomicFile::commit() {
  // Without fsync a power failure after the rename could leave an empty file under the final name.
  // EINVAL: the file does not support it.
  if (!temporary_.empty() && fsync(file_) != 0 && errno != EINVAL) fail(errno);
  const int file = std::exchange(file_, -1);
  if (close(file) != 0 ||
      (!temporary_.empty() && std::rename(temporary_.c_str(), path_.c_str()) != 0)) {
    const int error = errno;
    if (!temporary_.empty()) unlink(temporary_.c_str());
    fail(error);
  }
}

std::string_view name_before_temporary(std::string_view name) {
  if (!name.ends_with(suffix)) return "";
  name.remove_suffix(suffix.size());
  const auto last = name.find_last_not_of("0123456789");
  const bool has_number = last != std::string_view::npos && last + 1 < name.size();
  return has_number && name[last] == '.' ? name.substr(0, last) : "";
}

void remove_temporaries(const std::filesystem::path& folder) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    if (name_before_temporary(entry.path().filename().string()).empty()) continue;
    if (entry.is_regular_file(none)) std::filesystem::remove(entry.path(), none);
  }
}

void write_atomically(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path, "cannot be read", errno);
  std::string bytes;
  std::vector<char> chunk(1 << 16);
  while (file.read(chunk.data(), static_cast<std::streamsize>(chunk.size())), file.gcount() > 0) {
    bytes.append(chunk.data(), static_cast<std::size_t>(file.gcount()));
  }
  if (file.bad()) fail(path, "cannot be read", errno);
  return bytes;
}

}  // namespace preheat
