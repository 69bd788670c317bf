// The benchmarks that a backend can run on itself.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/spread.h"
#include "config/config.h"
#include "schedule/lr_schedule.h"

namespace preheat {

/// A list of tensors to be updated.
struct UpdateSet {
  std::string name;
  std::vector<std::int64_t> tensors;  // their sizes, in floats

  std::int64_t parameters() const;
};

/// How an update is submitted to the device.
enum class SubmitMode {
  ceiling,   // no update: the row moves arrays only
  graph,     // several steps captured into a graph that is replayed
  launches,  // one by one from the host
  calls      // function calls, on a backend without launches
};

std::string_view to_string(SubmitMode way);

/// The cost of one update of such a set, submitted in one way.
struct UpdateTiming {
  std::string set;
  std::string variant;
  SubmitMode way = SubmitMode::calls;
  bool cold = false;  // cycles through so many instances of it that no cache holds a step's arrays
  std::int64_t parameters = 0;
  std::int64_t tensors = 0;
  std::int64_t launches = 0;  // on a GPU
  Spread microseconds;
  double bytes = 0;             // that must be moved, without the padding of an arena
  double gigabytes = 0;         // per second
  double share_of_copy = 0;     // `gigabytes` over those of a copy of the arena, in the same run
  double share_of_traffic = 0;  // the time to read 3 arrays and write 2, over the time of the row
};

/// Microseconds that a row, timed in a graph, takes beyond the graph's node of an empty kernel
/// (`launch`, from Benches::time_launch()): what is not the price of being a launch. std::nullopt
/// for rows timed otherwise, and on a backend without launches.
std::optional<double> us_over_empty(const UpdateTiming& row,
                                    const std::vector<UpdateTiming>& launch);

/// A learning rate schedule and its name.
struct NamedSchedule {
  std::string name;
  LrSchedule schedule;
};

/// The measured limits of a device.
struct Ceilings {
  double bytes_per_second = 0;       // reads plus writes, over arrays far larger than any cache
  double operations_per_second = 0;  // of a large matrix product in the requested precision
};

/// Conditions of a measurement that vary while the device is in use.
struct Condition {
  std::string text;  // one line: clocks, what limits them, temperature, other processes
  std::vector<std::pair<std::string, double>> clocks;  // in MHz; the known ones
};

/// Called between the rounds of a measurement; ends it by throwing.
using BetweenRounds = std::function<void()>;

class Benches {
 public:
  virtual ~Benches() = default;

  virtual Condition condition() const = 0;

  /// Approximate size of the largest set that fits into memory.
  virtual std::int64_t max_update_floats() const = 0;

  /// The cost of an empty launch, as one row; empty on a backend without launches.
  virtual std::vector<UpdateTiming> time_launch() = 0;

  /// The update of a set in every variant that the backend compares, the ceilings first. Throws
  /// Error if memory is insufficient or a variant does not compute the update.
  virtual std::vector<UpdateTiming> time_updates(const UpdateSet& set, bool quick,
                                                 const BetweenRounds& between_rounds) = 0;

  /// The update of a set together with the end of the step, which evaluates the schedule: the same
  /// number of times per schedule, in microseconds, at steps spread across its run. The schedules
  /// are interleaved, so times with the same index belong together.
  virtual std::vector<std::vector<double>> time_schedules(
      const UpdateSet& set, const std::vector<NamedSchedule>& schedules, bool quick,
      const BetweenRounds& between_rounds) = 0;

  /// Measures now, in about a second, with products in `precision`, on a CPU with `cpu_threads`
  /// threads (0: all; ignored by a GPU). Throws Error if memory is insufficient.
  virtual Ceilings measure_ceilings(Precision precision, int cpu_threads) = 0;
};

}  // namespace preheat
