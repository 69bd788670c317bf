#include "train/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "temporary_folder.h"
#include "train/small_run.h"

namespace preheat {
namespace {

// The names that appear in a folder, in order.
class Watch {
 public:
  explicit Watch(const std::filesystem::path& folder) : file_(inotify_init1(IN_NONBLOCK)) {
    if (inotify_add_watch(file_, folder.c_str(), IN_CREATE | IN_MOVED_TO) < 0) {
      throw std::runtime_error("no watch");
    }
  }
  ~Watch() { close(file_); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  std::vector<std::string> names() const {
    alignas(inotify_event) std::array<char, 4096> bytes{};
    const ssize_t size = read(file_, bytes.data(), bytes.size());
    std::vector<std::string> names;
    for (ssize_t at = 0; at < size;) {
      inotify_event event{};
      std::memcpy(&event, bytes.data() + at, sizeof event);
      names.emplace_back(bytes.data() + at + sizeof event);
      at += static_cast<ssize_t>(sizeof event + event.len);
    }
    return names;
  }

 private:
  int file_;
};

// A run that is killed in between leaves a folder that is recognised as a run's.
TEST(RunFolder, HasItsConfigurationBeforeAnythingElse) {
  const TemporaryFolder folder;
  const Watch watch(folder.path());
  const RunFolder run(folder.path(), config_of());
  const std::vector<std::string> names = watch.names();
  ASSERT_GE(names.size(), 4u);
  EXPECT_EQ(names[0], "config.yaml.1.tmp");
  EXPECT_EQ(names[1], "config.yaml");
  EXPECT_THAT(names, testing::IsSupersetOf({"metrics.csv", "eval.csv"}));
}

// A folder's name may be any bytes, JSON's text may not.
TEST(RunFolder, WritesASummaryWhoseDataAreInAFolderThatIsNotUtf8) {
  const TemporaryFolder folder;
  const RunFolder run(folder / "run", config_of());
  run.write_summary({{"data", "/data/\xff/mnist"}});
  EXPECT_EQ(bytes_of(folder / "run/summary.json"),
            "{\n  \"data\": \"/data/\xef\xbf\xbd/mnist\"\n}\n");
}

}  // namespace
}  // namespace preheat
