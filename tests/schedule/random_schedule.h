// Random schedules of every shape and key, as a user would write them.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "schedule/schedule.h"

namespace preheat {

class RandomSchedule {
 public:
  explicit RandomSchedule(std::uint32_t seed) : random_(seed) {}

  /// A configuration whose keys may contradict each other: a phase too long for the run, an
  /// exponential from zero. Its run has at most 400 updates.
  RunConfig config() {
    steps_ = integer(1, 6) == 1 ? integer(1, 4) : integer(5, 400);
    steps_per_epoch_ = integer(1, 50);
    text_ = fmt::format("schedule:\n  base_lr: {}\n", number(1e-4, 10));
    if (one_in(4)) {
      text_ += fmt::format("  scale: {{rule: {}, reference_batch: {}}}\n", pick({"linear", "sqrt"}),
                           integer(1, 1000));
    }
    if (one_in(5)) text_ += fmt::format("  min_lr: {}\n", number(1e-6, 1e-2));
    if (one_in(2)) {
      sections();
    } else {
      text_ += "  phases:\n";
      const std::int64_t count = integer(1, 5);
      for (std::int64_t i = 0; i < count; ++i) {
        const std::string name = shape();
        text_ += fmt::format("    - {{shape: {}", name);
        if (!one_in(3)) text_ += ", from: " + lr();
        if (takes_end(name) && !one_in(3)) text_ += ", to: " + lr();
        if (i + 1 < count || one_in(2)) text_ += ", length: " + length(steps_ / count);
        text_ += keys(name) + "}\n";
      }
    }
    text_ += fmt::format("train: {{length: {} steps}}\ndata: {{batch_size: {}}}\n", steps_,
                         integer(1, 512));
    return read_config(parse_document(text_, "random.yaml"));
  }

  /// The schedule of such a configuration. Throws ConfigError if it is wrong.
  Schedule schedule() {
    const RunConfig c = config();
    return resolve_schedule(c, run_length(c, steps_per_epoch_));
  }

  /// The first such schedule that is not wrong.
  Schedule accepted() {
    for (;;) {
      try {
        return schedule();
      } catch (const ConfigError&) {
        continue;
      }
    }
  }

  /// The text of the last configuration, and the steps of its epochs.
  const std::string& text() const { return text_; }
  std::int64_t steps_per_epoch() const { return steps_per_epoch_; }

  std::int64_t integer(std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(random_);
  }
  /// A log-uniform number.
  double number(double least, double most) {
    return std::exp(
        std::uniform_real_distribution<double>(std::log(least), std::log(most))(random_));
  }
  bool one_in(int n) { return integer(1, n) == 1; }

 private:
  std::string pick(const std::vector<std::string>& from) {
    return from[static_cast<std::size_t>(integer(0, static_cast<std::int64_t>(from.size()) - 1))];
  }
  std::string shape() {
    return shape_facts[integer(0, static_cast<std::int64_t>(std::size(shape_facts)) - 1)].name;
  }
  static bool takes_end(const std::string& name) {
    for (const ShapeFacts& facts : shape_facts) {
      if (name == facts.name) return (facts.keys & takes_to) != 0;
    }
    return false;
  }
  std::string lr() {
    switch (integer(0, 3)) {
      case 0:
        return "0";
      case 1:
        return "base";
      case 2:
        return fmt::format("{}x", number(1e-3, 2));
      default:
        return fmt::format("{}", number(1e-6, 10));
    }
  }
  std::string length(std::int64_t most, bool may_be_zero = true) {
    switch (integer(0, 3)) {
      case 0:
        return fmt::format("{} epochs", number(0.1, 3));
      case 1:
        return fmt::format("{}%", number(1, 60));
      default:
        return fmt::format("{} steps", integer(may_be_zero && one_in(10) ? 0 : 1,
                                               std::max<std::int64_t>(most, 1)));
    }
  }

