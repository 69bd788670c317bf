// What the figures of a bench are compared with: PyTorch's, and those of an earlier run.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"

namespace preheat {

/// The factor by which theirs exceeds ours: above 1, ours is faster. Not finite if ours is 0.
inline double times_ours(double theirs, double ours) {
  return theirs / ours;
}

/// Figures from a file, measured at another time or by another program.
class OtherFigures {
 public:
  /// "": none. `writer` names what writes such files, `is_valid` tells whether this is one. Throws
  /// Error if it is not, or if it is missing.
  OtherFigures(const std::string& file, const std::string& writer,
               const std::function<bool(const nlohmann::json&)>& is_valid);

  bool given() const { return !file_.empty(); }
  const std::string& file() const { return file_; }
  const nlohmann::json& json() const { return json_; }

  /// A note if they were measured on another device than `device`; otherwise "".
  std::string device_note(const std::string& device) const;

 private:
  std::string file_;
  nlohmann::json json_;
};

/// Measurements of scripts/peers/step.py or update.py.
class Peers {
 public:
  /// "": none. Throws Error if the file is missing or malformed.
  explicit Peers(const std::string& file);

  /// Prints the times in `key`, in `unit`, of the rows that `matches` accepts and whose mode ends
  /// with `suffix`, each with its ratio to ours, then the modes with that suffix that have no such
  /// row. Returns all of them as [{"name", key, "ratio"}]; where there is no time, both are null
  /// and "missing" or "error" says why. [] without a file.
  nlohmann::ordered_json compare(const char* key, const char* unit, double ours,
                                 const std::function<bool(const nlohmann::json&)>& matches,
                                 std::string_view suffix = "") const;

  /// Prints a note if they were measured on another device than `device`.
  void note_device(const std::string& device) const;

 private:
  nlohmann::ordered_json compared(const nlohmann::json& row, const char* key, const char* unit,
                                  double ours) const;

  OtherFigures figures_;
  std::string torch_;               // "PyTorch 2.11"
  std::vector<std::string> modes_;  // that the file's device allows, measured or not
};

/// How a figure has changed.
enum class Change { faster, slower, within_spread };
std::string_view to_string(Change change);  // "faster", "slower", "within the spread"

/// The rule: a figure has changed if its two medians are further apart than the range (least to
/// largest) of the rounds of either run. Rounds within one run differ by that much without a cause,
/// so two runs may as well. A single disturbed round makes the rule blind, never wrong. The ranges
/// are shown next to the medians, so that the rule can be applied by eye.
Change change_of(const Spread& earlier, const Spread& now);

/// The output of an earlier `preheat bench ... --json`.
class Earlier {
 public:
  /// "": none. Throws Error if the file is missing, damaged or of another bench than `bench`.
  Earlier(const std::string& file, const std::string& bench);

  bool given() const { return figures_.given(); }
  const std::string& file() const { return figures_.file(); }
  const std::string& date() const { return date_; }

  struct Beside {
    Spread earlier;
    double ratio = 0;  // times_ours
    Change change = Change::within_spread;
  };
  /// std::nullopt if the earlier run has no figure with that key.
  std::optional<Beside> beside(const std::string& key, const Spread& now) const;

  /// The keys of its figures that are not in `keys`, in its order.
  std::vector<std::string> missing_from(const std::set<std::string>& keys) const;

  /// Lines on what makes the comparison doubtful. notes_before compares the device, the versions
  /// and the options of `now`, a bench's results before it has measured; notes_after compares what
  /// the device was able to do, after it has: clocks and ceilings.
  std::vector<std::string> notes_before(const nlohmann::ordered_json& now) const;
  std::vector<std::string> notes_after(const nlohmann::ordered_json& now) const;

 private:
  OtherFigures figures_;
  std::string date_;
};

}  // namespace preheat
