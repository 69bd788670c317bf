#include "train/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <barrier>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "config/error.h"
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

// The folders are below the working directory, which is a temporary one during a test.
class DefaultFolders : public testing::Test {
 protected:
  DefaultFolders() { std::filesystem::current_path(folder_.path()); }
  ~DefaultFolders() override { std::filesystem::current_path(before_); }

  const std::filesystem::path before_ = std::filesystem::current_path();
  const TemporaryFolder folder_;
};

TEST_F(DefaultFolders, AreNotSharedByWhatStartsInTheSameInstant) {
  constexpr int count = 16;
  std::vector<std::optional<DefaultFolder>> made(count);
  std::barrier start(count);
  {
    std::vector<std::jthread> threads;
    for (std::optional<DefaultFolder>& one : made) {
      threads.emplace_back([&start, &one] {
        start.arrive_and_wait();
        one.emplace("net", "7");
      });
    }
  }
  std::set<std::filesystem::path> paths;
  for (const std::optional<DefaultFolder>& one : made) {
    ASSERT_TRUE(one);
    EXPECT_TRUE(paths.insert(one->path()).second) << one->path();
    EXPECT_EQ(one->path().parent_path(), "runs/net");
    EXPECT_THAT(one->path().filename().string(),
                testing::MatchesRegex("[0-9]+-[0-9]+-7(\\.[0-9]+)?"));
    make_folder(one->path());  // takes it: it is there and empty
    EXPECT_TRUE(std::filesystem::is_directory(one->path()));
  }
}

TEST_F(DefaultFolders, ThatStayEmptyGoAgainWithThoseMadeForThem) {
  { const DefaultFolder empty("net", "7"); }
  EXPECT_FALSE(std::filesystem::exists("runs"));
  std::filesystem::path used;
  {
    const DefaultFolder one("net", "7");
    const DefaultFolder other("net", "7");
    used = one.path();
    put_bytes(used / "config.yaml", "x");
  }
  EXPECT_EQ(bytes_of(used / "config.yaml"), "x");
  std::filesystem::remove_all("runs");
  std::filesystem::create_directory("runs");  // the user's
  { const DefaultFolder empty("net", "7"); }
  EXPECT_TRUE(std::filesystem::is_empty("runs"));
}

TEST_F(DefaultFolders, ThatCannotBeMadeAreAnErrorThatNamesThem) {
  put_bytes("runs", "x");
  try {
    const DefaultFolder none("net", "7");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::StartsWith("runs: cannot be created: "));
  }
  EXPECT_EQ(bytes_of("runs"), "x");
}

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
