#include "config/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <iterator>
#include <set>
#include <thread>

#include "config/error.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

namespace fs = std::filesystem;

TEST(AtomicFile, ReplacesAndCreates) {
  const TemporaryFolder folder;
  write_atomically(folder / "a", "one");
  EXPECT_EQ(read_file(folder / "a"), "one");
  write_atomically(folder / "a", "two");
  EXPECT_EQ(read_file(folder / "a"), "two");
  EXPECT_FALSE(fs::exists(folder / "a.1.tmp"));
}

TEST(AtomicFile, LeavesThePermissionsOfTheFileItReplaces) {
  using std::filesystem::perms;
  const TemporaryFolder folder;
  for (const auto mode : {perms::owner_read | perms::owner_write, perms(0666)}) {
    put_bytes(folder / "file", "old");
    std::filesystem::permissions(folder / "file", mode);
    write_atomically(folder / "file", "new");
    EXPECT_EQ(std::filesystem::status(folder / "file").permissions(), mode);
  }
}

TEST(AtomicFile, WithoutCommitTheOldFileStands) {
  const TemporaryFolder folder;
  write_atomically(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("half of the n");
  }
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_FALSE(fs::exists(folder / "a.1.tmp"));
}

TEST(AtomicFile, RefusesAFolderAtOnce) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "inner");
  fs::create_symlink("inner", folder / "link");
  for (const char* name : {"inner", "link"}) {
    try {
      AtomicFile file(folder / name);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.what(), (folder / name).string() + ": cannot be written: Is a directory");
    }
    EXPECT_FALSE(fs::exists(folder / "inner.1.tmp"));
  }
}

TEST(AtomicFile, NothingIsReadOfALongerFileThatWasNotFinished) {
  const TemporaryFolder folder;
  put_bytes(folder / "a.1.tmp", "what a run that was killed had written");
  write_atomically(folder / "a", "short");
  EXPECT_EQ(read_file(folder / "a"), "short");
}

TEST(AtomicFile, TwoThatWriteOneFileDoNotMix) {
  const TemporaryFolder folder;
  AtomicFile first(folder / "a");
  first.write("the long text of ");
  {
    AtomicFile second(folder / "a");
    second.write("short");
    second.commit();
  }
  EXPECT_EQ(read_file(folder / "a"), "short");
  first.write("the first");
  first.commit();
  EXPECT_EQ(read_file(folder / "a"), "the long text of the first");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(AtomicFile, WhatKilledProcessesLeaveIsToldByItsName) {
  EXPECT_EQ(name_before_temporary("a.csv.12.tmp"), "a.csv");
  for (const char* other : {"a.csv", "a.tmp", "a.12", ".1.tmp", "1.tmp", "a1.tmp", "a.1.tmp.gz"}) {
    EXPECT_EQ(name_before_temporary(other), "") << other;
  }
  const TemporaryFolder folder;
  for (const char* name : {"a.1.tmp", "a.2.tmp", "a", "mine.tmp"}) put_bytes(folder / name, "x");
  fs::create_directory(folder / "b.1.tmp");
  remove_temporaries(folder.path());
  std::set<std::string> left;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    left.insert(entry.path().filename());
  }
  EXPECT_EQ(left, (std::set<std::string>{"a", "mine.tmp", "b.1.tmp"}));
  remove_temporaries(folder / "missing");
}

TEST(AtomicFile, WhatCannotTakeItsPlaceLeavesNothing) {
  const TemporaryFolder folder;
  AtomicFile file(folder / "a");
  file.write("new");
  fs::create_directory(folder / "a");
  EXPECT_THROW(file.commit(), Error);
  EXPECT_FALSE(fs::exists(folder / "a.1.tmp"));
}

TEST(AtomicFile, FollowsALink) {
  const TemporaryFolder folder;
  write_atomically(folder / "target", "old");
  fs::create_symlink(folder / "target", folder / "link");
  write_atomically(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "target"), "new");
}

TEST(AtomicFile, FollowsALinkToAFileThatIsNotThereYet) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "inner");
  fs::create_symlink("second", folder / "inner/first");  // relative to the link's folder
  fs::create_symlink(folder / "target", folder / "inner/second");
  write_atomically(folder / "inner/first", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "inner/first"));
  EXPECT_TRUE(fs::is_symlink(folder / "inner/second"));
  EXPECT_FALSE(fs::is_symlink(folder / "target"));
  EXPECT_EQ(read_file(folder / "target"), "new");
}

TEST(AtomicFile, WritesIntoAPipe) {
  const TemporaryFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  std::string read;
  std::thread reader([&] { read = bytes_of(folder / "pipe"); });
  write_atomically(folder / "pipe", "through");
  reader.join();
  EXPECT_EQ(read, "through");
  EXPECT_TRUE(fs::is_fifo(folder / "pipe"));
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
  EXPECT_THAT(message([&] { write_atomically(folder.path(), "x"); }),
              testing::HasSubstr("cannot be written"));
  EXPECT_THAT(message([&] { write_atomically(folder / "no/such/place", "x"); }),
              testing::HasSubstr("No such file or directory"));
  fs::create_symlink("b", folder / "a");
  fs::create_symlink("a", folder / "b");
  EXPECT_THAT(message([&] { write_atomically(folder / "a", "x"); }),
              testing::AllOf(testing::HasSubstr((folder / "a").string()),
                             testing::HasSubstr("Too many levels of symbolic links")));
  EXPECT_THAT(message([&] { read_file(folder / "missing"); }),
              testing::HasSubstr("No such file or directory"));
}

}  // namespace
}  // namespace preheat
