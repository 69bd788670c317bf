#include "train/checkpoint.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "config/error.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// CRC-32 bit by bit, as in ISO 3309.
std::uint32_t crc32_of(const std::string& bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320 : 0);
  }
  return ~crc;
}

std::string little_endian(std::uint32_t number) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(number >> (8 * i) & 255);
  return bytes;
}

// A file with a correct checksum, whatever its contents.
std::string file_of(const std::string& header, const std::string& values, std::uint32_t version = 3,
                    std::int64_t header_size = -1) {
  std::string bytes("preheat\0", 8);
  bytes += little_endian(version);
  bytes += little_endian(static_cast<std::uint32_t>(
      header_size < 0 ? static_cast<std::int64_t>(header.size()) : header_size));
  bytes += header + values;
  return bytes + little_endian(crc32_of(bytes));
}

// A header with these values.
std::string header_of(const std::string& step, const std::string& lr, const std::string& tensors,
                      const std::string& hits = "[]") {
  return R"({"fingerprint":"0123abcd","step":)" + step + R"(,"first_non_finite":-1,"lr":)" + lr +
         R"(,"previous_lr":0.125,"gate":{"opened_at":-1,"hits":)" + hits +
         R"(},"loss_scale":{"value":512,"updates":9},"tensors":[)" + tensors + "]}";
}

ReplicaState some_state() {
  ReplicaState state;
  state.parameters = {{"0.conv.weight", {2, 3, 1, 1}, {1, -2, 0.5f, 1e-40f, 3e38f, -0.0f}},
                      {"0.conv.bias", {2}, {0, 7}}};
  state.velocity = {{"0.conv.weight", {2, 3, 1, 1}, {1, 2, 3, 4, 5, 6}},
                    {"0.conv.bias", {2}, {8, 9}}};
  state.statistics = {{"1.batch_norm.running_var", {1}, {0.25f}}};
  state.step.step = 12345678901;
  state.step.lr = 0.1f;
  state.step.previous_lr = 0.09f;
  state.step.gate_opened_at = 11;
  state.step.hits[0] = 3;
  state.step.hits[49] = 70000;
  state.step.window_correct = 70003;
  state.step.loss_scale = 4096;
  state.step.updates_at_scale = 1999;
  return state;
}

void expect_same_bits(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].name, b[i].name);
    EXPECT_EQ(a[i].shape, b[i].shape);
    ASSERT_EQ(a[i].values.size(), b[i].values.size());
    EXPECT_EQ(std::memcmp(a[i].values.data(), b[i].values.data(), a[i].values.size() * 4), 0);
  }
}

class CheckpointFile : public testing::Test {
 protected:
  // The error of reading the file, which must begin with its path.
  std::string error_of(const std::filesystem::path& path) {
    try {
      read_checkpoint(path);
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_THAT(message, testing::StartsWith(path.string() + ": "));
      EXPECT_EQ(message.find('\n'), std::string::npos);
      return message;
    }
    return "";
  }
  std::string error_of_bytes(const std::string& bytes) {
    put_bytes(folder_ / "damaged.ckpt", bytes);
    return error_of(folder_ / "damaged.ckpt");
  }

  TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "good.ckpt";
};

TEST_F(CheckpointFile, ComesBackBitForBit) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  ReplicaState state = some_state();
  NamedTensor tensor{"any bits", {7, 11, 13}, std::vector<float>(7 * 11 * 13)};
  for (float& value : tensor.values) {
    const auto bits = static_cast<std::uint32_t>(random());  // NaNs and subnormals among them
    std::memcpy(&value, &bits, sizeof value);
  }
  state.velocity.push_back(tensor);
  for (const float lr : {0.1f, 1e-45f, 3.4e38f, std::nextafter(1.0f, 2.0f), 0.0f}) {
    state.step.lr = lr;
    state.step.first_non_finite = lr == 0 ? 17 : -1;
    write_checkpoint(path_, {state, "89abcdef"});
    const Checkpoint read = read_checkpoint(path_);
    EXPECT_EQ(read.fingerprint, "89abcdef");
    const ReplicaState& back = read.state;
    expect_same_bits(back.parameters, state.parameters);
    expect_same_bits(back.velocity, state.velocity);
    expect_same_bits(back.statistics, state.statistics);
    EXPECT_EQ(back.step.step, state.step.step);
    EXPECT_EQ(back.step.lr, lr);
    EXPECT_EQ(back.step.first_non_finite, state.step.first_non_finite);
    EXPECT_EQ(back.step.previous_lr, 0.09f);
    EXPECT_EQ(back.step.gate_opened_at, 11);
    EXPECT_EQ(back.step.window_correct, 70003);
    EXPECT_EQ(back.step.loss_scale, 4096.0f);
    EXPECT_EQ(back.step.updates_at_scale, 1999);
    EXPECT_TRUE(std::ranges::equal(back.step.hits, state.step.hits));
  }
  EXPECT_FALSE(std::filesystem::exists(path_.string() + ".1.tmp"));
}

