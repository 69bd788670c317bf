// Files that are either there whole or not there.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace preheat {

/// Writes a temporary file beside `path` and renames it over `path`: whatever happens, the old file
/// or the new one stands there, never half of one. Throws Error with the system's reason.
void write_atomically(const std::filesystem::path& path, std::string_view bytes);

/// The whole file. Throws Error with the system's reason.
std::string read_file(const std::filesystem::path& path);

}  // namespace preheat
