#include "train/run_folder.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "config/atomic_file.h"
#include "config/error.h"
#include "train/run_files.h"

namespace preheat {
namespace {

// Drops the sign of a NaN: not every CSV reader accepts "-nan".
double number(double value) {
  return std::isnan(value) ? std::nan("") : value;
}

[[noreturn]] void fail_to_create(const std::filesystem::path& folder,
                                 const std::error_code& error) {
  throw Error(folder.string() + ": cannot be created: " + error.message());
}

const char* evaluations_header_of(const RunConfig& config) {
  return config.data.validation ? validated_evaluations_header : evaluations_header;
}

// Whether an optional file, which is created with its first row, exists. One with an incomplete
// header was being created when the machine stopped, after the last checkpoint; it is removed.
bool has_begun(const std::filesystem::path& path, std::string_view header) {
  if (!std::filesystem::exists(path)) return false;
  const std::string text = read_file(path);
  if (text.size() > header.size() || !header.starts_with(text)) return true;
  std::filesystem::remove(path);
  return false;
}

// The rows of a file of an older preheat, whose header lacks the last column of this one.
std::string with_last_column(std::string_view rows, std::string_view header) {
  std::string filled = fmt::format("{}\n", header);
  for (const char c : rows.substr(rows.find('\n') + 1)) {
    if (c == '\n') filled += ",nan";
    filled += c;
  }
  return filled;
}

// The configuration is written first, so that even a run killed right away is recognised as a run.
FolderLock begin_run(const std::filesystem::path& folder, const RunConfig& config) {
  make_folder(folder);
  FolderLock lock(folder);
  write_atomically(folder / "config.yaml", write_config(config));
  return lock;
}

}  // namespace

DefaultFolder::DefaultFolder(const std::string& name, const std::string& suffix) {
  const std::string stamp = fmt::format("{:%Y%m%d-%H%M%S}", fmt::localtime(std::time(nullptr)));
  const std::filesystem::path parent = std::filesystem::path("runs") / name;
  // Returns whether it is new. Of what exists, only a folder is no error.
  const auto create = [&](const std::filesystem::path& folder, std::error_code& error) {
    const bool is_new = std::filesystem::create_directory(folder, error);
    if (is_new) created_.push_back(folder);
    return is_new;
  };
  path_ = parent / fmt::format("{}-{}", stamp, suffix);
  std::error_code error;
  for (int i = 2;;) {
    for (const std::filesystem::path& above : {parent.parent_path(), parent}) {
      create(above, error);
      if (error) fail_to_create(above, error);
    }
    if (create(path_, error)) return;
    // Another process that failed may have removed the folders above again.
    if (error == std::errc::no_such_file_or_directory) continue;
    if (error && error != std::errc::file_exists) fail_to_create(path_, error);
    path_ = parent / fmt::format("{}-{}.{}", stamp, suffix, i++);
  }
}

DefaultFolder::~DefaultFolder() {
  for (auto folder = created_.rbegin(); folder != created_.rend(); ++folder) {
    rmdir(folder->c_str());  // fails if anything is in it
  }
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  if (std::filesystem::exists(folder, error)) {
    if (!std::filesystem::is_directory(folder, error)) {
      throw Error(folder.string() + ": is a file; --out takes a folder");
    }
    if (!std::filesystem::is_empty(folder, error)) {
      throw Error(folder.string() + ": is not empty; --out takes a new or an empty folder");
    }
  }
  std::filesystem::create_directories(folder, error);
  if (error) fail_to_create(folder, error);
}

RunConfig config_in(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::exists(folder / "config.yaml", error)) {
    throw Error(folder.string() + ": is not the folder of an experiment or a run: " +
                (error ? error.message() : "it has no config.yaml"));
  }
  try {
    return read_config(load_document(folder / "config.yaml"));
  } catch (const ConfigError& e) {
    throw Error(e.what());
  }
}

bool is_of_run(std::string_view name) {
  constexpr std::string_view names[] = {
      "config.yaml",   "metrics.csv",   "eval.csv",     "layers.csv",  "activations.csv",
      "sharpness.csv", "gradients.csv", "summary.json", "report.html", "checkpoints"};
  if (const std::string_view written = name_before_temporary(name); !written.empty()) {
    return is_of_run(written);
  }
  constexpr std::string_view before = "config-before-";
  constexpr std::string_view yaml = ".yaml";
  if (name.starts_with(before) && name.ends_with(yaml)) {
    const std::string_view step =
        name.substr(before.size(), name.size() - before.size() - yaml.size());
    return !step.empty() && step.find_first_not_of("0123456789") == std::string_view::npos;
  }
  return std::ranges::find(names, name) != std::end(names);
}

FolderLock::FolderLock(const std::filesystem::path& folder)
    : file_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (file_ >= 0 && flock(file_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    close(file_);
    throw Error(folder.string() + ": another preheat process is using it");
  }
}

