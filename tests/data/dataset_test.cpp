#include "data/dataset.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <span>
#include <utility>

#include "config/error.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

namespace fs = std::filesystem;

DataConfig data_config(DatasetName name) {
  DataConfig config;
  config.dataset = name;
  return config;
}

template <typename Exception, typename Call>
std::string message(const Call& call) {
  try {
    call();
  } catch (const Exception& e) {
    return e.what();
  }
  return "no error";
}

void expect_stated_normalization(const Dataset& train, DatasetName name) {
  const Normalize& stated = facts(name).normalize;
  const auto channels = static_cast<std::size_t>(train.shape.channels);
  ASSERT_EQ(stated.mean.size(), channels);
  ASSERT_EQ(stated.std.size(), channels);
  for (std::size_t c = 0; c < channels; ++c) {
    double sum = 0;
    double squares = 0;
    for (std::size_t i = c; i < train.pixels.size(); i += channels) {
      const double value = train.pixels[i] / 255.0;
      sum += value;
      squares += value * value;
    }
    const double n = static_cast<double>(train.pixels.size() / channels);
    EXPECT_NEAR(stated.mean[c], sum / n, 0.00005001);
    EXPECT_NEAR(stated.std[c], std::sqrt(squares / n - sum / n * sum / n), 0.00005001);
  }
}

TEST(DatasetFacts, SyntheticDataAreWhatTheySay) {
  const TrainTest data = load_dataset(data_config(DatasetName::synthetic));
  const DatasetFacts& known = facts(DatasetName::synthetic);
  EXPECT_EQ(data.origin, "generated");
  for (const Dataset* set : {&data.train, &data.test}) {
    EXPECT_EQ(set->shape, known.shape);
    EXPECT_EQ(set->classes, known.classes);
    EXPECT_EQ(static_cast<std::int64_t>(set->pixels.size()), set->size() * known.shape.size());
  }
  EXPECT_EQ(data.train.size(), known.train_size);
  EXPECT_EQ(data.test.size(), known.test_size);
  expect_stated_normalization(data.train, DatasetName::synthetic);
}

TEST(DatasetFacts, FashionMnistIsWhatItSays) {
  DataConfig config = data_config(DatasetName::fashion_mnist);
  config.dir = "/usr/share/datasets/fashion-mnist";
  if (!fs::exists(*config.dir)) {
    GTEST_SKIP() << "no Fashion-MNIST here; `apt install dataset-fashion-mnist`";
  }
  const TrainTest data = load_dataset(config);
  const DatasetFacts& known = facts(DatasetName::fashion_mnist);
  EXPECT_EQ(data.train.size(), known.train_size);
  EXPECT_EQ(data.test.size(), known.test_size);
  EXPECT_EQ(data.train.shape, known.shape);
  expect_stated_normalization(data.train, DatasetName::fashion_mnist);
  std::vector<int> counts(10);
  for (const std::uint8_t label : data.train.labels) ++counts[label];
  EXPECT_THAT(counts, testing::Each(6000));
  EXPECT_EQ(data.train.labels[0], 9);  // an ankle boot
  // The order of the files is mixed: the last examples are a fair sample of the classes.
  Dataset train = data.train;
  std::vector<int> held_out(10);
  for (const std::uint8_t label : take_last(train, 5000).labels) ++held_out[label];
  EXPECT_THAT(held_out, testing::Each(AllOf(testing::Ge(450), testing::Le(550))));
}

// Works in a temporary folder without PREHEAT_DATA, and restores both afterwards.
class FindDataset : public testing::Test {
 protected:
  FindDataset() {
    if (const char* value = std::getenv("PREHEAT_DATA")) variable_ = value;
    unsetenv("PREHEAT_DATA");
    fs::current_path(folder.path());
  }
  ~FindDataset() override {
    fs::current_path(before_);
    unsetenv("PREHEAT_DATA");
    if (variable_) setenv("PREHEAT_DATA", variable_->c_str(), 1);
  }
  const TemporaryFolder folder;

 private:
  fs::path before_ = fs::current_path();
  std::optional<std::string> variable_;
};

TEST_F(FindDataset, LooksInOrder) {
  const DataConfig config = data_config(DatasetName::mnist);
  setenv("PREHEAT_DATA", (folder.path() / "all").c_str(), 1);
  folder.write("all/train-images-idx3-ubyte.gz", {});
  EXPECT_EQ(find_dataset(config), folder.path() / "all");
  folder.write("all/mnist/train-images.idx3-ubyte", {});
  EXPECT_EQ(find_dataset(config), folder.path() / "all/mnist");
  fs::create_directories("data/mnist");  // without the file it does not count
  EXPECT_EQ(find_dataset(config), folder.path() / "all/mnist");
  folder.write("data/mnist/train-images-idx3-ubyte", {});
  EXPECT_EQ(find_dataset(config), fs::path("data/mnist"));
  DataConfig given = config;
  given.dir = (folder.path() / "all").string();
  EXPECT_EQ(find_dataset(given), folder.path() / "all");
}

