#include "commands/bench.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <utility>

#include "commands/commands.h"
#include "commands/options.h"
#include "config/atomic_file.h"
#include "report/bench_page.h"

namespace preheat {
namespace {

struct Interrupted {};

// "a.json and a.html"
std::string listed(const std::vector<std::string>& files) {
  return fmt::format("{}", fmt::join(files, " and "));
}

bool has_changed(std::optional<Change> change) {
  return change && *change != Change::within_spread;
}

std::string ratio_text(double ratio) {
  return std::isfinite(ratio) ? fmt::format("{:.2f}", ratio) : "-";
}

}  // namespace

void BenchOptions::add_to(CLI::App& app) {
  app.add_option("--json", json, "write the figures as JSON")->type_name("FILE");
  app.add_option("--html", html, "write a page with the figures and charts")->type_name("FILE");
  app.add_option("--compare", compare,
                 "compare with an earlier run of this bench, as written by --json")
      ->type_name("FILE");
}

void BenchOptions::add_peers_to(CLI::App& app) {
  app.add_option("--peers", peers,
                 "print PyTorch's figures beside ours, as written by scripts/peers/")
      ->type_name("FILE");
}

void BenchOptions::check(const std::string& config) const {
  require_own_files({{"CONFIG", config}, {"--compare", compare}, {"--peers", peers}},
                    {{"--json", json}, {"--html", html}});
}

void stop_if_interrupted() {
  if (interrupted()) throw Interrupted();
}

BenchResults::BenchResults(const std::string& bench, Backend& backend, const BenchOptions& files,
                           Earlier earlier, nlohmann::ordered_json options)
    : backend_(backend), files_(files), earlier_(std::move(earlier)) {
  catch_interrupts();
  if (!files.json.empty() || !files.html.empty()) catch_broken_pipe();
  for (const std::string& file : {files.json, files.html}) {
    if (!file.empty()) AtomicFile{file};  // tests writing; an existing file stays as it is
  }
  const std::string condition = backend.benches().condition().text;
  json = {{"bench", bench},
          {"preheat", PREHEAT_VERSION},
          {"date",
           fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(std::chrono::system_clock::to_time_t(
                                                    std::chrono::system_clock::now())))},
          {"interrupted", false},
          {"device", backend.device()},
          {"library", backend.library()},
          {"options", std::move(options)},
          {"condition", {{"before", condition}}}};
  fmt::print("{}\n", condition);
  if (earlier_.given()) {
    json["comparison"] = {{"file", earlier_.file()},
                          {"date", earlier_.date()},
                          {"notes", nlohmann::ordered_json::array()}};
    note(earlier_.notes_before(json));
  }
  std::fflush(stdout);
  json["figures"] = nlohmann::ordered_json::array();
}

void BenchResults::note(const std::vector<std::string>& notes) {
  for (const std::string& text : notes) {
    fmt::print("note: {}\n", text);
    json["comparison"]["notes"].push_back(text);
  }
}

std::string BenchResults::head() const {
  return earlier_.given() ? fmt::format("  {:>13}", "earlier / now") : "";
}

std::string BenchResults::add(const std::string& key, const char* unit, const Spread& time) {
  std::string own = key;  // made unique if several figures share a key
  for (int i = 2; !keys_.insert(own).second; ++i) own = fmt::format("{} #{}", key, i);
  json["figures"].push_back({{"key", own},
                             {"unit", unit},
                             {"median", time.median},
                             {"least", time.least},
                             {"largest", time.largest}});
  if (!earlier_.given()) return "";
  nlohmann::ordered_json& figure = json["figures"].back();
  const auto beside = earlier_.beside(own, time);
  changes_.push_back(beside ? std::optional(beside->change) : std::nullopt);
  if (!beside) {
    figure["earlier"] = nullptr;
    return fmt::format("  {:>13}", "new");
  }
  const Spread& earlier = beside->earlier;
  figure["earlier"] = {
      {"median", earlier.median}, {"least", earlier.least}, {"largest", earlier.largest}};
  figure["ratio"] = beside->ratio;
  figure["change"] = to_string(beside->change);
  return fmt::format(
      "  {:>6} {:<6}", ratio_text(beside->ratio),
      beside->change == Change::within_spread ? "within" : to_string(beside->change));
}

bool BenchResults::last_has_changed() const {
  return !changes_.empty() && has_changed(changes_.back());
}

