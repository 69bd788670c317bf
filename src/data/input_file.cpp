#include "data/input_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "config/error.h"

namespace preheat {
namespace {

constexpr std::int64_t chunk_bytes = 4 << 20;

}  // namespace

InputFile::InputFile(const std::filesystem::path& path) : path_(path) {
  // Opening a pipe or a device could block or never end.
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    throw Error(fmt::format("{}: is {}; expected a file", path.string(),
                            std::filesystem::is_directory(status) ? "a folder" : "not a file"));
  }
  errno = 0;
  file_.reset(gzopen(path.c_str(), "rb"));
  if (!file_) {
    throw Error(fmt::format("{}: cannot be opened: {}", path.string(),
                            errno != 0 ? std::strerror(errno) : "out of memory"));
  }
  gzbuffer(file_.get(), 1 << 17);
}

void InputFile::check_read() const {
  int code = Z_OK;
  std::string_view text = gzerror(file_.get(), &code);
  if (code == Z_OK) return;
  const std::string prefix = path_.string() + ": ";
  if (text.starts_with(prefix)) text.remove_prefix(prefix.size());
  fail(position_, fmt::format("cannot be read: {}", text), "an undamaged file");
}

void InputFile::append(std::vector<std::uint8_t>& out, std::int64_t bytes, std::string_view what,
                       std::int64_t keep) {
  const auto ends = [&](std::int64_t byte, std::int64_t missing) {
    fail(byte, fmt::format("the file ends in {}", what), fmt::format("{} more bytes", missing));
  };
  // A plain file's size shows before reading whether a large request can be met.
  if (bytes > chunk_bytes && gzdirect(file_.get()) == 1) {
    std::error_code error;
    const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path_, error));
    if (!error && size - position_ < bytes) ends(size, position_ + bytes - size);
  }
  const std::size_t most = out.size() + static_cast<std::size_t>(std::min(bytes, keep));
  while (bytes > 0) {
    const auto chunk = static_cast<std::size_t>(std::min(bytes, chunk_bytes));
    const std::size_t before = out.size();
    out.resize(before + chunk);
    const int count = gzread(file_.get(), out.data() + before, static_cast<unsigned>(chunk));
    if (count > 0) {
      position_ += count;
      bytes -= count;
    }
    if (count < static_cast<int>(chunk)) {
      check_read();
      ends(position_, bytes);
    }
    out.resize(std::min(out.size(), most));
  }
}

bool InputFile::at_end() {
  const int next = gzgetc(file_.get());
  if (next >= 0) {
    gzungetc(next, file_.get());
    return false;
  }
  check_read();
  return true;
}

void InputFile::fail(std::int64_t byte, std::string_view problem, std::string_view remedy) const {
  throw Error(fmt::format("{}: byte {}: {}; expected {}", path_.string(), byte, problem, remedy));
}

}  // namespace preheat