FolderLock::FolderLock(FolderLock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}

FolderLock::~FolderLock() {
  if (file_ >= 0) close(file_);
}

RunFolder::AppendFile::AppendFile(std::filesystem::path path, const char* header)
    : path_(std::move(path)) {
  const bool is_new = !std::filesystem::exists(path_);
  file_.reset(std::fopen(path_.c_str(), "a"));
  if (!file_) fail();
  if (is_new) write(fmt::format("{}\n", header));
}

void RunFolder::AppendFile::fail() const {
  throw Error(fmt::format("{}: cannot be written: {}", path_.string(), std::strerror(errno)));
}

void RunFolder::AppendFile::write(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size() ||
      std::fflush(file_.get()) != 0) {
    fail();
  }
}

void RunFolder::AppendFile::sync() {
  if (fsync(fileno(file_.get())) != 0 && errno != EINVAL) fail();
}

RunFolder::RunFolder(std::filesystem::path folder, const RunConfig& config, FolderLock lock)
    : path_(std::move(folder)),
      lock_(std::move(lock)),
      metrics_(path_ / "metrics.csv", metrics_header),
      evaluations_(path_ / "eval.csv", evaluations_header_of(config)) {}

RunFolder::RunFolder(const std::filesystem::path& folder, const RunConfig& config,
                     Checkpoints checkpoints)
    : RunFolder(folder, config, begin_run(folder, config)) {
  checkpoints_ = checkpoints;
  if (checkpoints == Checkpoints::drop) return;
  std::error_code error;
  std::filesystem::create_directory(path_ / "checkpoints", error);
  if (error) fail_to_create(path_ / "checkpoints", error);
}

RunFolder RunFolder::reopen(std::filesystem::path folder, FolderLock lock, const RunConfig& config,
                            std::int64_t step, History& past) {
  std::map<std::filesystem::path, std::string> kept;  // text per file, written once all are read
  // Calls take(row) for each row before update `end`. A file with the second of the headers gets
  // the first.
  using Headers = std::initializer_list<std::string_view>;
  const auto keep_before = [&](const char* name, Headers headers, std::int64_t end,
                               const auto& take) {
    RowReader reader(folder / name, headers);
    while (reader.next() && reader.number(step_column) < static_cast<double>(end)) take(reader);
    const std::string_view rows = reader.text_before();
    const std::string_view header = *headers.begin();
    kept.emplace(folder / name,
                 rows.starts_with(header) ? std::string(rows) : with_last_column(rows, header));
  };

  // One row per update: those after `step` rows are dropped unread, since they may be damaged.
  const std::filesystem::path metrics = folder / "metrics.csv";
  RowReader rows(metrics, {metrics_header});
  std::int64_t updates = 0;
  for (; updates < step && rows.next(); ++updates) {
    if (rows.number(step_column) != static_cast<double>(updates)) {
      throw Error(metrics.string() + ": has rows missing or out of order");
    }
    past.history.add(rows.number(column_of(metrics_header, "train_loss")),
                     rows.number(column_of(metrics_header, "train_accuracy")));
  }
  if (updates != step) {
    throw Error(fmt::format("{}: has {} rows, the checkpoint was made after {} updates",
                            metrics.string(), updates, step));
  }
  kept.emplace(metrics, rows.text_with_row());
  // An evaluation at `step` was done before update `step`.
  const bool validates = config.data.validation.has_value();
  const auto& chooses = validates ? past.best_validation_accuracy : past.best_test_accuracy;
  constexpr std::size_t test_accuracy = column_of(evaluations_header, "test_accuracy");
  constexpr std::size_t validation_accuracy =
      column_of(validated_evaluations_header, "validation_accuracy");
  static_assert(test_accuracy == column_of(validated_evaluations_header, "test_accuracy"));
  keep_before("eval.csv", {evaluations_header_of(config)}, step + 1, [&](const RowReader& row) {
    past.last_evaluated = static_cast<std::int64_t>(row.number(step_column));
    if (chooses && row.number(validates ? validation_accuracy : test_accuracy) <= *chooses) return;
    past.best_test_accuracy = row.number(test_accuracy);
    if (validates) past.best_validation_accuracy = row.number(validation_accuracy);
    past.best_step = past.last_evaluated;
  });
  const auto keep_if_begun = [&](const char* name, Headers headers, const auto& take) {
    if (has_begun(folder / name, *headers.begin())) keep_before(name, headers, step, take);
  };
  const auto ignore = [](const RowReader&) {};
  keep_if_begun("layers.csv", {layers_header, rankless_layers_header}, ignore);
  keep_if_begun("activations.csv", {activations_header, changeless_activations_header}, ignore);
  keep_if_begun("gradients.csv", {gradients_header}, ignore);
  keep_if_begun("sharpness.csv", {sharpness_header}, [&](const RowReader& row) {
    const double sharpness = row.number(column_of(sharpness_header, "sharpness"));
    if (row.number(step_column) == 0) past.initial_sharpness = sharpness;
    past.last_sharpness = sharpness;
  });
  remove_temporaries(folder);
  remove_temporaries(folder / "checkpoints");
  // The run goes on: how it ended before does not hold for what comes now.
  std::filesystem::remove(folder / "summary.json");
  for (const auto& [path, text] : kept) write_atomically(path, text);
  return RunFolder(std::move(folder), config, std::move(lock));
}

