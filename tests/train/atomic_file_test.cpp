#include "train/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <set>
#include <thread>

#include "config/error.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

namespace fs = std::filesystem;

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

TEST(AtomicFile, ReplacesAndCreates) {
  const TemporaryFolder folder;
  write_atomically(folder / "a", "one");
  EXPECT_EQ(read_file(folder / "a"), "one");
  write_atomically(folder / "a", "two");
  EXPECT_EQ(read_file(folder / "a"), "two");
  EXPECT_FALSE(fs::exists(folder / "a.tmp"));
}

TEST(AtomicFile, WithoutCommitTheOldFileStands) {
  const TemporaryFolder folder;
  write_atomically(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("half of the n");
  }
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_FALSE(fs::exists(folder / "a.tmp"));
}

TEST(AtomicFile, FollowsALink) {
  const TemporaryFolder folder;
  write_atomically(folder / "target", "old");
  fs::create_symlink(folder / "target", folder / "link");
  write_atomically(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "target"), "new");

  // Over two links, relative to the folder each is in.
  fs::create_directory(folder / "below");
  fs::create_symlink("../link", folder / "below/link");
  write_atomically(folder / "below/link", "newer");
  EXPECT_TRUE(fs::is_symlink(folder / "below/link"));
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "target"), "newer");
  EXPECT_THAT(names_in(folder.path()), testing::ElementsAre("below", "link", "target"));
  EXPECT_THAT(names_in(folder / "below"), testing::ElementsAre("link"));
}

TEST(AtomicFile, FollowsALinkToAFileThatIsNotThereYet) {
  const TemporaryFolder folder;
  fs::create_symlink("target", folder / "link");
  write_atomically(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_TRUE(fs::is_regular_file(folder / "target"));
}

TEST(AtomicFile, WritesIntoAPipe) {
  const TemporaryFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  fs::create_symlink("pipe", folder / "link");
  std::string bytes;  // more than a pipe holds at once
  while (bytes.size() < 300'000) bytes += std::to_string(bytes.size()) + "\n";
  for (const char* name : {"pipe", "link"}) {
    std::string read;
    std::thread reader([&] { read = bytes_of(folder / "pipe"); });
    write_atomically(folder / name, bytes);
    reader.join();
    EXPECT_TRUE(read == bytes) << name << ": " << read.size() << " of " << bytes.size();
  }
  EXPECT_TRUE(fs::is_fifo(folder / "pipe"));
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_THAT(names_in(folder.path()), testing::ElementsAre("link", "pipe"));
}

TEST(AtomicFile, ReasonsComeFromTheSystem) {
  const TemporaryFolder folder;
  const auto message = [](const auto& work) -> std::string {
    try {
      work();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  fs::create_directory(folder / "directory");
  EXPECT_THAT(message([&] { write_atomically(folder / "directory", "x"); }),
              testing::HasSubstr("directory: cannot be written: "));
  EXPECT_THAT(names_in(folder.path()), testing::ElementsAre("directory"));
  fs::create_symlink("loop", folder / "loop");
  EXPECT_THAT(message([&] { write_atomically(folder / "loop", "x"); }),
              testing::HasSubstr("loop: cannot be written: "));
  EXPECT_THAT(message([&] { write_atomically(folder / "no/such/place", "x"); }),
              testing::HasSubstr("No such file or directory"));
  EXPECT_THAT(message([&] { read_file(folder / "missing"); }),
              testing::HasSubstr("No such file or directory"));
}

}  // namespace
}  // namespace preheat
