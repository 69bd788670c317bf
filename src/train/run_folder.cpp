#include "train/run_folder.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "config/error.h"
#include "train/atomic_file.h"
#include "train/run_files.h"

namespace preheat {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const auto at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

// "-nan" is one of the two signs of a NaN, and not every reader knows it.
double number(double value) {
  return std::isnan(value) ? std::nan("") : value;
}

// The rows of a file of ours, as numbers; a name reads as 0.
class Rows {
 public:
  Rows(const std::filesystem::path& path, const std::string& header)
      : path_(path), text_(read_file(path)) {
    for (const std::string_view column : split(header, ',')) {
      is_name_.push_back(column == "phase" || column == "parameter" || column == "layer");
    }
    if (!text_.starts_with(header + "\n")) throw Error(path.string() + ": has lost its header");
    end_ = header.size() + 1;
  }

  // The next complete row, or nothing at the end of the file or before a last, torn row.
  bool next(std::vector<double>& row) {
    const auto newline = text_.find('\n', end_);
    if (newline == std::string::npos) return false;
    const auto fields = split(std::string_view(text_).substr(end_, newline - end_), ',');
    bool right = fields.size() == is_name_.size();
    row.assign(is_name_.size(), 0);
    for (std::size_t i = 0; right && i < row.size(); ++i) {
      if (is_name_[i]) continue;
      const char* end = fields[i].data() + fields[i].size();
      const auto [read_to, error] = std::from_chars(fields[i].data(), end, row[i]);
      right = error == std::errc() && read_to == end;
    }
    if (!right) throw Error(path_.string() + ": has a damaged row");
    start_ = end_;
    end_ = newline + 1;
    return true;
  }

  // The same, up to the first row of `step` or later, which is dropped with all after it.
  bool next_before(std::int64_t step, std::vector<double>& row) {
    if (!next(row)) return false;
    if (row[0] < static_cast<double>(step)) return true;
    end_ = start_;
    return false;
  }

  void rewrite() const { write_atomically(path_, std::string_view(text_).substr(0, end_)); }

 private:
  std::filesystem::path path_;
  std::string text_;
  std::vector<bool> is_name_;  // of columns
  std::size_t start_ = 0;
  std::size_t end_ = 0;
};

// Whether a file that is made with its first row is there. One that has no whole header was being
// made when the machine stopped, after the last checkpoint; it is removed.
bool has_begun(const std::filesystem::path& path, const std::string& header) {
  if (!std::filesystem::exists(path)) return false;
  const std::string text = read_file(path);
  if (text.size() > header.size() || !header.starts_with(text)) return true;
  std::filesystem::remove(path);
  return false;
}

}  // namespace

std::filesystem::path default_folder(const std::string& name, const std::string& suffix) {
  const std::string stamp = fmt::format("{:%Y%m%d-%H%M%S}", fmt::localtime(std::time(nullptr)));
  const std::filesystem::path parent = std::filesystem::path("runs") / name;
  std::filesystem::path folder = parent / (stamp + "-" + suffix);
  for (int i = 2; std::filesystem::exists(folder); ++i) {
    folder = parent / fmt::format("{}-{}.{}", stamp, suffix, i);
  }
  return folder;
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
  if (error) throw Error(folder.string() + ": cannot be made: " + error.message());
}

FolderLock::FolderLock(const std::filesystem::path& folder)
    : file_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (file_ >= 0 && flock(file_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    close(file_);
    throw Error(folder.string() + ": another preheat is at work in it");
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
  if (!file_) {
    throw Error(fmt::format("{}: cannot be written: {}", path_.string(), std::strerror(errno)));
  }
  if (is_new) write(fmt::format("{}\n", header));
}

void RunFolder::AppendFile::write(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size() ||
      std::fflush(file_.get()) != 0) {
    throw Error(fmt::format("{}: cannot be written: {}", path_.string(), std::strerror(errno)));
  }
}

void RunFolder::AppendFile::sync() {
  if (fsync(fileno(file_.get())) != 0 && errno != EINVAL) {
    throw Error(fmt::format("{}: cannot be written: {}", path_.string(), std::strerror(errno)));
  }
}