TEST_F(FindDataset, FindsTheFolderOfCifar10sArchive) {
  DataConfig config = data_config(DatasetName::cifar10);
  folder.write("here/cifar-10-batches-bin/data_batch_1.bin", {});
  config.dir = "here";
  EXPECT_EQ(find_dataset(config), fs::path("here/cifar-10-batches-bin"));
}

TEST_F(FindDataset, SaysWhereItLookedAndWhatToDo) {
  for (const char* name : {"cifar10", "mnist"}) {
    const fs::path place = fs::path("/usr/share/datasets") / name;
    if (fs::exists(place)) GTEST_SKIP() << place << " is there, so nothing is missing";
  }
  setenv("PREHEAT_DATA", "elsewhere", 1);
  EXPECT_EQ(message<Error>([] { find_dataset(data_config(DatasetName::cifar10)); }),
            "cifar10: no data_batch_1.bin in data/cifar10, elsewhere/cifar10, elsewhere, "
            "/usr/share/datasets/cifar10; put data_batch_1.bin to data_batch_5.bin and "
            "test_batch.bin into data/cifar10");
  DataConfig given = data_config(DatasetName::fashion_mnist);
  given.dir = "nowhere";
  EXPECT_EQ(message<Error>([&] { find_dataset(given); }),
            "fashion-mnist: no train-images-idx3-ubyte in nowhere; put train-images-idx3-ubyte, "
            "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (plain or "
            ".gz) into nowhere");
  EXPECT_THAT(message<Error>([] { find_dataset(data_config(DatasetName::mnist)); }),
              Not(HasSubstr("apt")));
  if (!fs::exists("/usr/share/datasets/fashion-mnist")) {
    EXPECT_THAT(message<Error>([] { find_dataset(data_config(DatasetName::fashion_mnist)); }),
                HasSubstr("; `apt install dataset-fashion-mnist`, or put "));
  }
}

// Images (magic 3) or labels (magic 1) of MNIST's shape, all bytes `value`.
Bytes idx_of(std::uint8_t magic, std::uint32_t count, std::uint8_t value) {
  Bytes header{0, 0, 8, magic, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 28};
  for (std::uint32_t i = 0; i < 4; ++i) {
    header[4 + i] = static_cast<std::uint8_t>(count >> (24 - 8 * i));
  }
  header.resize(magic == 3 ? 16 : 8);
  Bytes bytes(header.size() + std::size_t{count} * (magic == 3 ? 784 : 1), value);
  std::ranges::copy(header, bytes.begin());
  return bytes;
}

