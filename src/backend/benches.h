// What a backend can measure of itself, and the proof that what it calls an update is one.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backend/spread.h"
#include "config/config.h"
#include "optim/sgd_momentum.h"
#include "schedule/lr_schedule.h"

namespace preheat {

/// A list of tensors to be updated.
struct UpdateSet {
  std::string name;
  std::vector<std::int64_t> tensors;  // their sizes, in floats

  std::int64_t parameters() const;
};

/// What one update of such a list costs, one way or another.
struct UpdateTiming {
  std::string set;
  std::string variant;
  std::string how;  // graph, launches or calls; hot in the cache unless it says cold
  std::int64_t parameters = 0;
  std::int64_t tensors = 0;
  std::int64_t launches = 0;
  double microseconds = 0;  // median
  double least = 0;
  double largest = 0;
  double bytes = 0;             // that have to be moved, the padding of an arena left out
  double gigabytes = 0;         // a second
  double share_of_copy = 0;     // of the rate of a copy of as many floats, in the same run
  double share_of_traffic = 0;  // of the rate at which 3 arrays are read and 2 written

  /// Their median and spread, in microseconds.
  void take(std::vector<double> times);
};

/// A learning rate schedule and what it is called.
struct NamedSchedule {
  std::string name;
  LrSchedule schedule;
};

/// What a device can do at most, as measured.
struct Ceilings {
  double bytes_per_second = 0;       // of arrays far larger than any cache, both ways counted
  double operations_per_second = 0;  // of a large matrix product in the precision asked for
};

class Benches {
 public:
  virtual ~Benches() = default;

  /// What a measurement depends on besides the device and changes while it is used: clocks, what
  /// holds them back, temperature, who else is there. One line.
  virtual std::string condition() const = 0;

  /// Of the largest set that the memory has room for; about.
  virtual std::int64_t most_update_floats() const = 0;

  /// What a launch costs that does nothing; no rows where there are no launches.
  virtual std::vector<UpdateTiming> time_launch() = 0;

  /// The update of a set in every variant that the backend has to compare, the ceilings first.
  /// Throws Error when memory does not suffice, and where a variant does not compute the update.
  virtual std::vector<UpdateTiming> time_updates(const UpdateSet& set, bool quick) = 0;

  /// The update of a set together with the end of the step, which evaluates the schedule: for each
  /// schedule as many times, in microseconds, at steps spread across its run. The schedules take
  /// turns, so that times of one index belong together.
  virtual std::vector<std::vector<double>> time_schedules(
      const UpdateSet& set, const std::vector<NamedSchedule>& schedules) = 0;

  /// Of a replica of these options: ReplicaOptions.
  virtual Ceilings measure_ceilings(Precision precision, int cpu_threads) = 0;
};

/// How a bench calls its ceilings: rows that update nothing.
inline constexpr const char* ceiling = "ceiling";

/// Where the tensors of a set lie, as in training.
struct UpdateLayout {
  explicit UpdateLayout(const UpdateSet& set);
  std::vector<std::int64_t> offsets;  // in floats
  std::int64_t size = 0;              // of the arena, padding included
};

/// The numbers a bench starts from, over and over where more are needed: small ones of either sign,
/// which stay small under any number of updates.
inline constexpr std::int64_t update_pattern_size = 1 << 20;
struct UpdatePattern {
  UpdatePattern();
  std::vector<float> weights, velocity, gradients;
};

inline constexpr float bench_rate = 1e-3f;
inline constexpr float bench_decay = 5e-4f;

/// Throws Error unless `weights` and `velocity` are what one update at bench_rate with bench_decay
/// makes of the pattern, in the first tensors of a set and in its last, as they lie at `layout`.
/// `first` and `last` read so many floats from there on. The bound is relative to the largest
/// number that goes into a result; 0: to the bit. `gradients_are_zero`: the update's, not the
/// pattern's.
struct UpdateCheck {
  std::string variant;
  SgdMomentum rule;
  double bound = 0;
  bool gradients_are_zero = false;
};
using ReadFloats = std::function<std::vector<float>(std::int64_t first, std::int64_t count)>;
void check_update(const UpdateCheck& check, const UpdateSet& set, const UpdateLayout& layout,
                  const UpdatePattern& pattern, const ReadFloats& weights,
                  const ReadFloats& velocity);

}  // namespace preheat