void RunFolder::update_config(const RunConfig& config) {
  const std::filesystem::path path = path_ / "config.yaml";
  const std::string text = write_config(config);
  if (read_file(path) != text) write_atomically(path, text);
}

void RunFolder::replace_config(const RunConfig& config, std::int64_t step) {
  const std::filesystem::path kept = path_ / fmt::format("config-before-{}.yaml", step);
  // A file that exists holds the configuration of update `step` - 1. The one replaced now was set
  // at the same step, so no update before it used it.
  if (!std::filesystem::exists(kept)) write_atomically(kept, read_file(path_ / "config.yaml"));
  write_atomically(path_ / "config.yaml", write_config(config));
}

std::filesystem::path RunFolder::checkpoint(const std::string& which) const {
  return path_ / "checkpoints" / (which + ".ckpt");
}

void RunFolder::add(std::span<const StepRecord> records, const Schedule& schedule,
                    std::int64_t batch_size) {
  std::string text;
  for (const StepRecord& r : records) {
    text +=
        fmt::format("{},{},{},{},{},{},{},{},{}\n", r.step, r.step / schedule.run.steps_per_epoch,
                    schedule.phase_names[r.phase], r.lr, number(r.loss),
                    static_cast<double>(r.correct) / static_cast<double>(batch_size),
                    number(r.grad_norm), number(r.update_norm), number(r.weight_norm));
  }
  metrics_.write(text);
}

void RunFolder::add(std::int64_t step, std::int64_t epoch, const Evaluated& evaluated) {
  std::string row = fmt::format("{},{}", step, epoch);
  const auto append = [&](const Evaluation& e) {
    row += fmt::format(",{},{}", number(e.loss), e.accuracy());
  };
  append(evaluated.test);
  if (evaluated.validation) append(*evaluated.validation);
  evaluations_.write(row + "\n");
}

void RunFolder::add(std::span<const ParameterRecord> records) {
  std::string text;
  for (const ParameterRecord& r : records) {
    text += fmt::format("{},{},{},{},{},{},{},{}\n", r.step, r.parameter, number(r.weight_norm),
                        number(r.velocity_norm), number(r.update_norm), number(r.angle),
                        number(r.distance), number(r.stable_rank));
  }
  if (!layers_) layers_.emplace(path_ / "layers.csv", layers_header);
  layers_->write(text);
}

void RunFolder::add(std::int64_t step, std::span<const ActivationRecord> records,
                    std::span<const double> changes) {
  std::string text;
  for (std::size_t i = 0; i < records.size(); ++i) {
    const ActivationRecord& r = records[i];
    text += fmt::format("{},{},{},{},{}\n", step, r.layer, number(r.largest), r.dead,
                        number(changes[i]));
  }
  if (!activations_) activations_.emplace(path_ / "activations.csv", activations_header);
  activations_->write(text);
}

void RunFolder::add(const SharpnessRecord& record) {
  const Sharpness& s = record.sharpness;
  if (!sharpness_) sharpness_.emplace(path_ / "sharpness.csv", sharpness_header);
  const std::string agrees = std::isnan(s.wide) ? "nan" : fmt::format("{:d}", s.agrees());
  sharpness_->write(fmt::format("{},{},{},{},{},{},{},{},{}\n", record.step, record.lr,
                                number(s.value), number(s.wide), number(s.residual), s.iterations,
                                record.gradients, agrees, number(record.random_direction)));
}

void RunFolder::add(std::span<const GradientRecord> records) {
  std::string text;
  for (const GradientRecord& r : records) {
    text += fmt::format("{},{},{},{},{}\n", r.step, r.parameter, number(r.noise.signal),
                        number(r.noise.noise), number(r.scale));
  }
  if (!gradients_) gradients_.emplace(path_ / "gradients.csv", gradients_header);
  gradients_->write(text);
}

void RunFolder::sync() {
  metrics_.sync();
  evaluations_.sync();
  for (std::optional<AppendFile>* file : {&layers_, &activations_, &sharpness_, &gradients_}) {
    if (*file) (*file)->sync();
  }
}

void RunFolder::write_summary(const nlohmann::json& summary) const {
  // The path of the data may be bytes that are not UTF-8.
  const auto replace = nlohmann::json::error_handler_t::replace;
  write_atomically(path_ / "summary.json", summary.dump(2, ' ', false, replace) + "\n");
}

}  // namespace preheat
