// Images and labels in memory, as the files hold them: 8-bit pixels, NHWC.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "config/config.h"

namespace preheat {

struct ImageShape {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 0;
  std::int64_t size() const { return height * width * channels; }
  bool operator==(const ImageShape&) const = default;
};

/// What is known of a dataset without its files.
struct DatasetFacts {
  ImageShape shape;
  std::int64_t classes = 0;
  std::int64_t train_size = 0;
  std::int64_t test_size = 0;
  Normalize normalize;  // mean and std of the training images, per channel, of pixels / 255
};

const DatasetFacts& facts(DatasetName name);

struct Dataset {
  ImageShape shape;
  std::int64_t classes = 0;
  std::vector<std::uint8_t> pixels;  // size() * shape.size(), NHWC
  std::vector<std::uint8_t> labels;  // size(), each < classes
  std::int64_t size() const { return static_cast<std::int64_t>(labels.size()); }
};

struct TrainTest {
  Dataset train;
  Dataset test;
  std::string origin;  // the folder it was read from, or "generated"
};

/// The folder that holds the dataset's files: data.dir, data/<name>, $PREHEAT_DATA/<name>,
/// $PREHEAT_DATA, /usr/share/datasets/<name>. Throws Error naming every place it looked, and how
/// to get the files. Not for synthetic.
std::filesystem::path find_dataset(const DataConfig& config);

/// Reads (or, for synthetic, generates) training and test images; `train_limit` cuts the training
/// set to its first examples. Throws Error naming the file and the byte for anything malformed, and
/// where the files cannot give exactly train_examples(), which schedules are laid out from.
TrainTest load_dataset(const DataConfig& config);

/// Mean and std that pixels are normalised with: the configured ones or the dataset's own. Throws
/// ConfigError at data.normalize where their number is not the number of channels.
Normalize normalization(const RunConfig& config);

/// How many training examples a run uses: the dataset's, or train_limit if that is less.
std::int64_t train_examples(const DataConfig& config);

/// train_examples / batch_size, the short last batch dropped. Throws ConfigError at data.batch_size
/// where not even one batch fits.
std::int64_t steps_per_epoch(const RunConfig& config);

}  // namespace preheat
