// Reads the files of a run's folder (train/run_folder.h) into columns.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace preheat {

inline constexpr const char* metrics_header =
    "step,epoch,phase,lr,train_loss,train_accuracy,grad_norm,update_norm,weight_norm";
inline constexpr const char* evaluations_header = "step,epoch,test_loss,test_accuracy";
inline constexpr const char* validated_evaluations_header =
    "step,epoch,test_loss,test_accuracy,validation_loss,validation_accuracy";
inline constexpr const char* layers_header =
    "step,parameter,weight_norm,velocity_norm,update_norm,angle,distance,stable_rank";
inline constexpr const char* activations_header = "step,layer,largest,dead,change";
inline constexpr const char* sharpness_header =
    "step,lr,sharpness,sharpness_wide,residual,iterations,gradients,agrees,random_direction";
inline constexpr const char* gradients_header = "step,parameter,signal,noise,noise_scale";

/// Those of older runs, which lack the last column.
inline constexpr const char* rankless_layers_header =
    "step,parameter,weight_norm,velocity_norm,update_norm,angle,distance";
inline constexpr const char* changeless_activations_header = "step,layer,largest,dead";

/// In place of a parameter in gradients.csv: all of them together. Parameters have a dot in their
/// names.
inline constexpr const char* whole_network = "all";

/// The first column of each.
inline constexpr std::size_t step_column = 0;

/// The number of the column that a header calls `name`. A name that it lacks does not compile.
consteval std::size_t column_of(std::string_view header, std::string_view name) {
  std::size_t column = 0;
  for (std::size_t begin = 0; begin <= header.size(); ++column) {
    const std::size_t end = std::min(header.find(',', begin), header.size());
    if (header.substr(begin, end - begin) == name) return column;
    begin = end + 1;
  }
  throw std::invalid_argument("the header has no such column");
}

/// Reads one of these files row by row.
class RowReader {
 public:
  /// Throws Error if the file cannot be read or begins with none of the headers.
  RowReader(std::filesystem::path path, std::initializer_list<std::string_view> headers);
  RowReader(const RowReader&) = delete;
  RowReader& operator=(const RowReader&) = delete;

  /// Moves to the next row. Returns false if there is none, or only one without a newline, which a
  /// killed run may leave. Throws Error as fail_row() does if the row is malformed.
  bool next();

  /// A field of the row. Columns called phase, parameter or layer are names, all others numbers.
  double number(std::size_t column) const { return numbers_[column]; }
  std::string_view name(std::size_t column) const { return fields_[column]; }

  /// Appends each number of the row to its column in `columns`; the entries of names, and of
  /// columns that the file does not have, are not used.
  void append_to(std::initializer_list<std::vector<double>*> columns) const;

  /// The text before the current row, or all complete rows once next() has returned false.
  std::string_view text_before() const { return std::string_view(text_).substr(0, begin_); }

  /// The same with the current row, and the header before the first.
  std::string_view text_with_row() const { return std::string_view(text_).substr(0, end_); }

  /// Throws Error, naming the file and the row's line.
  [[noreturn]] void fail_row() const;

 private:
  const std::filesystem::path path_;
  const std::string text_;
  std::vector<bool> is_name_;  // per column
  std::size_t line_ = 1;       // of the row
  std::size_t begin_ = 0;      // of the row in text_
  std::size_t end_ = 0;
  std::vector<std::string_view> fields_;
  std::vector<double> numbers_;
};

/// Consecutive updates in one phase of the schedule: rows `first` to `last`.
struct PhaseRows {
  std::string name;
  std::size_t first;
  std::size_t last;
};

/// The columns of metrics.csv.
struct Metrics {
  std::vector<double> step, epoch, lr, loss, accuracy, grad_norm, update_norm, weight_norm;
  std::vector<PhaseRows> phases;
};

/// The columns of eval.csv. Those of the validation set are empty if the run has none.
struct Evaluations {
  std::vector<double> step, epoch, loss, accuracy;
  std::vector<double> validation_loss, validation_accuracy;
};

/// The columns of layers.csv and of activations.csv; `stable_rank` and `change` are empty if an
/// older preheat wrote the file.
struct LayerRows {
  std::vector<double> step;
  std::vector<std::string> parameter;
  std::vector<double> weight_norm, velocity_norm, update_norm, angle, distance, stable_rank;
};
struct ActivationRows {
  std::vector<double> step;
  std::vector<std::string> layer;
  std::vector<double> largest, dead, change;
};

/// The columns of sharpness.csv; `agrees` is 0 or 1, or NaN if it was not checked.
struct SharpnessRows {
  std::vector<double> step, lr, sharpness, wide, residual, iterations, gradients, agrees,
      random_direction;
};

/// The columns of gradients.csv.
struct GradientRows {
  std::vector<double> step;
  std::vector<std::string> parameter;  // or whole_network
  std::vector<double> signal, noise, noise_scale;
};

/// Each throws Error as RowReader does. Rows are in file order; a torn last row is ignored.
Metrics read_metrics(const std::filesystem::path& path);
Evaluations read_evaluations(const std::filesystem::path& path);
LayerRows read_layers(const std::filesystem::path& path);
ActivationRows read_activations(const std::filesystem::path& path);
SharpnessRows read_sharpness(const std::filesystem::path& path);
GradientRows read_gradients(const std::filesystem::path& path);

}  // namespace preheat
