#include "data/idx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <random>

#include "config/error.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

constexpr ImageShape shape{5, 3, 1};
constexpr std::int64_t classes = 4;
constexpr std::int64_t all = 100'000'000;

Bytes words(std::initializer_list<std::uint32_t> values) {
  Bytes bytes;
  for (const std::uint32_t value : values) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes.push_back(static_cast<std::uint8_t>(value >> shift));
    }
  }
  return bytes;
}

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Bytes random_bytes(std::size_t count, int below_this) {
  static std::mt19937 generator(7);
  std::uniform_int_distribution<int> value(0, below_this - 1);
  Bytes bytes(count);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(value(generator));
  return bytes;
}

class Idx : public testing::Test {
 protected:
  static constexpr std::uint32_t n = 7;
  const TemporaryFolder folder;
  const Bytes pixels = random_bytes(n * 15, 256);
  const Bytes labels = random_bytes(n, 4);
  const Bytes images_file = words({0x803, n, 5, 3}) + pixels;
  const Bytes labels_file = words({0x801, n}) + labels;
  const std::filesystem::path images_path = folder.write("images", images_file);
  const std::filesystem::path labels_path = folder.write("labels", labels_file);

  std::string error() const { return error(images_path, labels_path); }
  static std::string error(const std::filesystem::path& images,
                           const std::filesystem::path& labels) {
    try {
      read_idx(images, labels, shape, classes, all);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
  std::string images_error(const Bytes& bytes) const {
    folder.write("images", bytes);
    return error();
  }
  std::string labels_error(const Bytes& bytes) const {
    folder.write("labels", bytes);
    return error();
  }
  std::string at(const std::filesystem::path& path, int byte) const {
    return path.string() + ": byte " + std::to_string(byte) + ": ";
  }
};

TEST_F(Idx, ReadsPlainAndGzipAlike) {
  const auto gz_images = folder.write_gzip("images.gz", images_file);
  const auto gz_labels = folder.write_gzip("labels.gz", labels_file);
  for (const auto& images : {images_path, gz_images}) {
    for (const auto& label_path : {labels_path, gz_labels}) {
      const Dataset data = read_idx(images, label_path, shape, classes, all);
      EXPECT_EQ(data.shape, shape);
      EXPECT_EQ(data.classes, classes);
      EXPECT_EQ(data.pixels, pixels);
      EXPECT_EQ(data.labels, labels);
    }
  }
}

TEST_F(Idx, ReadsFilesOfManyChunks) {
  constexpr std::uint32_t many = 700'001;  // 10.5 MB of pixels
  const Bytes big = random_bytes(many * 15, 256);
  const Bytes big_labels = random_bytes(many, 4);
  const auto images = folder.write_gzip("big.gz", words({0x803, many, 5, 3}) + big);
  const auto more_labels = folder.write("big-labels", words({0x801, many}) + big_labels);
  const Dataset data = read_idx(images, more_labels, shape, classes, all);
  EXPECT_TRUE(data.pixels == big);
  EXPECT_TRUE(data.labels == big_labels);
}

TEST_F(Idx, NamesWhatTheFileHoldsInstead) {
  EXPECT_EQ(error(labels_path, labels_path),
            at(labels_path, 0) +
                "the file holds labels (magic 0x00000801); expected images (magic "
                "0x00000803)");
  EXPECT_EQ(error(images_path, images_path),
            at(images_path, 0) +
                "the file holds images (magic 0x00000803); expected labels (magic "
                "0x00000801)");
  EXPECT_EQ(images_error({'<', '!', 'd', 'o', 'c'}),
            at(images_path, 0) +
                "the file holds something else (magic 0x3c21646f); expected images (magic "
                "0x00000803)");
}

TEST_F(Idx, NamesTheByteWhereAFileEnds) {
  for (int size = 0; size < static_cast<int>(images_file.size()); ++size) {
    const Bytes cut(images_file.begin(), images_file.begin() + size);
    const int missing = size < 16 ? 4 - size % 4 : static_cast<int>(images_file.size()) - size;
    const std::string problem = "the file ends in " +
                                std::string(size < 16 ? "its header" : "its images") +
                                "; expected " + std::to_string(missing) + " more bytes";
    EXPECT_EQ(images_error(cut), at(images_path, size) + problem);
    const auto gz = folder.write_gzip("cut.gz", cut);
    EXPECT_EQ(error(gz, labels_path), at(gz, size) + problem);
  }
  folder.write("images", images_file);
  EXPECT_EQ(labels_error({0, 0, 8, 1, 0, 0}),
            at(labels_path, 6) + "the file ends in its header; expected 2 more bytes");
  EXPECT_EQ(labels_error(words({0x801, n})),
            at(labels_path, 8) + "the file ends in its labels; expected 7 more bytes");
}

TEST_F(Idx, RefusesBytesAfterTheData) {
  const std::string problem =
      "the file continues after the data that its header promises; expected nothing more";
  EXPECT_EQ(error(folder.write("i", images_file + Bytes{0}), labels_path),
            at(folder.path() / "i", 16 + 105) + problem);
  EXPECT_EQ(error(images_path, folder.write_gzip("l.gz", labels_file + Bytes{1, 2})),
            at(folder.path() / "l.gz", 8 + 7) + problem);
}

// By how many KiB `work` raises the peak of resident memory: in a child process, whose peak begins
// at what is resident, whatever was before. -1 if the child fails.
long peak_growth_kib(const std::function<void()>& work) {
  const auto max_kib = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  int ends[2];
  if (pipe(ends) != 0) return -1;
  const pid_t child = fork();
  if (child == 0) {
    const long before = max_kib();
    work();
    const long growth = max_kib() - before;
    const bool sent = write(ends[1], &growth, sizeof growth) == sizeof growth;
    _exit(sent ? 0 : 1);
  }
  close(ends[1]);
  long growth = -1;
  if (read(ends[0], &growth, sizeof growth) != sizeof growth) growth = -1;
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return growth;
}

// Space for the promised data would be filled with zeros, and so be resident.
TEST_F(Idx, DoesNotAllocateWhatAHeaderPromises) {
  // Within the limits, but more than the file holds.
  const Bytes promised = words({0x801, 100'000'000}) + labels;
  const auto gz = folder.write_gzip("l.gz", promised);
  const auto plain = folder.write("l", promised);
  const auto read_both = [&] {
    for (const auto& path : {plain, gz}) {
      EXPECT_EQ(error(images_path, path),
                at(path, 15) + "the file ends in its labels; expected 99999993 more bytes");
    }
  };
  read_both();
  const long growth = peak_growth_kib(read_both);
  EXPECT_GE(growth, 0);
  EXPECT_LT(growth, 64 * 1024);
  const long of_so_many = peak_growth_kib([] {
    const std::vector<std::uint8_t> zeros(100'000'000);
    const volatile std::uint8_t* const used = zeros.data();
    static_cast<void>(*used);
  });
  EXPECT_GT(of_so_many, 64 * 1024) << "the measurement itself does not work";
}

// What is not kept is read all the same, so that a damaged file is found.
TEST_F(Idx, KeepsTheFirstExamplesAndChecksTheRest) {
  const auto gz = folder.write_gzip("images.gz", images_file);
  for (const auto& images : {images_path, gz}) {
    for (const std::int64_t most : {1, 3, 6, 7, 8}) {
      const auto kept = static_cast<std::size_t>(std::min<std::int64_t>(most, n));
      const Dataset data = read_idx(images, labels_path, shape, classes, most);
      EXPECT_EQ(data.pixels, Bytes(pixels.begin(), pixels.begin() + 15 * kept));
      EXPECT_EQ(data.labels, Bytes(labels.begin(), labels.begin() + kept));
    }
  }
  const auto error_of_two = [&](const std::filesystem::path& images,
                                const std::filesystem::path& with_labels) -> std::string {
    try {
      read_idx(images, with_labels, shape, classes, 2);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  const auto cut = folder.write("cut", Bytes(images_file.begin(), images_file.end() - 1));
  EXPECT_EQ(error_of_two(cut, labels_path),
            at(cut, 16 + 104) + "the file ends in its images; expected 1 more bytes");
  const auto longer = folder.write("longer", images_file + Bytes{0});
  EXPECT_THAT(error_of_two(longer, labels_path), HasSubstr("the file continues after the data"));
  Bytes bad_crc = read_bytes(gz);
  bad_crc[bad_crc.size() - 8] ^= 1;
  EXPECT_THAT(error_of_two(folder.write("bad.gz", bad_crc), labels_path),
              HasSubstr("incorrect data check"));
  const auto fewer = folder.write("fewer", words({0x801, n - 1}) + Bytes(n - 1, 0));
  EXPECT_THAT(error_of_two(images_path, fewer), HasSubstr("as many as"));
}

// Zeros compress to a thousandth of their size: a small file may hold more than the memory.
TEST_F(Idx, MemoryIsBoundedByWhatIsKept) {
  constexpr std::uint32_t many = 8'000'000;  // 120 MB of pixels
  const auto zeros = [&](const char* name, const Bytes& header, std::size_t size) {
    const auto path = folder.path() / name;
    gzFile file = gzopen(path.c_str(), "wb1");
    gzwrite(file, header.data(), static_cast<unsigned>(header.size()));
    const Bytes chunk(1'000'000);
    for (std::size_t done = 0; done < size; done += chunk.size()) {
      gzwrite(file, chunk.data(), static_cast<unsigned>(chunk.size()));
    }
    gzclose(file);
    return path;
  };
  const auto images = zeros("images.gz", words({0x803, many, 5, 3}), std::size_t{many} * 15);
  const auto with_labels = zeros("labels.gz", words({0x801, many}), many);
  const auto read = [&] {
    if (read_idx(images, with_labels, shape, classes, 100).size() != 100) _exit(1);
  };
  const long growth = peak_growth_kib(read);
  EXPECT_GE(growth, 0);
  EXPECT_LT(growth, 64 * 1024);
}

TEST_F(Idx, RefusesCountsAndSidesThatCannotBe) {
  const Bytes huge = words({0x803, 0x80000000, 5, 3}) + pixels;
  EXPECT_EQ(
      images_error(huge),
      at(images_path, 4) + "the header promises 2147483648 examples; expected 1 to 100000000");
  EXPECT_EQ(images_error(words({0x803, n, 0x80000000, 0x80000000}) + pixels),
            at(images_path, 8) + "the images' height is 2147483648; expected 5 pixels");
  EXPECT_EQ(images_error(words({0x803, n, 5, 0xffffffff}) + pixels),
            at(images_path, 12) + "the images' width is 4294967295; expected 3 pixels");
  EXPECT_EQ(images_error(words({0x803, 0, 5, 3})),
            at(images_path, 4) + "the header promises 0 examples; expected 1 to 100000000");
  folder.write("images", images_file);
  EXPECT_EQ(
      labels_error(words({0x801, 0xffffffff}) + labels),
      at(labels_path, 4) + "the header promises 4294967295 examples; expected 1 to 100000000");
}

TEST_F(Idx, NamesBothFilesWhereCountsDiffer) {
  EXPECT_EQ(labels_error(words({0x801, n - 1}) + Bytes(n - 1, 0)),
            at(images_path, 4) + "the header promises 7 examples; expected 6, as many as " +
                labels_path.string() + " has labels");
}

TEST_F(Idx, NamesTheByteOfALabelThatIsNone) {
  Bytes bad = labels_file;
  bad[8 + 5] = 4;
  EXPECT_EQ(labels_error(bad), at(labels_path, 13) + "label 4 of example 5; expected 0 to 3");
}

TEST_F(Idx, RefusesOtherSides) {
  EXPECT_EQ(images_error(words({0x803, n, 3, 5}) + pixels),
            at(images_path, 8) + "the images' height is 3; expected 5 pixels");
}

TEST_F(Idx, ReportsDamagedGzip) {
  const Bytes whole = read_bytes(folder.write_gzip("i.gz", images_file));
  Bytes bad_crc = whole;
  bad_crc[bad_crc.size() - 8] ^= 1;
  const auto path = folder.write("i.gz", bad_crc);
  EXPECT_THAT(
      error(path, labels_path),
      AllOf(StartsWith(path.string() + ": byte "),
            EndsWith(": cannot be read: incorrect data check; expected an undamaged file")));
  Bytes bad_length = whole;
  bad_length[bad_length.size() - 4] ^= 1;
  folder.write("i.gz", bad_length);
  EXPECT_THAT(error(path, labels_path), HasSubstr("incorrect length check"));
  folder.write("i.gz", Bytes(whole.begin(), whole.end() - 9));
  EXPECT_THAT(error(path, labels_path),
              EndsWith(": cannot be read: unexpected end of file; expected an undamaged file"));
  Bytes bad_block = whole;
  bad_block[10] = 0xff;  // the first byte of the compressed data: a block type that does not exist
  folder.write("i.gz", bad_block);
  EXPECT_EQ(error(path, labels_path),
            at(path, 0) + "cannot be read: invalid block type; expected an undamaged file");
}

// Any damage gives an error that names the file and the byte, or data of the right shape.
TEST_F(Idx, SurvivesAnyDamage) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  const Bytes gz = read_bytes(folder.write_gzip("i.gz", images_file));
  for (int round = 0; round < 500; ++round) {
    Bytes damaged = round % 2 ? gz : images_file;
    for (unsigned k = 0; k <= generator() % 3; ++k) {
      damaged[generator() % damaged.size()] = static_cast<std::uint8_t>(generator());
    }
    if (generator() % 2) damaged.resize(generator() % (damaged.size() + 1));
    folder.write("images", damaged);
    try {
      EXPECT_EQ(read_idx(images_path, labels_path, shape, classes, all).pixels.size(), n * 15);
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), StartsWith(images_path.string() + ": byte "));
    }
  }
}

TEST_F(Idx, RefusesWhatIsNotAReadableFile) {
  EXPECT_EQ(error(folder.path() / "none", labels_path),
            (folder.path() / "none").string() + ": cannot be opened: No such file or directory");
  EXPECT_EQ(error(folder.path(), labels_path),
            folder.path().string() + ": is a folder; expected a file");
  EXPECT_EQ(error(images_path, "/dev/zero"), "/dev/zero: is not a file; expected a file");
  const auto pipe = folder.path() / "pipe";  // opening it would wait for ever
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(error(pipe, labels_path), pipe.string() + ": is not a file; expected a file");
}

TEST_F(Idx, ReportsMissingPermission) {
  std::filesystem::permissions(images_path, std::filesystem::perms::none);
  if (std::ifstream(images_path)) GTEST_SKIP() << "this user may read every file";
  EXPECT_EQ(error(), images_path.string() + ": cannot be opened: Permission denied");
}

TEST_F(Idx, ReportsAReadThatFails) {
  if (!std::filesystem::exists("/proc/self/mem")) GTEST_SKIP() << "no /proc";
  EXPECT_EQ(
      error("/proc/self/mem", labels_path),
      "/proc/self/mem: byte 0: cannot be read: Input/output error; expected an undamaged file");
}

}  // namespace
}  // namespace preheat
