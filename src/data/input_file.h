// A data file from elsewhere: read sequentially, and nothing it says about itself is trusted.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace preheat {

/// A plain or gzip-compressed file. Byte positions refer to the uncompressed content, from 0. A
/// problem in the content is an Error `path: byte N: what is wrong; what would be right`.
class InputFile {
 public:
  /// Throws Error, naming the path, unless it is a regular file that can be opened.
  explicit InputFile(const std::filesystem::path& path);

  std::int64_t position() const { return position_; }

  /// Reads the next `bytes` bytes and appends the first `keep` of them to `out`, by default all.
  /// Memory grows with the data actually read and kept, not with `bytes`. Throws Error if the file
  /// cannot be read or ends too early, naming `what` it ended in.
  void append(std::vector<std::uint8_t>& out, std::int64_t bytes, std::string_view what,
              std::int64_t keep = std::numeric_limits<std::int64_t>::max());

  /// Whether the whole content has been read. At the end of a gzip file this verifies its checksum;
  /// throws Error if that fails.
  bool at_end();

  [[noreturn]] void fail(std::int64_t byte, std::string_view problem,
                         std::string_view remedy) const;

 private:
  struct Close {
    void operator()(gzFile_s* file) const { gzclose_r(file); }
  };

  // Throws if zlib reports an error.
  void check_read() const;

  std::filesystem::path path_;
  std::unique_ptr<gzFile_s, Close> file_;
  std::int64_t position_ = 0;
};

}  // namespace preheat