RunFolder::RunFolder(std::filesystem::path folder, FolderLock lock)
    : path_(std::move(folder)),
      lock_(std::move(lock)),
      metrics_(path_ / "metrics.csv", metrics_header),
      evaluations_(path_ / "eval.csv", evaluations_header) {}

RunFolder::RunFolder(const std::filesystem::path& folder, const RunConfig& config)
    : RunFolder(folder, (make_folder(folder), FolderLock(folder))) {
  write_atomically(path_ / "config.yaml", write_config(config));
  std::error_code error;
  std::filesystem::create_directory(path_ / "checkpoints", error);
  if (error) throw Error((path_ / "checkpoints").string() + ": cannot be made: " + error.message());
}

RunFolder RunFolder::reopen(std::filesystem::path folder, std::int64_t step, Past& past) {
  FolderLock lock(folder);
  std::vector<double> row;
  Rows metrics(folder / "metrics.csv", metrics_header);
  std::int64_t rows = 0;
  while (metrics.next_before(step, row)) {
    if (row[0] != static_cast<double>(rows)) {
      throw Error((folder / "metrics.csv").string() + ": has rows missing or out of order");
    }
    past.history.add(row[4], row[5]);
    ++rows;
  }
  if (rows != step) {
    throw Error(fmt::format("{}: has {} rows, the checkpoint was made after {} updates",
                            (folder / "metrics.csv").string(), rows, step));
  }
  Rows evaluations(folder / "eval.csv", evaluations_header);
  while (evaluations.next_before(step + 1, row)) {  // one after the last update is of before it
    if (!past.best_accuracy || row[3] > *past.best_accuracy) {
      past.best_accuracy = row[3];
      past.best_step = static_cast<std::int64_t>(row[0]);
    }
  }
  std::vector<Rows> files = {std::move(metrics), std::move(evaluations)};
  const std::string sharpness_name = "sharpness.csv";
  for (const auto& [name, header] :
       {std::pair<std::string, const char*>{"layers.csv", layers_header},
        {"activations.csv", activations_header},
        {sharpness_name, sharpness_header}}) {
    if (!has_begun(folder / name, header)) continue;
    Rows& file = files.emplace_back(folder / name, header);
    while (file.next_before(step, row)) {
      if (name != sharpness_name) continue;
      if (row[0] == 0) past.initial_sharpness = row[2];
      past.last_sharpness = row[2];
    }
  }
  for (const Rows& file : files) file.rewrite();
  return RunFolder(std::move(folder), std::move(lock));
}

void RunFolder::replace_config(const RunConfig& config, std::int64_t step) {
  const std::filesystem::path kept = path_ / fmt::format("config-before-{}.yaml", step);
  // One that is there already was in force when update `step` was next; no update had the other.
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

void RunFolder::add(std::int64_t step, std::int64_t epoch, const Evaluation& evaluation) {
  evaluations_.write(
      fmt::format("{},{},{},{}\n", step, epoch, number(evaluation.loss), evaluation.accuracy()));
}

void RunFolder::add(std::span<const ParameterRecord> records) {
  std::string text;
  for (const ParameterRecord& r : records) {
    text += fmt::format("{},{},{},{},{},{},{}\n", r.step, r.parameter, number(r.weight_norm),
                        number(r.velocity_norm), number(r.update_norm), number(r.angle),
                        number(r.distance));
  }
  if (!layers_) layers_.emplace(path_ / "layers.csv", layers_header);
  layers_->write(text);
}

void RunFolder::add(std::int64_t step, std::span<const ActivationRecord> records) {
  std::string text;
  for (const ActivationRecord& r : records) {
    text += fmt::format("{},{},{},{}\n", step, r.layer, number(r.largest), r.dead);
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

void RunFolder::sync() {
  metrics_.sync();
  evaluations_.sync();
  for (std::optional<AppendFile>* file : {&layers_, &activations_, &sharpness_}) {
    if (*file) (*file)->sync();
  }
}

void RunFolder::write_summary(const nlohmann::json& summary) const {
  write_atomically(path_ / "summary.json", summary.dump(2) + "\n");
}

}  // namespace preheat
