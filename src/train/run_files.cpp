#include "train/run_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "config/atomic_file.h"
#include "config/error.h"
#include "config/split.h"

namespace preheat {

RowReader::RowReader(std::filesystem::path path, std::initializer_list<std::string_view> headers)
    : path_(std::move(path)), text_(read_file(path_)) {
  const auto* const header = std::ranges::find_if(
      headers, [&](std::string_view one) { return text_.starts_with(fmt::format("{}\n", one)); });
  if (header == headers.end()) {
    throw Error(path_.string() + ": has no header, or that of another version of preheat");
  }
  for (const std::string_view column : split(*header, ',')) {
    is_name_.push_back(column == "phase" || column == "parameter" || column == "layer");
  }
  begin_ = end_ = header->size() + 1;
}

bool RowReader::next() {
  begin_ = end_;
  const auto newline = text_.find('\n', begin_);
  if (newline == std::string::npos) return false;
  ++line_;
  end_ = newline + 1;
  fields_ = split(std::string_view(text_).substr(begin_, newline - begin_), ',');
  if (fields_.size() != is_name_.size()) fail_row();
  numbers_.assign(fields_.size(), 0);
  for (std::size_t i = 0; i < fields_.size(); ++i) {
    if (is_name_[i]) continue;
    const char* end = fields_[i].data() + fields_[i].size();
    const auto [stop, error] = std::from_chars(fields_[i].data(), end, numbers_[i]);
    if (error != std::errc() || stop != end) fail_row();
  }
  return true;
}

void RowReader::append_to(std::initializer_list<std::vector<double>*> columns) const {
  for (std::size_t i = 0; i < std::min(columns.size(), is_name_.size()); ++i) {
    if (!is_name_[i]) columns.begin()[i]->push_back(numbers_[i]);
  }
}

void RowReader::fail_row() const {
  throw Error(fmt::format("{}:{}: is damaged", path_.string(), line_));
}

Metrics read_metrics(const std::filesystem::path& path) {
  constexpr std::size_t phase = column_of(metrics_header, "phase");
  Metrics m;
  for (RowReader rows(path, {metrics_header}); rows.next();) {
    const std::size_t index = m.step.size();
    if (m.phases.empty() || m.phases.back().name != rows.name(phase)) {
      m.phases.push_back({std::string(rows.name(phase)), index, index});
    }
    m.phases.back().last = index;
    rows.append_to({&m.step, &m.epoch, nullptr, &m.lr, &m.loss, &m.accuracy, &m.grad_norm,
                    &m.update_norm, &m.weight_norm});
    if (!std::isfinite(m.step.back()) || !std::isfinite(m.lr.back())) rows.fail_row();
  }
  return m;
}

Evaluations read_evaluations(const std::filesystem::path& path) {
  Evaluations e;
  for (RowReader rows(path, {evaluations_header, validated_evaluations_header}); rows.next();) {
    rows.append_to(
        {&e.step, &e.epoch, &e.loss, &e.accuracy, &e.validation_loss, &e.validation_accuracy});
  }
  return e;
}

LayerRows read_layers(const std::filesystem::path& path) {
  LayerRows l;
  for (RowReader rows(path, {layers_header, rankless_layers_header}); rows.next();) {
    l.parameter.emplace_back(rows.name(column_of(layers_header, "parameter")));
    rows.append_to({&l.step, nullptr, &l.weight_norm, &l.velocity_norm, &l.update_norm, &l.angle,
                    &l.distance, &l.stable_rank});
  }
  return l;
}

ActivationRows read_activations(const std::filesystem::path& path) {
  ActivationRows a;
  for (RowReader rows(path, {activations_header, changeless_activations_header}); rows.next();) {
    a.layer.emplace_back(rows.name(column_of(activations_header, "layer")));
    rows.append_to({&a.step, nullptr, &a.largest, &a.dead, &a.change});
  }
  return a;
}

SharpnessRows read_sharpness(const std::filesystem::path& path) {
  SharpnessRows s;
  for (RowReader rows(path, {sharpness_header}); rows.next();) {
    rows.append_to({&s.step, &s.lr, &s.sharpness, &s.wide, &s.residual, &s.iterations, &s.gradients,
                    &s.agrees, &s.random_direction});
  }
  return s;
}

GradientRows read_gradients(const std::filesystem::path& path) {
  GradientRows g;
  for (RowReader rows(path, {gradients_header}); rows.next();) {
    g.parameter.emplace_back(rows.name(column_of(gradients_header, "parameter")));
    rows.append_to({&g.step, nullptr, &g.signal, &g.noise, &g.noise_scale});
  }
  return g;
}

}  // namespace preheat
