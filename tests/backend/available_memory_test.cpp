// What memory is free, by made-up files of a machine and its control groups.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>

#include "backend/cpu/available_memory.h"
#include "temporary_folder.h"

namespace preheat::cpu {
namespace {

class AvailableMemory : public testing::Test {
 protected:
  std::size_t between(std::size_t least, std::size_t most) {
    return std::uniform_int_distribution(least, most)(random_);
  }

  void put(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    put_bytes(folder_ / name, text);
  }
  void put_machine(std::size_t kib) const {
    put("proc/meminfo", fmt::format("MemTotal:       {} kB\nMemFree:        17 kB\n"
                                    "MemAvailable:   {} kB\nBuffers:        23 kB\n",
                                    2 * kib, kib));
  }
  void put_version_1(const std::string& group, std::size_t limit, std::size_t used,
                     std::size_t inactive_file) const {
    const std::string folder = "groups/memory" + group;
    put(folder + "/memory.limit_in_bytes", fmt::format("{}\n", limit));
    put(folder + "/memory.usage_in_bytes", fmt::format("{}\n", used));
    put(folder + "/memory.stat", fmt::format("cache 31\ninactive_file 37\ntotal_cache 41\n"
                                             "total_inactive_file {}\ntotal_active_file 43\n",
                                             inactive_file));
  }
  void put_version_2(const std::string& group, const std::string& limit, std::size_t used,
                     std::size_t inactive_file) const {
    const std::string folder = "groups" + group;
    put(folder + "/memory.max", limit + "\n");
    put(folder + "/memory.current", fmt::format("{}\n", used));
    put(folder + "/memory.stat", fmt::format("anon 31\ninactive_anon 37\ninactive_file {}\n"
                                             "active_file 43\n",
                                             inactive_file));
  }
  std::size_t available() const { return available_memory(folder_ / "proc", folder_ / "groups"); }

  const unsigned seed_ = std::random_device{}();
  const testing::ScopedTrace trace_{__FILE__, __LINE__, testing::Message() << "seed " << seed_};
  std::mt19937 random_{seed_};
  const TemporaryFolder folder_;

