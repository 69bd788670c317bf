#include "data/idx.h"

#include <fmt/format.h>

#include <span>
#include <string>
#include <vector>

#include "data/input_file.h"

namespace preheat {
namespace {

constexpr std::uint32_t labels_magic = 0x00000801;
constexpr std::uint32_t images_magic = 0x00000803;
constexpr std::int64_t max_examples = 100'000'000;
constexpr std::int64_t word = 4;

std::uint32_t big_endian(std::span<const std::uint8_t, 4> bytes) {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 |
         std::uint32_t{bytes[2]} << 8 | bytes[3];
}

std::uint32_t read_word(InputFile& file) {
  std::vector<std::uint8_t> bytes;
  file.append(bytes, word, "its header");
  return big_endian(std::span(bytes).first<4>());
}

std::string describe(std::uint32_t magic) {
  if (magic == labels_magic) return "labels (magic 0x00000801)";
  if (magic == images_magic) return "images (magic 0x00000803)";
  return fmt::format("something else (magic 0x{:08x})", magic);
}

// Checks the magic number and returns the number of examples.
std::int64_t read_start(InputFile& file, std::uint32_t magic) {
  const std::uint32_t found = read_word(file);
  if (found != magic) {
    file.fail(0, fmt::format("the file holds {}", describe(found)), describe(magic));
  }
  const std::int64_t count = read_word(file);
  if (count < 1 || count > max_examples) {
    file.fail(word, fmt::format("the header promises {} examples", count),
              fmt::format("1 to {}", max_examples));
  }
  return count;
}

void read_side(InputFile& file, std::string_view name, std::int64_t expected) {
  const std::int64_t side = read_word(file);
  if (side != expected) {
    file.fail(file.position() - word, fmt::format("the images' {} is {}", name, side),
              fmt::format("{} pixels", expected));
  }
}

// Reads all data of the file and keeps the first `keep` bytes.
void read_data(InputFile& file, std::vector<std::uint8_t>& out, std::int64_t bytes,
               std::int64_t keep, std::string_view what) {
  file.append(out, bytes, what, keep);
  if (!file.at_end()) {
    file.fail(file.position(), "the file continues after the data that its header promises",
              "nothing more");
  }
}

}  // namespace

Dataset read_idx(const std::filesystem::path& images, const std::filesystem::path& labels,
                 const ImageShape& shape, std::int64_t classes, std::int64_t most) {
  Dataset dataset{shape, classes, {}, {}};
  InputFile images_file(images);
  const std::int64_t count = read_start(images_file, images_magic);
  read_side(images_file, "height", shape.height);
  read_side(images_file, "width", shape.width);

  // Labels before pixels: they are small, and show whether the images' count can be right.
  InputFile labels_file(labels);
  const std::int64_t labels_count = read_start(labels_file, labels_magic);
  const std::int64_t labels_begin = labels_file.position();
  read_data(labels_file, dataset.labels, labels_count, most, "its labels");
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    const int label = dataset.labels[static_cast<std::size_t>(i)];
    if (label >= classes) {
      labels_file.fail(labels_begin + i, fmt::format("label {} of example {}", label, i),
                       fmt::format("0 to {}", classes - 1));
    }
  }
  if (labels_count != count) {
    images_file.fail(word, fmt::format("the header promises {} examples", count),
                     fmt::format("{}, as many as {} has labels", labels_count, labels.string()));
  }
  read_data(images_file, dataset.pixels, count * shape.size(), most * shape.size(), "its images");
  return dataset;
}

}  // namespace preheat
