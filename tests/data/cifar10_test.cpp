#include "data/cifar10.h"

#include <gtest/gtest.h>

#include <random>

#include "config/error.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

Bytes random_records(std::size_t count, std::mt19937& generator) {
  Bytes bytes(count * 3073);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(generator());
  for (std::size_t i = 0; i < count; ++i) bytes[i * 3073] %= 10;
  return bytes;
}

std::string error(const std::filesystem::path& path) {
  try {
    read_cifar10({&path, 1});
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Cifar10, TurnsPlanesIntoNhwcAndJoinsFiles) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  const TemporaryFolder folder;
  const Bytes first = random_records(2, generator);
  const Bytes second = random_records(1, generator);
  const std::vector<std::filesystem::path> files{folder.write("a.bin", first),
                                                 folder.write("b.bin", second)};
  const Dataset data = read_cifar10(files);
  EXPECT_EQ(data.shape, (ImageShape{32, 32, 3}));
  EXPECT_EQ(data.classes, 10);
  ASSERT_EQ(data.size(), 3);
  Bytes all = first;
  all.insert(all.end(), second.begin(), second.end());
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(data.labels[i], all[i * 3073]);
    for (std::size_t y = 0; y < 32; ++y) {
      for (std::size_t x = 0; x < 32; ++x) {
        for (std::size_t c = 0; c < 3; ++c) {
          ASSERT_EQ(data.pixels[((i * 32 + y) * 32 + x) * 3 + c],
                    all[i * 3073 + 1 + (c * 32 + y) * 32 + x]);
        }
      }
    }
  }
}

TEST(Cifar10, NamesTheByteOfWhatIsWrong) {
  std::mt19937 generator(1);
  const TemporaryFolder folder;
  const Bytes records = random_records(3, generator);
  const auto write = [&](const Bytes& bytes) { return folder.write("x.bin", bytes); };
  const std::string path = (folder.path() / "x.bin").string();

  EXPECT_EQ(
      error(write({})),
      path + ": byte 0: the file ends in record 0 of 3073 bytes each; expected 3073 more bytes");
  EXPECT_EQ(
      error(write(Bytes(records.begin(), records.end() - 1))),
      path + ": byte 9218: the file ends in record 2 of 3073 bytes each; expected 1 more bytes");
  EXPECT_EQ(
      error(write(Bytes(records.begin(), records.begin() + 3074))),
      path + ": byte 3074: the file ends in record 1 of 3073 bytes each; expected 3072 more bytes");
  Bytes bad = records;
  bad[3073] = 10;
  EXPECT_EQ(error(write(bad)), path + ": byte 3073: label 10 of record 1; expected 0 to 9");
  EXPECT_EQ(
      error(write(Bytes(10001 * 3073))),
      path + ": byte 30730000: the file continues after 10000 records; expected nothing more");
  EXPECT_EQ(error(folder.path()), folder.path().string() + ": is a folder; expected a file");
}

}  // namespace
}  // namespace preheat