  // Of a group that leaves `left_`, which is less than the machine does.
  const std::size_t cache_ = between(0, 1'000'000);
  const std::size_t used_ = cache_ + between(0, 1'000'000'000);
  const std::size_t left_ = between(1'000'000, 8'000'000'000);
  const std::size_t limit_ = left_ + used_ - cache_;
  const std::size_t machine_kib_ = between(8'000'000, 1'000'000'000);
};

TEST_F(AvailableMemory, WithoutControlGroupsIsTheMachines) {
  put_machine(machine_kib_);
  EXPECT_EQ(available(), machine_kib_ * 1024);
}

TEST_F(AvailableMemory, IsWhatTheLimitOfAGroupLeaves) {
  put_machine(machine_kib_);
  put("proc/self/cgroup", "0::/user.slice/job: 7\n");
  put_version_2("/user.slice/job: 7", fmt::to_string(limit_), used_, cache_);
  EXPECT_EQ(available(), left_);
}

TEST_F(AvailableMemory, IsTheMachinesWhereTheGroupLeavesMore) {
  put_machine(left_ / 1024);
  put("proc/self/cgroup", "0::/job\n");
  put_version_2("/job", fmt::to_string(limit_ + 1024), used_, cache_);
  EXPECT_EQ(available(), left_ / 1024 * 1024);
}

TEST_F(AvailableMemory, MaxIsNoLimit) {
  put_machine(machine_kib_);
  put("proc/self/cgroup", "0::/job\n");
  put_version_2("/job", "max", used_, cache_);
  EXPECT_EQ(available(), machine_kib_ * 1024);
}

TEST_F(AvailableMemory, IsTheLeastOfAGroupAndThoseAboveIt) {
  put_machine(machine_kib_);
  put("proc/self/cgroup", "0::/job/step/task\n");
  put_version_2("/job", fmt::to_string(limit_), used_, cache_);
  put_version_2("/job/step", fmt::to_string(limit_ + 1), used_, cache_);
  put_version_2("/job/step/task", "max", used_, cache_);
  put_version_2("/job/step/other", "1", 0, 0);
  EXPECT_EQ(available(), left_);
  put_version_2("/job/step/task", fmt::to_string(limit_ - 1), used_, cache_);
  EXPECT_EQ(available(), left_ - 1);
}

TEST_F(AvailableMemory, NothingIsLeftWhereMoreIsUsedThanTheLimit) {
  put_machine(machine_kib_);
  put("proc/self/cgroup", "0::/job\n");
  put_version_2("/job", fmt::to_string(used_ - cache_), used_ + 1, cache_);
  EXPECT_EQ(available(), 0);
}

TEST_F(AvailableMemory, IsWhatTheLimitOfAVersion1GroupLeaves) {
  put_machine(machine_kib_);
  put("proc/self/cgroup",
      "9:name=systemd:/other\n4:hugetlb,memory:/job/step\n1:cpu,cpuacct:/\n0::/\n");
  put_version_1("", 9223372036854771712U, 2 * used_, cache_);  // what it says without a limit
  put_version_1("/job", limit_, used_, cache_);
  put_version_1("/job/step", limit_ + 1, used_, cache_);
  put_version_1("/other", 1, 0, 0);
  EXPECT_EQ(available(), left_);
}

// Its own group is the root of what it sees, and its path may be the machine's.
TEST_F(AvailableMemory, InAContainerIsWhatTheRootLeaves) {
  put_machine(machine_kib_);
  put_version_2("", fmt::to_string(limit_), used_, cache_);
  for (const char* path : {"/", "/docker/5f0c", "/../../job"}) {
    put("proc/self/cgroup", fmt::format("0::{}\n", path));
    EXPECT_EQ(available(), left_) << path;
  }
  put_version_1("", limit_ - 1, used_, cache_);
  put("proc/self/cgroup", "4:memory:/docker/5f0c\n");
  EXPECT_EQ(available(), left_ - 1);
}

TEST_F(AvailableMemory, FilesThatCannotBeUnderstoodLimitNothing) {
  put_machine(machine_kib_);
  put_version_2("/job", "1", 0, 0);
  for (const char* text : {"", "\n", "garbage", "0:/job", "memory:/job\n", "0:cpu:/job\n"}) {
    put("proc/self/cgroup", text);
    EXPECT_EQ(available(), machine_kib_ * 1024) << text;
  }
  put("proc/self/cgroup", "0::/job\n");
  for (const char* limit : {"", "garbage", "99999999999999999999999999"}) {
    put_version_2("/job", limit, used_, cache_);
    EXPECT_EQ(available(), machine_kib_ * 1024) << limit;
  }
  std::filesystem::remove(folder_ / "groups/job/memory.max");
  std::filesystem::create_directory(folder_ / "groups/job/memory.max");  // cannot be read
  EXPECT_EQ(available(), machine_kib_ * 1024);
}

TEST_F(AvailableMemory, ALimitHoldsWhereItIsNotKnownWhatIsUsed) {
  put_machine(machine_kib_);
  put("proc/self/cgroup", "0::/job\n");
  put("groups/job/memory.max", fmt::to_string(limit_));
  put("groups/job/memory.current", "garbage");
  EXPECT_EQ(available(), std::min(limit_, machine_kib_ * 1024));
  put("groups/job/memory.current", fmt::to_string(used_));
  put("groups/job/memory.stat", "garbage\n");
  EXPECT_EQ(available(), limit_ - used_);
}

TEST_F(AvailableMemory, OfThisMachineIsSomeAndAtMostAll) {
  EXPECT_GT(available_memory(), 0);
  EXPECT_LE(available_memory(),
            static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE));
}

}  // namespace
}  // namespace preheat::cpu
