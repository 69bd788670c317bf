// How much memory a run may take.
#pragma once

#include <cstddef>
#include <filesystem>

namespace preheat::cpu {

/// The bytes that the kernel can still grant this process: the least of what the machine has
/// (MemAvailable of `proc`/meminfo) and of what the memory limits of the process's control group
/// and of those above it leave, a container's or a job's. `groups` is where control groups are
/// mounted, of version 1 or 2 (Linux, Documentation/admin-guide/cgroup-v1/memory.rst and
/// cgroup-v2.rst). File pages that were not in use lately (inactive_file) are not counted as used.
/// A file that is missing or cannot be understood limits nothing.
std::size_t available_memory(const std::filesystem::path& proc = "/proc",
                             const std::filesystem::path& groups = "/sys/fs/cgroup");

}  // namespace preheat::cpu
