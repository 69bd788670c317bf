#include "train/checkpoint.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>

#include "config/atomic_file.h"
#include "config/error.h"
#include "train/json_file.h"

namespace preheat {
namespace {

static_assert(std::endian::native == std::endian::little, "checkpoints are little-endian");

constexpr std::string_view magic{"preheat\0", 8};
constexpr std::uint32_t version = 3;

void append_number(std::string& bytes, std::uint32_t number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}

std::uint32_t number_at(std::string_view bytes, std::size_t at) {
  std::uint32_t number = 0;
  std::memcpy(&number, bytes.data() + at, sizeof number);
  return number;
}

std::uint32_t crc_of(std::string_view bytes) {
  return static_cast<std::uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

constexpr const char* kinds[] = {"parameter", "velocity", "statistic", "direction"};

// The tensors of each kind, for a const or mutable checkpoint.
template <class C>
auto tensors_of(C& checkpoint) {
  return std::array{&checkpoint.state.parameters, &checkpoint.state.velocity,
                    &checkpoint.state.statistics, &checkpoint.direction};
}

template <class T>
std::vector<T> values_of(const nlohmann::json& list) {
  std::vector<T> values;
  for (const auto& value : list.get<std::vector<nlohmann::json>>()) {
    values.push_back(get_as<T>(value));
  }
  return values;
}

// `fail(problem)` returns the Error to throw.
template <class Fail>
void read_step(const nlohmann::json& header, StepState& step, const Fail& fail) {
  step.step = get_as<std::int64_t>(header.at("step"));
  step.first_non_finite = get_as<std::int64_t>(header.at("first_non_finite"));
  step.lr = get_as<float>(header.at("lr"));
  step.previous_lr = get_as<float>(header.at("previous_lr"));
  step.gate_opened_at = get_as<std::int64_t>(header.at("gate").at("opened_at"));
  const auto hits = values_of<std::uint32_t>(header.at("gate").at("hits"));
  if (hits.size() > std::size(step.hits)) throw fail("is damaged: its gate is too wide");
  std::copy(hits.begin(), hits.end(), step.hits);
  step.loss_scale = get_as<float>(header.at("loss_scale").at("value"));
  step.updates_at_scale = get_as<std::int32_t>(header.at("loss_scale").at("updates"));
  step.window_correct = std::accumulate(hits.begin(), hits.end(), std::int64_t{0});
}

// Reads the values at `at` and advances it past them.
template <class Fail>
void take_values(std::string_view bytes, std::size_t& at, NamedTensor& tensor, const Fail& fail) {
  const std::size_t most = (bytes.size() - at) / sizeof(float);
  bool fits = most > 0;  // without dimensions it is one value
  std::size_t size = 1;
  for (const std::int64_t n : tensor.shape) {
    fits = fits && n >= 1 && size <= most / static_cast<std::size_t>(n);
    if (fits) size *= static_cast<std::size_t>(n);
  }
  if (!fits) {
    throw fail(fmt::format("is damaged: tensor {} is larger than the file", tensor.name));
  }
  tensor.values.resize(size);
  std::memcpy(tensor.values.data(), bytes.data() + at, size * sizeof(float));
  at += size * sizeof(float);
}

}  // namespace

void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  const ReplicaState& state = checkpoint.state;
  // Trailing zeros of the gate's window are not stored.
  const StepState& step = state.step;
  const auto* const end = std::find_if(std::make_reverse_iterator(std::end(step.hits)),
                                       std::make_reverse_iterator(std::begin(step.hits)),
                                       [](std::uint32_t hits) { return hits > 0; })
                              .base();
  nlohmann::json header = {
      {"fingerprint", checkpoint.fingerprint},
      {"step", step.step},
      {"first_non_finite", step.first_non_finite},
      {"lr", step.lr},
      {"previous_lr", step.previous_lr},
      {"gate",
       {{"opened_at", step.gate_opened_at},
        {"hits", std::vector<std::uint32_t>(std::begin(step.hits), end)}}},
      {"loss_scale", {{"value", step.loss_scale}, {"updates", step.updates_at_scale}}},
      {"tensors", nlohmann::json::array()}};
  std::string values;
  for (std::size_t kind = 0; kind < std::size(kinds); ++kind) {
    for (const NamedTensor& t : *tensors_of(checkpoint)[kind]) {
      header["tensors"].push_back({{"kind", kinds[kind]}, {"name", t.name}, {"shape", t.shape}});
      values.append(reinterpret_cast<const char*>(t.values.data()),
                    t.values.size() * sizeof(float));
    }
  }
  const std::string text = header.dump();
  std::string bytes(magic);
  append_number(bytes, version);
  append_number(bytes, static_cast<std::uint32_t>(text.size()));
  bytes += text;
  bytes += values;
  append_number(bytes, crc_of(bytes));
  write_atomically(path, bytes);
}

Checkpoint read_checkpoint(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  const auto fail = [&](const std::string& problem) -> Error {
    return Error(fmt::format("{}: {}", path.string(), problem));
  };
  constexpr std::size_t prefix = 16;
  if (bytes.size() < prefix + 4 || !bytes.starts_with(magic)) {
    throw fail("is not a checkpoint of preheat");
  }
  const std::size_t end = bytes.size() - 4;
  if (const std::uint32_t v = number_at(bytes, 8); v != version) {
    throw fail(
        fmt::format("is a checkpoint of version {}; this preheat reads version {}", v, version));
  }
  if (crc_of(std::string_view(bytes).substr(0, end)) != number_at(bytes, end)) {
    throw fail("is damaged: its checksum does not match");
  }
  const std::size_t header_size = number_at(bytes, 12);
  if (header_size > end - prefix) throw fail("is damaged: its header is longer than the file");

  Checkpoint checkpoint;
  try {
    const auto header =
        parse_json<nlohmann::json>(std::string_view(bytes).substr(prefix, header_size));
    header.at("fingerprint").get_to(checkpoint.fingerprint);
    read_step(header, checkpoint.state.step, fail);
    std::size_t at = prefix + header_size;
    for (const auto& entry : header.at("tensors")) {
      NamedTensor tensor{entry.at("name"), values_of<std::int64_t>(entry.at("shape")), {}};
      take_values(std::string_view(bytes).substr(0, end), at, tensor, fail);
      const std::string name = entry.at("kind");
      const auto kind = std::ranges::find(kinds, name) - std::begin(kinds);
      if (kind == std::ssize(kinds)) {
        throw fail(fmt::format("has a tensor of unknown kind '{}'", name));
      }
      tensors_of(checkpoint)[kind]->push_back(std::move(tensor));
    }
    if (at != end) throw fail("is damaged: there are bytes after its tensors");
  } catch (const nlohmann::json::exception& e) {
    throw fail(fmt::format("is damaged: its header cannot be read ({})", problem_of(e)));
  }
  return checkpoint;
}

}  // namespace preheat
