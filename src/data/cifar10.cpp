#include "data/cifar10.h"

#include <fmt/format.h>

#include <vector>

#include "data/input_file.h"

namespace preheat {
namespace {

constexpr std::size_t channels = 3;
constexpr std::size_t plane = 32 * 32;
constexpr std::int64_t record_bytes = 1 + channels * plane;
constexpr std::int64_t classes = 10;
constexpr std::int64_t max_records = 10'000;

void read_batch(const std::filesystem::path& path, Dataset& dataset) {
  InputFile file(path);
  std::vector<std::uint8_t> record;
  for (std::int64_t i = 0; i == 0 || !file.at_end(); ++i) {
    const std::int64_t begin = file.position();
    if (i == max_records) {
      file.fail(begin, fmt::format("the file continues after {} records", i), "nothing more");
    }
    record.clear();
    file.append(record, record_bytes, fmt::format("record {} of {} bytes each", i, record_bytes));
    const int label = record[0];
    if (label >= classes) {
      file.fail(begin, fmt::format("label {} of record {}", label, i),
                fmt::format("0 to {}", classes - 1));
    }
    dataset.labels.push_back(record[0]);
    for (std::size_t p = 0; p < plane; ++p) {
      for (std::size_t c = 0; c < channels; ++c) {
        dataset.pixels.push_back(record[1 + c * plane + p]);
      }
    }
  }
}

}  // namespace

Dataset read_cifar10(std::span<const std::filesystem::path> files) {
  Dataset dataset{{32, 32, channels}, classes, {}, {}};
  for (const std::filesystem::path& file : files) read_batch(file, dataset);
  return dataset;
}

}  // namespace preheat
