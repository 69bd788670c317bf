#include "data/dataset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <system_error>

#include "config/error.h"
#include "data/cifar10.h"
#include "data/idx.h"
#include "data/synthetic.h"

namespace preheat {
namespace {

namespace fs = std::filesystem;

bool is_cifar10(DatasetName name) {
  return name == DatasetName::cifar10;
}

// Accepted names of a file, preferred first. `stem` is for example train-images-idx3-ubyte; some
// mirrors write train-images.idx3-ubyte.
std::vector<std::string> idx_spellings(const std::string& stem) {
  std::string dotted = stem;
  dotted[dotted.find("-idx")] = '.';
  return {stem, dotted, stem + ".gz", dotted + ".gz"};
}

// The first of these files in the folder. A subfolder of that name, as some unpackers create, is
// returned only if there is no such file, so that the error names it.
std::optional<fs::path> find_file(const fs::path& folder,
                                  const std::vector<std::string>& spellings) {
  std::optional<fs::path> found;
  for (const std::string& spelling : spellings) {
    std::error_code ignored;
    const fs::path path = folder / spelling;
    const fs::file_status status = fs::status(path, ignored);
    if (!fs::exists(status)) continue;
    if (!fs::is_directory(status)) return path;
    if (!found) found = path;
  }
  return found;
}

fs::path need_file(const fs::path& folder, const std::vector<std::string>& spellings) {
  const std::optional<fs::path> found = find_file(folder, spellings);
  if (!found) {
    throw Error(fmt::format("{}: is not complete; {} is missing", folder.string(),
                            fmt::join(spellings, " or ")));
  }
  return *found;
}

std::vector<std::string> first_file_spellings(DatasetName name) {
  return is_cifar10(name) ? std::vector<std::string>{"data_batch_1.bin"}
                          : idx_spellings("train-images-idx3-ubyte");
}

// The place itself or, for CIFAR-10, the subfolder that its archive unpacks to.
std::optional<fs::path> folder_with_files(const fs::path& place, DatasetName name) {
  std::vector<fs::path> folders{place};
  if (is_cifar10(name)) folders.push_back(place / "cifar-10-batches-bin");
  for (const fs::path& folder : folders) {
    if (find_file(folder, first_file_spellings(name))) return folder;
  }
  return std::nullopt;
}

std::vector<fs::path> places(const DataConfig& config) {
  if (config.dir) return {*config.dir};
  const std::string name(to_string(config.dataset));
  std::vector<fs::path> places{fs::path("data") / name};
  if (const char* variable = std::getenv("PREHEAT_DATA"); variable && *variable != '\0') {
    places.push_back(fs::path(variable) / name);
    places.emplace_back(variable);
  }
  places.push_back(fs::path("/usr/share/datasets") / name);
  return places;
}

std::string how_to_get(const DataConfig& config) {
  const fs::path folder = config.dir ? fs::path(*config.dir)
                                     : fs::path("data") / std::string(to_string(config.dataset));
  std::string hint;
  if (config.dataset == DatasetName::fashion_mnist && !config.dir) {
    hint = "`apt install dataset-fashion-mnist`, or ";
  }
  hint += is_cifar10(config.dataset)
              ? "put data_batch_1.bin to data_batch_5.bin and test_batch.bin"
              : "put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
                "t10k-labels-idx1-ubyte (plain or .gz)";
  return fmt::format("{} into {}", hint, folder.string());
}

// The examples of the training set that a run uses, for training and validation.
std::int64_t used_examples(const DataConfig& config) {
  const std::int64_t all = facts(config.dataset).train_size;
  return config.train_limit ? std::min(*config.train_limit, all) : all;
}

// `where` is that of data.validation.
std::int64_t train_examples(const DataConfig& config, const Where& where) {
  const std::int64_t used = used_examples(config);
  const std::int64_t held_out = config.validation.value_or(0);
  if (held_out >= used) {
    throw ConfigError(where,
                      fmt::format("holding out {} of {} training examples leaves none to train on",
                                  held_out, used),
                      fmt::format("at most {}", used - 1));
  }
  return used - held_out;
}

// How many examples there are; those beyond the known size are not counted.
std::string count_text(std::int64_t size, std::int64_t known) {
  return size > known ? fmt::format("more than {}", known) : std::to_string(size);
}

}  // namespace

const DatasetFacts& facts(DatasetName name) {
  static const DatasetFacts fashion_mnist{{28, 28, 1}, 10, 60000, 10000, {{0.2860}, {0.3530}}};
  static const DatasetFacts mnist{{28, 28, 1}, 10, 60000, 10000, {{0.1307}, {0.3081}}};
  static const DatasetFacts cifar10{
      {32, 32, 3}, 10, 50000, 10000, {{0.4914, 0.4822, 0.4465}, {0.2470, 0.2435, 0.2616}}};
  static const DatasetFacts synthetic{synthetic_shape,
                                      synthetic_classes,
                                      synthetic_train_size,
                                      synthetic_test_size,
                                      {{0.5038}, {0.2371}}};
  switch (name) {
    case DatasetName::fashion_mnist:
      return fashion_mnist;
    case DatasetName::mnist:
      return mnist;
    case DatasetName::cifar10:
      return cifar10;
    case DatasetName::synthetic:
      break;
  }
  return synthetic;
}

fs::path find_dataset(const DataConfig& config) {
  if (config.dataset == DatasetName::synthetic) {
    throw Error("the synthetic dataset is generated; it has no folder");
  }
  std::vector<std::string> looked;
  for (const fs::path& place : places(config)) {
    if (const auto folder = folder_with_files(place, config.dataset)) return *folder;
    looked.push_back(place.string());
  }
  throw Error(fmt::format("{}: no {} in {}; {}", to_string(config.dataset),
                          first_file_spellings(config.dataset).front(), fmt::join(looked, ", "),
                          how_to_get(config)));
}

TrainTest load_dataset(const DataConfig& config) {
  // The schedule has been laid out from the known size before any file is read.
  const std::int64_t trained = train_examples(config);
  const std::int64_t used = used_examples(config);
  const DatasetFacts& known = facts(config.dataset);
  TrainTest data;
  if (config.dataset == DatasetName::synthetic) {
    data.train = generate_synthetic(0, known.train_size);
    data.test = generate_synthetic(known.train_size, known.test_size);
    data.origin = "generated";
  } else {
    const fs::path folder = find_dataset(config);
    data.origin = folder.string();
    if (is_cifar10(config.dataset)) {
      std::vector<fs::path> batches;
      for (int i = 1; i <= 5; ++i) {
        batches.push_back(need_file(folder, {fmt::format("data_batch_{}.bin", i)}));
      }
      const fs::path test = need_file(folder, {"test_batch.bin"});
      data.train = read_cifar10(batches);
      data.test = read_cifar10({&test, 1});
    } else {
      // One more than the known size shows that there are too many.
      const auto read = [&](const std::string& set, std::int64_t size) {
        return read_idx(need_file(folder, idx_spellings(set + "-images-idx3-ubyte")),
                        need_file(folder, idx_spellings(set + "-labels-idx1-ubyte")), known.shape,
                        known.classes, size + 1);
      };
      data.train = read("train", known.train_size);
      data.test = read("t10k", known.test_size);
    }
  }
  if (data.train.size() < used || (data.train.size() > used && !config.train_limit)) {
    throw Error(fmt::format(
        "{}: holds {} training images, where {} has {}; data.train_limit: {} "
        "uses the first ones",
        data.origin, count_text(data.train.size(), known.train_size), to_string(config.dataset),
        known.train_size, std::min(data.train.size(), known.train_size)));
  }
  if (data.test.size() != known.test_size) {
    throw Error(fmt::format(
        "{}: holds {} test images, where {} has {}; put the whole test set there", data.origin,
        count_text(data.test.size(), known.test_size), to_string(config.dataset), known.test_size));
  }
  keep_first(data.train, used);
  data.validation = take_last(data.train, used - trained);
  return data;
}

void keep_first(Dataset& dataset, std::int64_t count) {
  dataset.labels.resize(static_cast<std::size_t>(count));
  dataset.pixels.resize(static_cast<std::size_t>(count * dataset.shape.size()));
}

Dataset take_last(Dataset& dataset, std::int64_t count) {
  const std::int64_t kept = dataset.size() - count;
  Dataset last{dataset.shape, dataset.classes, {}, {}};
  last.pixels.assign(dataset.pixels.begin() + kept * dataset.shape.size(), dataset.pixels.end());
  last.labels.assign(dataset.labels.begin() + kept, dataset.labels.end());
  keep_first(dataset, kept);
  return last;
}

Normalize normalization(const RunConfig& config) {
  const DatasetFacts& known = facts(config.data.dataset);
  if (!config.data.normalize) return known.normalize;
  const Normalize& given = *config.data.normalize;
  const auto channels = static_cast<std::size_t>(known.shape.channels);
  if (given.mean.size() != channels || given.std.size() != channels) {
    throw ConfigError(
        config.where("data.normalize"),
        fmt::format("has {} mean and {} std values", given.mean.size(), given.std.size()),
        fmt::format("{} of each, one per channel of {}", channels, to_string(config.data.dataset)));
  }
  return given;
}

std::vector<float> normalization_table(const Normalize& normalize) {
  std::vector<float> table(256 * normalize.mean.size());
  for (std::size_t c = 0; c < normalize.mean.size(); ++c) {
    for (int pixel = 0; pixel < 256; ++pixel) {
      table[c * 256 + pixel] =
          static_cast<float>((pixel / 255.0 - normalize.mean[c]) / normalize.std[c]);
    }
  }
  return table;
}

std::int64_t train_examples(const DataConfig& config) {
  return train_examples(config, {"", 0, 0, "data.validation"});
}

std::int64_t steps_per_epoch(const RunConfig& config) {
  const std::int64_t examples = train_examples(config.data, config.where("data.validation"));
  if (config.data.batch_size > examples) {
    throw ConfigError(
        config.where("data.batch_size"),
        fmt::format("a batch of {} is more than the {} training examples{}", config.data.batch_size,
                    examples, config.data.validation ? " that data.validation leaves" : ""),
        fmt::format("at most {}", examples));
  }
  return examples / config.data.batch_size;
}

}  // namespace preheat