TEST_F(CheckpointFile, IsTheDocumentedFormat) {
  const std::string header = header_of("3", "0.25",
                                       R"({"kind": "statistic", "name": "s", "shape": [1]},
                   {"kind": "parameter", "name": "p", "shape": [2]})",
                                       "[7, 0, 9]");
  const float values[3] = {5, 6, 7};
  std::string bytes(12, '\0');
  std::memcpy(bytes.data(), values, 12);
  put_bytes(path_, file_of(header, bytes));
  const Checkpoint checkpoint = read_checkpoint(path_);
  EXPECT_EQ(checkpoint.fingerprint, "0123abcd");
  const ReplicaState& state = checkpoint.state;
  EXPECT_EQ(state.step.previous_lr, 0.125f);
  EXPECT_EQ(state.step.gate_opened_at, -1);
  EXPECT_EQ(state.step.hits[2], 9u);
  EXPECT_EQ(state.step.window_correct, 16);
  EXPECT_EQ(state.step.loss_scale, 512.0f);
  EXPECT_EQ(state.step.updates_at_scale, 9);
  EXPECT_EQ(state.step.step, 3);
  EXPECT_EQ(state.step.lr, 0.25f);
  EXPECT_EQ(state.statistics.at(0).values, std::vector<float>{5});
  EXPECT_EQ(state.parameters.at(0).values, (std::vector<float>{6, 7}));

  write_checkpoint(path_, {some_state(), "f"});
  const std::string written = bytes_of(path_);
  EXPECT_EQ(written.substr(0, 8), std::string("preheat\0", 8));
  EXPECT_EQ(written.substr(8, 4), little_endian(3));
  EXPECT_EQ(written.substr(written.size() - 4),
            little_endian(crc32_of(written.substr(0, written.size() - 4))));
}

TEST_F(CheckpointFile, AnyFlippedBitOfThePrefixIsFound) {
  write_checkpoint(path_, {some_state(), "f"});
  const std::string good = bytes_of(path_);
  for (std::size_t at = 0; at < 16; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      const std::string message = error_of_bytes(bad);
      EXPECT_THAT(message, HasSubstr(at < 8    ? "is not a checkpoint of preheat"
                                     : at < 12 ? "this preheat reads version 3"
                                               : "checksum"))
          << at << " " << bit;
    }
  }
}

TEST_F(CheckpointFile, AnyFlippedByteIsFound) {
  write_checkpoint(path_, {some_state(), "f"});
  const std::string good = bytes_of(path_);
  for (std::size_t at = 16; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
    EXPECT_THAT(error_of_bytes(bad), HasSubstr("is damaged: its checksum does not match")) << at;
  }
}

TEST_F(CheckpointFile, AnyTruncationIsFound) {
  write_checkpoint(path_, {some_state(), "f"});
  const std::string good = bytes_of(path_);
  for (std::size_t size = 0; size < good.size(); ++size) {
    // A file shorter than a prefix and a checksum is not read further.
    EXPECT_THAT(error_of_bytes(good.substr(0, size)),
                HasSubstr(size < 20 ? "is not a checkpoint of preheat" : "is damaged: "))
        << size;
  }
  EXPECT_NE(error_of_bytes(good + "x"), "");
}

TEST_F(CheckpointFile, AnotherVersionWithARightChecksum) {
  const std::string header = header_of("0", "0", "");
  EXPECT_EQ(error_of_bytes(file_of(header, "")), "");
  EXPECT_THAT(error_of_bytes(file_of(header, "", 2)),
              HasSubstr("is a checkpoint of version 2; this preheat reads version 3"));
}

