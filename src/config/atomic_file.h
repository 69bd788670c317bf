// Writes files atomically, and reads whole files.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace preheat {

/// Writes a temporary file next to `path` and renames it to `path` in commit(), so that `path`
/// always holds the complete old or the complete new file. The temporary file is new,
/// "<path>.<number>.tmp", so that several processes that write one file do not mix; the last to
/// commit prevails. A symbolic link is followed. Anything but a regular file, such as a pipe or a
/// terminal, is written directly. Throws Error with the system's reason, for a folder already in
/// the constructor.
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
  std::filesystem::path temporary_;  // empty if `path_` is written directly
  int file_ = -1;
};

/// The name of the file that is written under a temporary name, "a" for "a.1.tmp"; "" if `name` is
/// not a temporary one.
std::string_view name_before_temporary(std::string_view name);

/// Removes the temporary files that killed processes have left in a folder, if it exists. Nothing
/// may be writing there.
void remove_temporaries(const std::filesystem::path& folder);

/// Writes a complete file through AtomicFile.
void write_atomically(const std::filesystem::path& path, std::string_view bytes);

/// The whole file. Throws Error with the system's reason.
std::string read_file(const std::filesystem::path& path);

}  // namespace preheat
