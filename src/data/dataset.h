// Images and labels in memory: 8-bit pixels in NHWC, not normalised.
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

/// What is known about a dataset without reading its files.
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
  Dataset validation;  // empty without data.validation
  Dataset test;
  std::string origin;  // the source folder, or "generated"
};

/// The folder that holds the dataset's files: data.dir if given, otherwise the first that has them
/// of data/<name>, $PREHEAT_DATA/<name>, $PREHEAT_DATA and /usr/share/datasets/<name>. In each,
/// CIFAR-10 may also be in the subfolder cifar-10-batches-bin. Throws Error naming every place it
/// looked and how to get the files, and for synthetic, which has none.
std::filesystem::path find_dataset(const DataConfig& config);

/// Reads (or, for synthetic, generates) training and test images. `train_limit` keeps the first
/// examples of the training set; of these, the last `validation` ones become the validation set and
/// the others, train_examples(), the training set. Memory is bounded by the known sizes, however
/// many examples the files hold. Throws Error naming the file and the byte for malformed data, and
/// if the files do not provide exactly the examples on which the schedule is based, or the whole
/// test set. Throws ConfigError as train_examples() does.
TrainTest load_dataset(const DataConfig& config);

/// Drops every example after the first `count`, which the dataset has.
void keep_first(Dataset& dataset, std::int64_t count);

/// Removes the last `count` examples, which the dataset has, and returns them in their order.
Dataset take_last(Dataset& dataset, std::int64_t count);

/// Mean and std for normalising pixels: the configured ones or the dataset's own. Throws
/// ConfigError at data.normalize if there is not one of each per channel.
Normalize normalization(const RunConfig& config);

/// A pixel's normalised value by channel and byte: [channels, 256].
std::vector<float> normalization_table(const Normalize& normalize);

/// The number of examples a run trains on: the dataset's size, or train_limit if smaller, less
/// those of the validation set. Throws ConfigError at data.validation if none are left; it does not
/// know the place in a file, which steps_per_epoch() names.
std::int64_t train_examples(const DataConfig& config);

/// train_examples / batch_size; a last, short batch is dropped. Throws ConfigError at
/// data.validation if it leaves no examples, and at data.batch_size if there are fewer than one
/// batch.
std::int64_t steps_per_epoch(const RunConfig& config);

}  // namespace preheat