// CIFAR-10 with one image per training batch and a whole test set.
class LoadDataset : public FindDataset {
 protected:
  LoadDataset() {
    config.dir = ".";
    for (std::uint8_t i = 1; i <= 5; ++i) {
      folder.write("data_batch_" + std::to_string(i) + ".bin", Bytes(3073, i));
    }
    folder.write("test_batch.bin", Bytes(10'000 * 3073, 7));
  }
  DataConfig config = data_config(DatasetName::cifar10);
};

TEST_F(LoadDataset, TakesASubsetOnlyWhenAsked) {
  EXPECT_EQ(message<Error>([&] { load_dataset(config); }),
            ".: holds 5 training images, where cifar10 has 50000; data.train_limit: 5 uses the "
            "first ones");
  config.train_limit = 6;
  EXPECT_THAT(message<Error>([&] { load_dataset(config); }), HasSubstr("data.train_limit: 5"));
  config.train_limit = 3;
  const TrainTest data = load_dataset(config);
  EXPECT_EQ(data.origin, ".");
  EXPECT_EQ(data.train.labels, (Bytes{1, 2, 3}));
  EXPECT_EQ(data.train.pixels.size(), 3U * 3072);
  EXPECT_EQ(data.test.labels, Bytes(10'000, 7));
}

TEST_F(LoadDataset, NeedsTheWholeTestSet) {
  config.train_limit = 5;
  folder.write("test_batch.bin", Bytes(2 * 3073, 7));
  EXPECT_EQ(message<Error>([&] { load_dataset(config); }),
            ".: holds 2 test images, where cifar10 has 10000; put the whole test set there");
}

TEST_F(LoadDataset, HoldsOutTheLastOfWhatTheLimitLeaves) {
  config.train_limit = 4;
  config.validation = 3;
  const TrainTest data = load_dataset(config);
  EXPECT_EQ(data.train.labels, Bytes{1});
  EXPECT_EQ(data.train.pixels, Bytes(3072, 1));
  EXPECT_EQ(data.validation.labels, (Bytes{2, 3, 4}));  // the fifth is used for nothing
  EXPECT_EQ(data.validation.shape, data.train.shape);
  EXPECT_EQ(data.validation.classes, 10);
  ASSERT_EQ(data.validation.pixels.size(), 3U * 3072);
  for (std::size_t i = 0; i < data.validation.pixels.size(); ++i) {
    ASSERT_EQ(data.validation.pixels[i], 2 + i / 3072) << i;
  }
  EXPECT_EQ(data.test.labels, Bytes(10'000, 7));
  config.train_limit.reset();  // all of the dataset's, which the files do not hold
  EXPECT_THAT(message<Error>([&] { load_dataset(config); }), HasSubstr("holds 5 training images"));
}

TEST_F(LoadDataset, NamesAMissingFile) {
  fs::remove("data_batch_4.bin");
  EXPECT_EQ(message<Error>([&] { load_dataset(config); }),
            ".: is not complete; data_batch_4.bin is missing");
}

TEST_F(LoadDataset, PrefersPlainFilesAndOverlooksFoldersOfTheirName) {
  config = data_config(DatasetName::mnist);
  config.dir = ".";
  config.train_limit = 1;
  const auto idx = [](std::uint8_t magic, std::uint8_t value) { return idx_of(magic, 1, value); };
  fs::create_directory("train-images-idx3-ubyte");
  EXPECT_EQ(message<Error>([&] { load_dataset(config); }),
            ".: is not complete; train-labels-idx1-ubyte or train-labels.idx1-ubyte or "
            "train-labels-idx1-ubyte.gz or train-labels.idx1-ubyte.gz is missing");
  folder.write("train-labels.idx1-ubyte", idx(1, 2));
  folder.write("t10k-images-idx3-ubyte", idx_of(3, 10'000, 3));
  folder.write_gzip("t10k-labels-idx1-ubyte.gz", idx_of(1, 10'000, 4));
  EXPECT_THAT(message<Error>([&] { load_dataset(config); }), HasSubstr("is a folder"));
  folder.write_gzip("train-images-idx3-ubyte.gz", idx(3, 9));
  EXPECT_EQ(load_dataset(config).train.pixels, Bytes(784, 9));
  folder.write("train-images.idx3-ubyte", idx(3, 1));
  const TrainTest data = load_dataset(config);
  EXPECT_EQ(data.train.pixels, Bytes(784, 1));
  EXPECT_EQ(data.train.labels, Bytes{2});
  EXPECT_EQ(data.test.pixels, Bytes(std::size_t{784} * 10'000, 3));
  EXPECT_EQ(data.test.labels, Bytes(10'000, 4));
}

// One image more than MNIST has: an epoch would silently leave it out.
TEST_F(FindDataset, MoreThanTheKnownSizeIsTakenOnlyWhenAsked) {
  folder.write("train-images-idx3-ubyte", idx_of(3, 60001, 0));
  folder.write("train-labels-idx1-ubyte", idx_of(1, 60001, 0));
  folder.write("t10k-images-idx3-ubyte", idx_of(3, 10'000, 0));
  folder.write("t10k-labels-idx1-ubyte", idx_of(1, 10'000, 0));
  DataConfig config = data_config(DatasetName::mnist);
  config.dir = ".";
  EXPECT_EQ(message<Error>([&] { load_dataset(config); }),
            ".: holds more than 60000 training images, where mnist has 60000; data.train_limit: "
            "60000 uses the first ones");
  for (const std::int64_t limit : {60'000, 70'000}) {
    config.train_limit = limit;
    EXPECT_EQ(load_dataset(config).train.size(), 60'000);
  }
}

TEST_F(FindDataset, ATestSetOfAnotherSizeIsNoTestSet) {
  DataConfig config = data_config(DatasetName::mnist);
  config.dir = ".";
  config.train_limit = 1;
  folder.write("train-images-idx3-ubyte", idx_of(3, 1, 0));
  folder.write("train-labels-idx1-ubyte", idx_of(1, 1, 0));
  for (const auto& [size, text] : {std::pair{1u, "1"}, std::pair{10'001u, "more than 10000"}}) {
    folder.write("t10k-images-idx3-ubyte", idx_of(3, size, 0));
    folder.write("t10k-labels-idx1-ubyte", idx_of(1, size, 0));
    EXPECT_EQ(message<Error>([&] { load_dataset(config); }),
              std::string(".: holds ") + text +
                  " test images, where mnist has 10000; put the whole test set there");
  }
}

TEST(TrainExamples, AreLimitedByTheLimitAndTheDataset) {
  DataConfig config = data_config(DatasetName::synthetic);
  EXPECT_EQ(train_examples(config), 4096);
  config.train_limit = 100;
  EXPECT_EQ(train_examples(config), 100);
  EXPECT_EQ(load_dataset(config).train.size(), 100);
  EXPECT_EQ(load_dataset(config).test.size(), 1024);
  config.train_limit = 1'000'000'000;
  EXPECT_EQ(train_examples(config), 4096);
  EXPECT_EQ(load_dataset(config).train.size(), 4096);
}

TEST(TakeLast, LeavesEachExampleInOnePart) {
  const Dataset all = load_dataset(data_config(DatasetName::synthetic)).train;
  for (const auto& [limit, held_out] :
       {std::pair<std::int64_t, std::int64_t>{4096, 1}, {4096, 596}, {100, 37}, {4097, 4095}}) {
    SCOPED_TRACE(held_out);
    DataConfig config = data_config(DatasetName::synthetic);
    config.train_limit = limit;
    config.validation = held_out;
    const std::int64_t used = std::min<std::int64_t>(limit, 4096);
    EXPECT_EQ(train_examples(config), used - held_out);
    const TrainTest data = load_dataset(config);
    EXPECT_EQ(data.train.size(), used - held_out);
    EXPECT_EQ(data.validation.size(), held_out);
    EXPECT_EQ(data.test.size(), 1024);
    Dataset joined = data.train;
    joined.pixels.insert(joined.pixels.end(), data.validation.pixels.begin(),
                         data.validation.pixels.end());
    joined.labels.insert(joined.labels.end(), data.validation.labels.begin(),
                         data.validation.labels.end());
    ASSERT_EQ(joined.size(), used);
    ASSERT_EQ(joined.pixels.size(), static_cast<std::size_t>(used * all.shape.size()));
    EXPECT_TRUE(
        std::ranges::equal(joined.pixels, std::span(all.pixels).first(joined.pixels.size())));
    EXPECT_TRUE(
        std::ranges::equal(joined.labels, std::span(all.labels).first(joined.labels.size())));
  }
}

TEST(TrainExamples, AreLeftByTheValidationSet) {
  DataConfig config = data_config(DatasetName::synthetic);
  config.train_limit = 100;
  for (const std::int64_t all_or_more : {100, 101}) {
    config.validation = all_or_more;
    const std::string expected = fmt::format(
        "data.validation: holding out {} of 100 training examples leaves none to train on; at most "
        "99",
        all_or_more);
    EXPECT_EQ(message<ConfigError>([&] { train_examples(config); }), expected);
    EXPECT_EQ(message<ConfigError>([&] { load_dataset(config); }), expected);
  }
  const RunConfig run =
      read_config(parse_document("data:\n  batch_size: 1\n  validation: 60000\n", "f.yaml"));
  EXPECT_EQ(message<ConfigError>([&] { steps_per_epoch(run); }),
            "f.yaml:3:3: data.validation: holding out 60000 of 60000 training examples leaves none "
            "to train on; at most 59999");
}

// 45000 + 5000 of CIFAR-10, as in He et al. 2016: 351 batches of 128 and 72 examples.
TEST(StepsPerEpoch, AreOfTheExamplesThatAreTrainedOn) {
  RunConfig config;
  config.data.dataset = DatasetName::cifar10;
  config.data.validation = 5000;
  EXPECT_EQ(steps_per_epoch(config), 351);
  config.data.validation = 50'000 - 128;
  EXPECT_EQ(steps_per_epoch(config), 1);
  config.data.validation = 50'000 - 127;
  EXPECT_THAT(
      message<ConfigError>([&] { steps_per_epoch(config); }),
      HasSubstr("data.batch_size: a batch of 128 is more than the 127 training examples that "
                "data.validation leaves; at most 127"));
}

TEST(StepsPerEpoch, DropsTheShortBatchAndNeedsAWholeOne) {
  RunConfig config;
  EXPECT_EQ(steps_per_epoch(config), 468);
  config.data.train_limit = 128;
  EXPECT_EQ(steps_per_epoch(config), 1);
  config.data.train_limit = 127;
  EXPECT_THAT(message<ConfigError>([&] { steps_per_epoch(config); }),
              HasSubstr("a batch of 128 is more than the 127 training examples; at most 127"));
}

TEST(Normalization, IsTheConfiguredOneOrTheDatasets) {
  RunConfig config;
  EXPECT_EQ(normalization(config).mean, std::vector<double>{0.2860});
  config.data.normalize = Normalize{{0.5}, {0.25}};
  EXPECT_EQ(normalization(config).std, std::vector<double>{0.25});
  config.data.dataset = DatasetName::cifar10;
  EXPECT_THAT(message<ConfigError>([&] { normalization(config); }),
              HasSubstr("has 1 mean and 1 std values; 3 of each, one per channel of cifar10"));
}

}  // namespace
}  // namespace preheat
