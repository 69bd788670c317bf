// What a backend can measure of itself.
#pragma once

#include <cstdint>
#include <functional>
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

/// How an update is put to the device.
enum class UpdateWay {
  ceiling,   // none is: the row moves arrays and updates nothing
  graph,     // several steps captured into a graph that is replayed
  launches,  // one by one from the host
  calls      // of functions, where there is nothing to launch
};

std::string_view to_string(UpdateWay way);

/// What one update of such a list costs, one way or another.
struct UpdateTiming {
  std::string set;
  std::string variant;
  UpdateWay way = UpdateWay::calls;
  bool cold = false;  // over so many copies in turn that no cache holds what a step reads
  std::int64_t parameters = 0;
  std::int64_t tensors = 0;
  std::int64_t launches = 0;  // on a GPU
  Spread microseconds;
  double bytes = 0;             // that have to be moved, the padding of an arena left out
  double gigabytes = 0;         // a second
  double share_of_copy = 0;     // of the rate of a copy of as many floats, in the same run
  double share_of_traffic = 0;  // of the rate at which 3 arrays are read and 2 written
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

/// What a measurement depends on besides the device and changes while that is used.
struct Condition {
  std::string text;  // one line: clocks, what holds them back, temperature, who else is there
  std::vector<std::pair<std::string, double>> clocks;  // in MHz; those that are known
};

/// Called between the rounds of a measurement, and ends it by throwing.
using BetweenRounds = std::function<void()>;

class Benches {
 public:
  virtual ~Benches() = default;

  virtual Condition condition() const = 0;

  /// Of the largest set that the memory has room for; about.
  virtual std::int64_t most_update_floats() const = 0;

  /// What a launch costs that does nothing, as a row; none where there are no launches.
  virtual std::vector<UpdateTiming> time_launch() = 0;

  /// The update of a set in every variant that the backend has to compare, the ceilings first.
  /// Throws Error when memory does not suffice, and where a variant does not compute the update.
  virtual std::vector<UpdateTiming> time_updates(const UpdateSet& set, bool quick,
                                                 const BetweenRounds& between_rounds) = 0;

  /// The update of a set together with the end of the step, which evaluates the schedule: for each
  /// schedule as many times, in microseconds, at steps spread across its run. The schedules take
  /// turns, so that times of one index belong together.
  virtual std::vector<std::vector<double>> time_schedules(
      const UpdateSet& set, const std::vector<NamedSchedule>& schedules,
      const BetweenRounds& between_rounds) = 0;

  /// Measured now, in about a second: products in `precision`; on a CPU with `cpu_threads` threads
  /// (0: all there are), which a GPU does not look at. Throws Error when memory does not suffice.
  virtual Ceilings measure_ceilings(Precision precision, int cpu_threads) = 0;
};

}  // namespace preheat
