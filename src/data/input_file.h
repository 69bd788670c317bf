// A data file that somebody else made: read once, front to back, and trusted with nothing.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace preheat {

/// A plain or gzip-compressed file. Bytes count from 0 in the uncompressed content. Every problem
/// is an Error that reads `path: byte N: what is wrong; what would be right`.
class InputFile {
 public:
  /// Throws Error for anything but a regular file that can be opened.
  explicit InputFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::int64_t position() const { return position_; }

  /// Appends the next `bytes` bytes. Memory grows with the data that arrive, not with what was
  /// promised. Throws where the file ends first, naming `what` it ended in.
  void append(std::vector<std::uint8_t>& out, std::int64_t bytes, std::string_view what);

  /// Whether nothing follows; for gzip, this is where its checksum is verified.
  bool at_end();

  [[noreturn]] void fail(std::int64_t byte, std::string_view problem,
                         std::string_view remedy) const;

 private:
  struct Close {
    void operator()(gzFile_s* file) const { gzclose_r(file); }
  };

  // Throws if zlib has met an error.
  void check_read() const;

  std::filesystem::path path_;
  std::unique_ptr<gzFile_s, Close> file_;
  std::int64_t position_ = 0;
};

}  // namespace preheat
