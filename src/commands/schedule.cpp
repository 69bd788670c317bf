#include "schedule/schedule.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include "commands/commands.h"
#include "commands/options.h"
#include "config/atomic_file.h"
#include "report/line_plot.h"
#include "schedule/plan.h"

namespace preheat {
namespace {

struct ScheduleOptions {
  std::vector<std::string> paths;
  Overrides overrides;
  std::string csv;
  std::string svg;
  std::string size = "880x420";
  bool log = false;
  std::optional<std::int64_t> gate_opens;
};

struct DrawnSchedule {
  std::string name;
  Schedule schedule;
  std::int64_t gate_opened_at = -1;

  double rate(std::int64_t step) const { return lr_at(schedule.lr, step, gate_opened_at); }
  std::vector<PhaseInterval> parts() const { return phase_intervals(schedule, gate_opened_at); }
};

ConfigError wrong_option(const std::string& option, const std::string& problem,
                         const std::string& remedy) {
  return ConfigError({option, 0, 0, ""}, problem, remedy);
}

// A name without characters that are special in CSV.
std::string plain_name(std::string text) {
  for (char& c : text) {
    const bool is_plain = std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                          std::string_view("._-/").find(c) != std::string_view::npos;
    if (!is_plain) c = '_';
  }
  return text;
}

// Replaces equal names by those of their files, or if need be by their paths.
void tell_apart(std::vector<DrawnSchedule>& all, const std::vector<std::string>& paths) {
  const auto all_differ = [&] {
    std::set<std::string> names;
    for (const DrawnSchedule& s : all) names.insert(s.name);
    return names.size() == all.size();
  };
  for (const bool whole : {false, true}) {
    if (all_differ()) return;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::filesystem::path path = paths[i];
      all[i].name = plain_name(whole ? path.string() : path.stem().string());
    }
  }
}

std::vector<DrawnSchedule> resolved(const ScheduleOptions& options) {
  std::vector<DrawnSchedule> all;
  bool has_gate = false;
  for (const std::string& path : options.paths) {
    const RunConfig config = read_config(options.overrides.applied_to(path));
    DrawnSchedule s{config.name, resolve_schedule(config, run_length(config))};
    const Gate& gate = s.schedule.lr.gate;
    has_gate |= gate.window > 0;
    if (options.gate_opens && gate.window > 0) {
      const std::int64_t latest = s.schedule.lr.phases[0].length;
      if (*options.gate_opens < gate.window || *options.gate_opens > latest) {
        throw wrong_option(fmt::format("--gate-opens {}", *options.gate_opens),
                           "the gate cannot open there",
                           fmt::format("from {} to {}", gate.window, latest));
      }
      s.gate_opened_at = *options.gate_opens;
    }
    all.push_back(std::move(s));
  }
  if (options.gate_opens && !has_gate) {
    throw wrong_option(fmt::format("--gate-opens {}", *options.gate_opens), "there is no gate",
                       "a configuration with schedule.warmup.until");
  }
  tell_apart(all, options.paths);
  return all;
}

// Passes the table to `write` in chunks: it may exceed memory.
void write_csv(const std::vector<DrawnSchedule>& all,
               const std::function<void(const std::string&)>& write) {
  constexpr std::size_t piece = 1 << 16;
  const bool several = all.size() > 1;
  std::string text = several ? "name,step,epoch,phase,lr\n" : "step,epoch,phase,lr\n";
  for (const DrawnSchedule& s : all) {
    const std::string name = several ? s.name + "," : "";
    for (std::int64_t step = 0; step < s.schedule.run.steps; ++step) {
      text += fmt::format("{}{},{},{},{:.17g}\n", name, step, step / s.schedule.run.steps_per_epoch,
                          phase_name(s.schedule, step, s.gate_opened_at), s.rate(step));
      if (text.size() >= piece) {
        write(text);
        text.clear();
      }
    }
  }
  write(text);
}

// Every update of a short run; of a long one evenly spaced updates, the ends of every phase and,
// unless there are too many to walk, the least and the largest rate between two of them: cycles
// that are shorter would look like any other line, or flat.
std::vector<std::int64_t> drawn_steps(const DrawnSchedule& s) {
  struct Rate {
    std::int64_t step;
    double value;
  };
  constexpr std::int64_t most = 4000;
  const std::int64_t end = s.schedule.run.steps;
  const std::int64_t stride = std::max<std::int64_t>(1, end / most);
  const bool walks = end <= max_updates_walked;
  std::vector<std::int64_t> steps;
  for (std::int64_t first = 0; first < end; first += stride) {
    Rate least{first, s.rate(first)};
    Rate largest = least;
    for (std::int64_t step = first + 1; walks && step < std::min(first + stride, end); ++step) {
      const Rate rate{step, s.rate(step)};
      if (rate.value < least.value) least = rate;
      if (rate.value > largest.value) largest = rate;
    }
    steps.insert(steps.end(), {first, least.step, largest.step});
  }
  for (const PhaseInterval& part : s.parts()) {
    steps.push_back(part.first);
    steps.push_back(part.last);
  }
  std::sort(steps.begin(), steps.end());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  return steps;
}

// Drops the labels, for when there is no room for them.
LinePlot without_words(LinePlot plot) {
  plot.title = plot.x_label = plot.y_label = "";
  for (Band& band : plot.bands) band.label = "";
  return plot;
}

LinePlot plot_of(const std::vector<DrawnSchedule>& all, bool log) {
  LinePlot plot;
  plot.title = all.size() == 1 ? all.front().name + ": learning rate" : "learning rate";
  plot.x_label = "update";
  plot.y_label = "learning rate";
  plot.log_y = log;
  for (std::size_t i = 0; i < all.size(); ++i) {
    Curve curve;
    curve.label = all.size() == 1 ? "" : all[i].name;
    curve.color = static_cast<int>(i);
    for (const std::int64_t step : drawn_steps(all[i])) {
      curve.x.push_back(static_cast<double>(step));
      curve.y.push_back(all[i].rate(step));
    }
    plot.curves.push_back(std::move(curve));
  }
  if (all.size() > 1) return plot;
  for (const PhaseInterval& part : all.front().parts()) {
    plot.bands.push_back({static_cast<double>(part.first), static_cast<double>(part.last + 1),
                          all.front().schedule.phase_names[part.phase]});
  }
  return plot;
}

// A table row followed by `words`, or with these on the lines below if they do not fit.
std::string with_words(const std::string& row, const std::string& words) {
  const auto columns = static_cast<std::size_t>(std::max(terminal_columns(), 60));
  if (row.size() + 2 + words.size() <= columns) return row + "  " + words + "\n";
  const std::string indent(4, ' ');
  std::string text = row + "\n";
  std::string line = indent;
  for (std::size_t at = 0; at < words.size();) {
    const std::size_t end = std::min(words.find(' ', at), words.size());
    if (line.size() > indent.size() && line.size() + 1 + end - at > columns) {
      text += line + "\n";
      line = indent;
    }
    line += (line.size() > indent.size() ? " " : "") + words.substr(at, end - at);
    at = end + 1;
  }
  return text + line + "\n";
}

void print_plan(const DrawnSchedule& s) {
  const Schedule& schedule = s.schedule;
  const std::vector<PhaseInterval> parts = s.parts();
  fmt::print("{}: T = {} updates, {} an epoch{}, base learning rate {}\n\n", s.name,
             schedule.run.steps, schedule.run.steps_per_epoch,
             warmup_text(schedule, s.gate_opened_at), lr_text(schedule.base_lr));
  const auto updates_text = [](const PhaseInterval& part) {
    return fmt::format("{} .. {}", part.first, part.last);
  };
  std::size_t width = 5;
  std::size_t updates_width = 7;
  for (const PhaseInterval& part : parts) {
    width = std::max(width, schedule.phase_names[part.phase].size());
    updates_width = std::max(updates_width, updates_text(part).size());
  }
  fmt::print("{:<{}}  {:>{}}  {:>7}  {:>8}  {:>8}  {}\n", "phase", width, "updates", updates_width,
             "epochs", "first", "last", "what it does");
  for (const PhaseInterval& part : parts) {
    const double epochs = static_cast<double>(part.last - part.first + 1) /
                          static_cast<double>(schedule.run.steps_per_epoch);
    const std::string row =
        fmt::format("{:<{}}  {:>{}}  {:>7.3g}  {:>8}  {:>8}", schedule.phase_names[part.phase],
                    width, updates_text(part), updates_width, epochs, lr_text(s.rate(part.first)),
                    lr_text(s.rate(part.last)));
    fmt::print("{}", with_words(row, in_words(schedule, part)));
  }
  const auto sum = sum_of_rates(schedule, s.gate_opened_at);
  fmt::print("\nsum of rates {}\n",
             sum ? fmt::format("{:.6g}, mean {}", *sum,
                               lr_text(*sum / static_cast<double>(schedule.run.steps)))
                 : fmt::format("not computed beyond {} updates", max_updates_walked));
  for (const std::string& remark : remarks(schedule, s.gate_opened_at)) {
    fmt::print("note: {}\n", remark);
  }
  fmt::print("\n");
}

// Compares each of the others with the first.
void print_partings(const std::vector<DrawnSchedule>& all) {
  const DrawnSchedule& a = all.front();
  for (std::size_t i = 1; i < all.size(); ++i) {
    const DrawnSchedule& b = all[i];
    const auto p = schedule_difference(a.schedule, a.gate_opened_at, b.schedule, b.gate_opened_at);
    if (!p) {
      fmt::print("{} and {} are the same", a.name, b.name);
    } else {
      fmt::print(
          "{} and {} first differ at update {}: {} and {}; furthest apart at update {}: {} and {}",
          a.name, b.name, p->first, lr_text(a.rate(p->first)), lr_text(b.rate(p->first)),
          p->largest_at, lr_text(p->a), lr_text(p->b));
      if (p->a > 0) fmt::print(" ({:+.3g} %)", 100 * (p->b / p->a - 1));
    }
    const std::int64_t steps[] = {a.schedule.run.steps, b.schedule.run.steps};
    const std::int64_t shorter = std::min({steps[0], steps[1], max_updates_walked});
    fmt::print("{}\n", shorter == steps[0] && shorter == steps[1]
                           ? ""
                           : fmt::format(", over the first {} updates", shorter));
  }
  fmt::print("\n");
}

struct PictureSize {
  int width = 0;
  int height = 0;
};

PictureSize size_of(const std::string& text) {
  PictureSize size;
  char rest = 0;
  const bool read = std::sscanf(text.c_str(), "%5dx%5d%c", &size.width, &size.height, &rest) == 2;
  if (!read || size.width < 120 || size.height < 80 || size.width > 10000 || size.height > 10000) {
    throw wrong_option("--size " + text, "is not a picture size",
                       "width x height in pixels, such as 880x420, from 120x80 to 10000x10000");
  }
  return size;
}

void schedule_command(const ScheduleOptions& options) {
  GivenFiles configs;
  for (const std::string& path : options.paths) configs.emplace_back("CONFIG", path);
  require_own_files(configs,
                    {{"--csv", options.csv == "-" ? "" : options.csv}, {"--svg", options.svg}});
  const PictureSize size = size_of(options.size);
  const std::vector<DrawnSchedule> all = resolved(options);
  const LinePlot plot = plot_of(all, options.log);
  if (!options.svg.empty()) {
    constexpr int min_height_for_words = 200;
    write_atomically(options.svg,
                     to_svg(size.height < min_height_for_words ? without_words(plot) : plot,
                            size.width, size.height));
  }
  if (options.csv == "-") {  // standard output holds the table alone
    write_csv(all, [](const std::string& text) { fmt::print("{}", text); });
    return;
  }
  if (!options.csv.empty()) {
    catch_interrupts();  // an interrupt would leave the partial output under its temporary name
    AtomicFile file(options.csv);
    write_csv(all, [&](const std::string& text) {
      if (interrupted()) throw Error("interrupted; " + options.csv + " is as it was");
      file.write(text);
    });
    file.commit();
  }
  for (const DrawnSchedule& s : all) print_plan(s);
  if (all.size() > 1) print_partings(all);
  fmt::print("{}", to_text(plot, std::clamp(terminal_columns() - 2, 60, 118), 16, on_terminal()));
}

}  // namespace

void add_schedule_command(CLI::App& app) {
  auto options = std::make_shared<ScheduleOptions>();
  CLI::App* command =
      app.add_subcommand("schedule", "Show the learning rate of every update, without training");
  command
      ->add_option("CONFIG", options->paths,
                   "YAML files, such as those in configs/schedules; several are compared")
      ->required();
  options->overrides.add_to(*command);
  command
      ->add_option("--csv", options->csv,
                   "write step,epoch,phase,lr (after a name column if there are several files); - "
                   "for standard output")
      ->type_name("FILE");
  command->add_option("--svg", options->svg, "write a picture")->type_name("FILE");
  command->add_option("--size", options->size, "size of the picture (default 880x420)")
      ->type_name("WxH");
  command->add_flag("--log", options->log, "use a logarithmic axis for the rate");
  command
      ->add_option("--gate-opens", options->gate_opens,
                   "assume that the warmup's gate opens before update N")
      ->type_name("N");
  command->callback([options] { schedule_command(*options); });
}

}  // namespace preheat