  void sections() {
    text_ += "  warmup:\n";
    text_ +=
        fmt::format("    shape: {}\n",
                    pick({"constant", "linear", "cosine", "power", "exponential", "saturating"}));
    if (!one_in(3)) text_ += "    length: " + length(steps_) + "\n";
    switch (integer(0, 2)) {
      case 0:
        text_ += fmt::format("    start_lr: {}\n", number(1e-6, 1));
        break;
      case 1:
        text_ += fmt::format("    start_factor: {}\n", number(1e-4, 2));
        break;
      default:
        break;
    }
    text_ += fmt::format("    endpoints: {}\n", endpoints());
    if (one_in(4)) text_ += "    every: epoch\n";
    if (one_in(2)) {
      text_ +=
          fmt::format("    overlap: true\n    toward: {}\n", pick({"base", "curve", "multiply"}));
    }
    if (one_in(3)) {
      text_ +=
          fmt::format("    until: {{train_error_below: {}, window: {} steps{}}}\n", number(0.05, 1),
                      integer(1, 60), one_in(2) ? ", at_most: " + length(steps_, false) : "");
    }
    if (one_in(3)) text_ += "  hold: " + length(steps_ / 3) + "\n";
    const std::string name = shape();
    text_ += fmt::format("  decay: {{shape: {}", name);
    if (takes_end(name) && !one_in(3)) text_ += fmt::format(", final_lr: {}", number(1e-6, 1));
    if (one_in(3)) text_ += ", length: " + length(steps_ / 2);
    text_ += keys(name) + "}\n";
  }
  std::string endpoints() { return pick({"start", "end", "both", "neither"}); }

  // The keys of a shape, each with some probability.
  std::string keys(const std::string& name) {
    std::string text = fmt::format(", endpoints: {}", endpoints());
    if (one_in(4)) text += ", every: epoch";
    if (one_in(5)) text += fmt::format(", min_lr: {}", number(1e-6, 1e-2));
    if (name == "power") text += fmt::format(", power: {}", number(0.2, 6));
    if (name == "step") {
      text += fmt::format(", gamma: {}, over: {}", number(0.05, 1.05), length(steps_, false));
    }
    if (name == "exponential" && one_in(2)) {
      text += fmt::format(", gamma: {}, over: {}, staircase: {}", number(0.05, 1.05),
                          length(steps_, false), one_in(2));
    }
    if (name == "multistep") {
      text += fmt::format(", gamma: {}, at: [", number(0.05, 1.3));
      std::int64_t at = 0;
      for (std::int64_t i = integer(1, 12); i > 0; --i) {
        at += integer(1, 60);
        text += fmt::format("{} steps{}", at, i > 1 ? ", " : "]");
      }
    }
    if (name == "inverse") {
      text += fmt::format(", gamma: {}, power: {}", number(1e-4, 1), number(0.2, 2));
      if (one_in(2))
        text += fmt::format(", over: {}, staircase: {}", length(steps_, false), one_in(2));
    }
    if (name == "sigmoid") {
      text += fmt::format(", gamma: {}{}, center: {}", one_in(2) ? "-" : "", number(1e-3, 1),
                          length(steps_, false));
    }
    if (name == "tanh" && one_in(2)) {
      text += fmt::format(", lower: {}, upper: {}", -number(1, 10), number(1, 10));
    }
    if ((name == "inverse_sqrt" || name == "saturating") && one_in(2))
      text += ", timescale: " + length(steps_, false);
    if (name == "cosine" && !one_in(3)) {
      const bool by_period = one_in(2);
      text += by_period
                  ? ", period: " + length(steps_ / 2, false)
                  : fmt::format(", cycles: {}",
                                one_in(2) ? number(0.5, 9) : static_cast<double>(integer(1, 9)));
      if (by_period && one_in(2)) text += fmt::format(", multiply: {}", number(1, 3));
      if (one_in(2)) text += fmt::format(", peak_factor: {}", number(0.3, 1));
      if (one_in(3)) text += fmt::format(", rewarmup: {} steps", integer(0, 9));
    }
    return text;
  }

  std::mt19937 random_;
  std::int64_t steps_ = 1;
  std::int64_t steps_per_epoch_ = 1;
  std::string text_;
};

}  // namespace preheat
