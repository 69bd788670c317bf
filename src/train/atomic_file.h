// Files that are either there whole or not there.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace preheat {

/// Writes a temporary file beside `path` and, with commit(), renames it over `path`: whatever
/// happens, the old file or the new one stands there, never half of one. A link is followed; what
/// is not a regular file, such as a pipe or a terminal, is written to as it is. Throws Error with
/// the system's reason, for a folder at once.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes);
  void commit();

 private:
  [[noreturn]] void fail(int error) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty where `path_` itself is written
  int file_ = -1;
};

/// All of it at once.
void write_atomically(const std::filesystem::path& path, std::string_view bytes);

/// The whole file. Throws Error with the system's reason.
std::string read_file(const std::filesystem::path& path);

}  // namespace preheat
