// What the figures of a bench are held against: PyTorch's, and those of an earlier run.
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

/// How many times ours theirs is: above 1, ours is the faster. Not finite where ours is 0.
inline double times_ours(double theirs, double ours) {
  return theirs / ours;
}

/// Figures that a file has of another time or another program.
class OtherFigures {
 public:
  /// "": none. `writer` says what writes such files, `is_valid` whether this is one. Throws Error
  /// where it is not, and where it is missing.
  OtherFigures(const std::string& file, const std::string& writer,
               const std::function<bool(const nlohmann::json&)>& is_valid);

  bool given() const { return !file_.empty(); }
  const std::string& file() const { return file_; }
  const nlohmann::json& json() const { return json_; }

  /// What is to be said where they are of another device than this one; "" where they are not.
  std::string device_note(const std::string& device) const;

 private:
  std::string file_;
  nlohmann::json json_;
};

/// What scripts/peers/gpu_step.py or gpu_update.py measured.
class Peers {
 public:
  /// "": none. Throws Error where the file is missing or is not as they write it.
  explicit Peers(const std::string& file);

  /// Prints the times in `key`, in `unit`, of the rows that `matches`, each with how many times
  /// ours it is, or that there is none; returns them as [{"name", key, "ratio"}].
  template <class Matches>
  nlohmann::ordered_json compare(const char* key, const char* unit, double ours,
                                 const Matches& matches) const {
    nlohmann::ordered_json found = nlohmann::ordered_json::array();
    if (!figures_.given()) return found;
    for (const auto& row : figures_.json()["rows"]) {
      if (matches(row)) found.push_back(compared(row, key, unit, ours));
    }
    if (found.empty()) say_missing();
    return found;
  }

  /// Prints a note where they were measured on another device than this one.
  void note_device(const std::string& device) const;

 private:
  nlohmann::ordered_json compared(const nlohmann::json& row, const char* key, const char* unit,
                                  double ours) const;
  void say_missing() const;

  OtherFigures figures_;
};

/// What has become of a figure.
enum class Change { faster, slower, within_spread };
std::string_view to_string(Change change);  // "faster", "slower", "within the spread"

/// The rule: a figure has changed where its two medians are further apart than the rounds of either
/// run are, from the least to the largest. What a run saw its own rounds differ by, it may differ
/// by from another run for no reason; a single round that was disturbed makes the rule blind, never
/// wrong. The spreads stand beside the medians, so that anybody can apply it by eye.
Change change_of(const Spread& earlier, const Spread& now);

/// What an earlier `preheat bench ... --json` wrote.
class Earlier {
 public:
  /// "": none. Throws Error where the file is missing, damaged or of another bench than `bench`.
  Earlier(const std::string& file, const std::string& bench);

  bool given() const { return figures_.given(); }
  const std::string& file() const { return figures_.file(); }
  const std::string& date() const { return date_; }

  struct Beside {
    Spread earlier;
    double ratio = 0;  // times_ours
    Change change = Change::within_spread;
  };
  /// Nothing where the earlier run has no figure of that key.
  std::optional<Beside> beside(const std::string& key, const Spread& now) const;

  /// The keys of its figures that are not among these, in its order.
  std::vector<std::string> missing_from(const std::set<std::string>& keys) const;

  /// What makes a comparison doubtful, each a line: of the device, the versions and the options of
  /// `now`, the results of a bench before it has measured; and of what the device was able to do,
  /// when it has: clocks and ceilings.
  std::vector<std::string> notes_before(const nlohmann::ordered_json& now) const;
  std::vector<std::string> notes_after(const nlohmann::ordered_json& now) const;

 private:
  OtherFigures figures_;
  std::string date_;
};

}  // namespace preheat