TEST_F(CheckpointFile, AbsurdHeadersWithARightChecksum) {
  const auto with_tensor = [](const std::string& tensor) { return header_of("0", "0", tensor); };
  const std::string four(4, '\0');
  for (const char* shape : {"[4611686018427387904]", "[2147483648,2147483648,4]",
                            "[9223372036854775807,9223372036854775807]", "[-1]", "[0]", "[1,-1,-1]",
                            "[2]", "[65536,65536,65536,65536]"}) {
    EXPECT_THAT(
        error_of_bytes(file_of(
            with_tensor(fmt::format(R"({{"kind":"parameter","name":"big","shape":{}}})", shape)),
            four)),
        AllOf(HasSubstr("is damaged"), HasSubstr("tensor big is larger than the file")))
        << shape;
  }
  for (const char* tensor :
       {R"({"kind":"parameter","name":"p","shape":"x"})", R"({"kind":"parameter","name":"p"})",
        R"({"kind":"parameter","name":null,"shape":[1]})", R"({"name":"p","shape":[1]})", "7",
        "null", R"({"kind":"parameter","name":"p","shape":[[1]]})",
        R"({"kind":"parameter","name":"p","shape":[18446744073709551615]})",
        R"({"kind":"parameter","name":"p","shape":[1.0]})",
        R"({"kind":"parameter","name":"p","shape":[true]})"}) {
    EXPECT_THAT(error_of_bytes(file_of(with_tensor(tensor), four)), HasSubstr("is damaged"))
        << tensor;
  }
  EXPECT_THAT(
      error_of_bytes(file_of(with_tensor(R"({"kind":"spy","name":"p","shape":[1]})"), four)),
      HasSubstr("unknown kind 'spy'"));
  EXPECT_THAT(error_of_bytes(file_of(with_tensor(""), four)),
              HasSubstr("there are bytes after its tensors"));
  for (const std::string& header :
       {std::string(),
        std::string("{"),
        std::string("[]"),
        std::string("null"),
        std::string(R"({"step":0})"),
        header_of(R"("x")", "0", ""),
        header_of("0", "null", ""),
        header_of("1e300", "0", ""),
        header_of("1.5", "0", ""),
        header_of("true", "0", ""),
        header_of("18446744073709551615", "0", ""),
        header_of("0", "true", ""),
        header_of("0", "0", "", "[-1]"),
        header_of("0", "0", "", "[4294967296]"),
        header_of("0", "0", "", "[1e10]"),
        header_of("0", "0", "", "[true]"),
        header_of("0", "0", "", std::string(200'000, '[') + std::string(200'000, ']')),
        header_of("0", "0", "", "{}"),
        header_of("0", "0", "", R"(["x"])"),
        std::string("\xff\xfe\0", 3),
        std::string(200'000, '[')}) {
    EXPECT_THAT(error_of_bytes(file_of(header, "")), HasSubstr("is damaged"))
        << header.substr(0, 60);
  }
  std::string wide = "[1";
  for (int i = 0; i < max_gate_window; ++i) wide += ",1";
  EXPECT_THAT(error_of_bytes(file_of(header_of("0", "0", "", wide + "]"), "")),
              HasSubstr("is damaged: its gate is too wide"));
  EXPECT_THAT(error_of_bytes(file_of("{}", "", 3, 0xffffffff)),
              HasSubstr("its header is longer than the file"));
  EXPECT_THAT(error_of_bytes(file_of("{}", "", 3, 7)),
              HasSubstr("its header is longer than the file"));
}

// A tensor without dimensions is one value, which has to be in the file too.
TEST_F(CheckpointFile, TensorsWithoutDimensionsAreNotReadBeyondTheEnd) {
  const std::string tensor = R"({"kind":"parameter","name":"scalar","shape":[]})";
  std::string tensors = tensor;
  for (int count = 1; count <= 5; ++count) {
    const std::string header = header_of("0", "0", tensors);
    for (int values = 0; values < count; ++values) {
      EXPECT_THAT(error_of_bytes(file_of(header, std::string(4 * values, '\0'))),
                  HasSubstr("is damaged: tensor scalar is larger than the file"))
          << count << " " << values;
    }
    tensors += "," + tensor;
  }
  put_bytes(path_, file_of(header_of("0", "0", tensor), std::string("\0\0\x20\x41", 4)));
  EXPECT_EQ(read_checkpoint(path_).state.parameters.at(0).values, std::vector<float>{10});
}

TEST_F(CheckpointFile, WhatIsNoFileAtAll) {
  EXPECT_THAT(error_of(folder_ / "missing.ckpt"), HasSubstr("No such file"));
  EXPECT_THAT(error_of(folder_.path()), HasSubstr("directory"));
  EXPECT_THAT(error_of_bytes(""), HasSubstr("is not a checkpoint of preheat"));
  EXPECT_THAT(error_of_bytes("a text that is long enough to be one, but is none"),
              HasSubstr("is not a checkpoint of preheat"));
}

TEST_F(CheckpointFile, IsNotWrittenWhereItCannotBe) {
  try {
    write_checkpoint(folder_ / "no/such.ckpt", {some_state(), "f"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("such.ckpt: cannot be written"), HasSubstr("No such")));
  }
}

}  // namespace
}  // namespace preheat