// The number of figures per kind of change, and which ones.
void BenchResults::summarize() {
  nlohmann::ordered_json& comparison = json["comparison"];
  const auto count = [&](std::optional<Change> change) {
    return std::ranges::count(changes_, change);
  };
  const auto faster = count(Change::faster);
  const auto slower = count(Change::slower);
  const auto within = count(Change::within_spread);
  const auto only_now = count(std::nullopt);
  const std::vector<std::string> only_earlier = earlier_.missing_from(keys_);
  comparison["faster"] = faster;
  comparison["slower"] = slower;
  comparison["within_spread"] = within;
  comparison["only_now"] = only_now;
  comparison["only_earlier"] = only_earlier;
  fmt::print(
      "\ncompared with {} ({}): {} faster, {} slower, {} within the spread, {} only here, {} only "
      "there\n",
      earlier_.file(), earlier_.date(), faster, slower, within, only_now, only_earlier.size());
  for (std::size_t i = 0; i < changes_.size(); ++i) {
    if (!has_changed(changes_[i])) continue;
    const nlohmann::ordered_json& figure = json["figures"][i];
    fmt::print("  {:>6} {}  {}: {:.4g} {}, was {:.4g}\n", ratio_text(figure["ratio"]),
               to_string(*changes_[i]), figure["key"].get<std::string>(),
               figure["median"].get<double>(), figure["unit"].get<std::string>(),
               figure["earlier"]["median"].get<double>());
  }
  fmt::print(
      "A ratio is the earlier median over this one. A row has changed if the two are further "
      "apart\nthan the least and the largest of either run.\n");
}

void BenchResults::measure(const std::function<void()>& work) {
  std::exception_ptr failure;  // of a later part; what was measured before it stays valid
  try {
    work();
  } catch (const Interrupted&) {
    if (json["figures"].empty()) refuse_to_write_nothing();
    json["interrupted"] = true;
  } catch (const std::exception&) {
    if (json["figures"].empty()) throw;
    failure = std::current_exception();
    json["interrupted"] = true;
  }
  Condition condition;
  try {
    condition = backend_.benches().condition();
  } catch (const std::exception&) {  // a failed device may no longer answer
    if (!failure) throw;
  }
  json["condition"]["after"] = condition.text;
  json["clocks_mhz"] = nlohmann::ordered_json::object();
  for (const auto& [name, mhz] : condition.clocks) json["clocks_mhz"][name] = mhz;
  fmt::print("\nafterwards: {}\n", condition.text);
  if (earlier_.given()) {
    note(earlier_.notes_after(json));
    summarize();
  }
  const bool cut = json["interrupted"];
  if (cut) fmt::print("\ninterrupted and incomplete: later figures are missing\n");
  std::fflush(stdout);
  std::vector<std::string> written;
  std::vector<std::string> problems;
  if (cut && !failure) problems.emplace_back("interrupted");
  const auto write = [&](const std::string& file, const std::string& text) {
    try {
      write_atomically(file, text);
      written.push_back(file);
    } catch (const Error& error) {  // the other file may still have room
      problems.emplace_back(error.what());
    }
  };
  if (!files_.json.empty()) write(files_.json, json.dump(2) + "\n");
  if (!files_.html.empty()) write(files_.html, bench_page(json));
  if (problems.empty() && !failure) return;
  if (!written.empty()) problems.push_back("what was measured is in " + listed(written));
  const std::string text = fmt::format("{}", fmt::join(problems, "; "));
  if (!failure) throw Error(text);
  // The error is reported separately, with its own exit code.
  if (!text.empty()) fmt::print("{}\n", text);
  std::rethrow_exception(failure);
}

// An earlier run's file must not be overwritten with nothing.
void BenchResults::refuse_to_write_nothing() const {
  std::vector<std::string> kept;
  for (const std::string& file : {files_.json, files_.html}) {
    if (!file.empty()) kept.push_back(file);
  }
  throw Error("interrupted before anything was measured" +
              (kept.empty() ? std::string() : "; nothing was written to " + listed(kept)));
}

void add_bench_command(CLI::App& app) {
  CLI::App* bench = app.add_subcommand(
      "bench", "Measure what a training step and its parts cost on this machine");
  bench->require_subcommand(1);
  add_bench_schedule(*bench);
  add_bench_update(*bench);
  add_bench_step(*bench);
}

}  // namespace preheat
