#include "train/run_files.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <string_view>

namespace preheat {
namespace {

// Calls `take` with the fields of every row.
template <class Take>
void read_rows(const std::filesystem::path& path, std::string_view header, const Take& take) {
  const std::string text = read_file(path);
  std::vector<std::string_view> fields;
  std::size_t columns = 0;
  std::size_t line = 1;
  std::size_t begin = 0;
  for (auto end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin), ++line) {
    const std::string_view row = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    fields.clear();
    for (std::size_t from = 0; from <= row.size();) {
      const std::size_t to = std::min(row.find(',', from), row.size());
      fields.push_back(row.substr(from, to - from));
      from = to + 1;
    }
    if (line == 1) {
      if (row != header) break;
      columns = fields.size();
      continue;
    }
    if (fields.size() != columns || !take(fields)) {
      throw Error(fmt::format("{}:{}: is damaged", path.string(), line));
    }
  }
  if (columns == 0) throw Error(path.string() + ": has lost its header");
}

bool read_number(std::string_view field, std::vector<double>& values) {
  double value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  values.push_back(value);
  return error == std::errc() && end == field.data() + field.size();
}

// The fields from `first` on, each to a column.
bool read_numbers(const std::vector<std::string_view>& row, std::size_t first,
                  std::initializer_list<std::vector<double>*> columns) {
  bool right = true;
  for (std::vector<double>* column : columns) right &= read_number(row[first++], *column);
  return right;
}

}  // namespace

Metrics read_metrics(const std::filesystem::path& path) {
  Metrics m;
  read_rows(path, metrics_header, [&](const std::vector<std::string_view>& row) {
    const std::size_t index = m.step.size();
    if (m.phases.empty() || m.phases.back().name != row[2]) {
      m.phases.push_back({std::string(row[2]), index, index});
    }
    m.phases.back().last = index;
    return read_numbers(row, 0, {&m.step, &m.epoch}) &&
           read_numbers(
               row, 3,
               {&m.lr, &m.loss, &m.accuracy, &m.grad_norm, &m.update_norm, &m.weight_norm}) &&
           std::isfinite(m.step.back()) && std::isfinite(m.lr.back());
  });
  return m;
}

Evaluations read_evaluations(const std::filesystem::path& path) {
  Evaluations e;
  read_rows(path, evaluations_header, [&](const std::vector<std::string_view>& row) {
    return read_numbers(row, 0, {&e.step, &e.epoch, &e.loss, &e.accuracy});
  });
  return e;
}

LayerRows read_layers(const std::filesystem::path& path) {
  LayerRows l;
  read_rows(path, layers_header, [&](const std::vector<std::string_view>& row) {
    l.parameter.emplace_back(row[1]);
    return read_numbers(row, 0, {&l.step}) &&
           read_numbers(row, 2,
                        {&l.weight_norm, &l.velocity_norm, &l.update_norm, &l.angle, &l.distance});
  });
  return l;
}

ActivationRows read_activations(const std::filesystem::path& path) {
  ActivationRows a;
  read_rows(path, activations_header, [&](const std::vector<std::string_view>& row) {
    a.layer.emplace_back(row[1]);
    return read_numbers(row, 0, {&a.step}) && read_numbers(row, 2, {&a.largest, &a.dead});
  });
  return a;
}

std::string problem_of(const nlohmann::json::exception& error) {
  if (const auto* parse = dynamic_cast<const nlohmann::json::parse_error*>(&error)) {
    return fmt::format("byte {} is not as JSON has it", parse->byte);
  }
  const std::string text = error.what();  // "[json.exception.out_of_range.403] key 'n' not found"
  const auto begin = text.find("] ");
  return begin == std::string::npos ? text : text.substr(begin + 2);
}

SharpnessRows read_sharpness(const std::filesystem::path& path) {
  SharpnessRows s;
  read_rows(path, sharpness_header, [&](const std::vector<std::string_view>& row) {
    return read_numbers(row, 0,
                        {&s.step, &s.lr, &s.sharpness, &s.wide, &s.residual, &s.iterations,
                         &s.gradients, &s.agrees, &s.random_direction});
  });
  return s;
}

}  // namespace preheat
