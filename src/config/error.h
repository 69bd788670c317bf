// The ways preheat fails. main() turns them into exit codes.
#pragma once

#include <stdexcept>
#include <string>

namespace preheat {

/// Something failed while running: missing data, a damaged file, a full disk. Exit code 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A device has less memory than was requested. It may suffice once other replicas have ended.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// Keeps a message on one line whatever a file or the command line contained: control characters
/// are written as \xNN.
std::string one_line(const std::string& text);

/// Where a key was given. `source` is a file, or the `--set` argument itself; line and column start
/// at 1 and are 0 if the source has no lines.
struct Where {
  std::string source;
  int line = 0;
  int column = 0;
  std::string key;  // the full path: schedule.warmup.length
};

/// The configuration is wrong. Exit code 2. what() reads
/// `file:line:column: key.path: what is wrong; what would be right`.
class ConfigError : public std::runtime_error {
 public:
  ConfigError(const Where& where, const std::string& problem, const std::string& remedy = "");
};

}  // namespace preheat
