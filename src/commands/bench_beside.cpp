#include "commands/bench_beside.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "config/atomic_file.h"
#include "config/error.h"
#include "report/label_text.h"
#include "train/json_file.h"

namespace preheat {
namespace {

using Json = nlohmann::json;

bool is_peers_file(const Json& json) {
  const auto is_time = [](const Json& time) {
    return time.is_null() || (time.is_number() && time.get<double>() > 0);
  };
  const auto is_text = [](const Json& text) { return text.is_string(); };
  const auto is_row = [&](const Json& row) {
    return row.is_object() &&
           std::ranges::all_of(
               std::array{"mode", "network", "missing", "error"},
               [&](const char* key) { return row.value(key, Json("")).is_string(); }) &&
           std::ranges::all_of(
               std::array{"tensors", "parameters", "batch"},
               [&](const char* key) { return row.value(key, Json(0)).is_number_integer(); }) &&
           is_time(row.value("us", Json())) && is_time(row.value("ms", Json()));
  };
  const Json modes = json.value("modes", Json::array());
  return json.value("rows", Json()).is_array() && json.value("torch", Json()).is_string() &&
         modes.is_array() && std::ranges::all_of(modes, is_text) &&
         std::ranges::all_of(json["rows"], is_row);
}

bool is_figure(const Json& figure) {
  if (!figure.is_object() || !figure.value("key", Json()).is_string()) return false;
  for (const char* name : {"median", "least", "largest"}) {
    if (!figure.value(name, Json()).is_number()) return false;
  }
  return 0 <= figure["least"] && figure["least"] <= figure["median"] &&
         figure["median"] <= figure["largest"];
}

bool is_map_of_numbers(const Json& map) {
  return map.is_object() &&
         std::ranges::all_of(map, [](const Json& value) { return value.is_number(); });
}

bool is_bench_file(const Json& json) {
  for (const char* text : {"bench", "preheat", "date", "library"}) {
    if (!json.value(text, Json()).is_string()) return false;
  }
  return json.value("options", Json()).is_object() &&
         json.value("interrupted", Json()).is_boolean() &&
         is_map_of_numbers(json.value("clocks_mhz", Json())) &&
         is_map_of_numbers(json.value("ceilings", Json::object())) &&
         json.value("figures", Json()).is_array() &&
         std::ranges::all_of(json["figures"], is_figure);
}

std::string text_of(const Json& value) {
  return clean(value.is_string() ? value.get<std::string>() : value.dump());
}

// "batch 64 (was 32)" for all keys whose values differ.
std::vector<std::string> differences(const Json& was, const nlohmann::ordered_json& is) {
  std::vector<std::string> found;
  for (const auto& [key, value] : is.items()) {
    const Json before = was.value(key, Json("nothing"));
    if (before != Json(value)) {
      found.push_back(fmt::format("{} {} (was {})", key, text_of(value), text_of(before)));
    }
  }
  for (const auto& [key, value] : was.items()) {
    if (!is.contains(key)) {
      found.push_back(fmt::format("{} nothing (was {})", clean(key), text_of(value)));
    }
  }
  return found;
}

// The entries of two maps of numbers that differ by more than a twentieth.
std::vector<std::string> far_apart(const Json& was, const Json& is, const char* unit) {
  constexpr double allowed = 0.05;
  std::vector<std::string> found;
  for (const auto& [key, value] : is.items()) {
    if (!was.contains(key)) continue;
    const auto now = value.get<double>();
    const auto before = was[key].get<double>();
    if (std::abs(now - before) > allowed * before) {
      found.push_back(fmt::format("{} {:.4g}{} (was {:.4g})", key, now, unit, before));
    }
  }
  return found;
}

// Prints and returns a row without a time; `kind` is "missing" or "error".
nlohmann::ordered_json without_time(const std::string& name, const char* key, const char* kind,
                                    const std::string& reason) {
  fmt::print("{:<51}     {}: {}\n", name, std::string_view(kind) == "error" ? "failed" : kind,
             reason);
  return {{"name", name}, {key, nullptr}, {"ratio", nullptr}, {kind, reason}};
}

}  // namespace

// ---- Files -------------------------------------------------------------------------------------

OtherFigures::OtherFigures(const std::string& file, const std::string& writer,
                           const std::function<bool(const Json&)>& is_valid)
    : file_(clean(file)) {
  if (file.empty()) return;
  try {
    json_ = parse_json<Json>(read_file(file));
  } catch (const Json::exception&) {  // null is not valid either
  }
  if (!json_.is_object() || !json_.value("device", Json()).is_string() || !is_valid(json_)) {
    throw Error(fmt::format("{}: is not what {} writes", file, writer));
  }
}

std::string OtherFigures::device_note(const std::string& device) const {
  if (!given()) return "";
  const std::string where = clean(json_["device"].get<std::string>());
  if (!where.empty() && device.starts_with(where)) return "";
  return fmt::format("{} was measured on {}; a ratio holds on one device only", file_, where);
}

// ---- PyTorch -----------------------------------------------------------------------------------

Peers::Peers(const std::string& file)
    : figures_(file, "scripts/peers/step.py or update.py", is_peers_file) {
  if (!figures_.given()) return;
  const Json& json = figures_.json();
  torch_ = clean("PyTorch " + json["torch"].get<std::string>());
  const auto add = [&](const std::string& mode) {
    if (std::ranges::find(modes_, mode) == modes_.end()) modes_.push_back(mode);
  };
  for (const Json& mode : json.value("modes", Json::array())) add(mode);
  for (const Json& row : json["rows"]) add(row.value("mode", ""));
}

nlohmann::ordered_json Peers::compare(const char* key, const char* unit, double ours,
                                      const std::function<bool(const Json&)>& matches,
                                      std::string_view suffix) const {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  if (!figures_.given()) return rows;
  std::vector<std::string> missing = modes_;
  std::erase_if(missing, [&](const std::string& mode) { return !mode.ends_with(suffix); });
  for (const Json& row : figures_.json()["rows"]) {
    const std::string mode = row.value("mode", "");
    if (!mode.ends_with(suffix) || !matches(row)) continue;
    rows.push_back(compared(row, key, unit, ours));
    std::erase(missing, mode);
  }
  const std::string reason = "not in " + figures_.file();
  for (const std::string& mode : missing) {
    rows.push_back(without_time(torch_ + ", " + clean(mode), key, "missing", reason));
  }
  if (rows.empty()) rows.push_back(without_time(torch_, key, "missing", reason));
  return rows;
}

nlohmann::ordered_json Peers::compared(const Json& row, const char* key, const char* unit,
                                       double ours) const {
  const std::string name = torch_ + ", " + clean(row.value("mode", ""));
  if (!row.contains(key) || !row[key].is_number()) {
    const char* const kind = row.contains("missing") ? "missing" : "error";
    return without_time(name, key, kind, clean(row.value(kind, "no time")));
  }
  const double theirs = row[key];
  const double ratio = times_ours(theirs, ours);
  fmt::print("{:<51} {:>11.4f} {}  {:.2f} times ours\n", name, theirs, unit, ratio);
  return {{"name", name}, {key, theirs}, {"ratio", ratio}};
}

void Peers::note_device(const std::string& device) const {
  const std::string note = figures_.device_note(device);
  if (!note.empty()) fmt::print("note: {}\n", note);
}

// ---- An earlier run ----------------------------------------------------------------------------

std::string_view to_string(Change change) {
  return change == Change::faster   ? "faster"
         : change == Change::slower ? "slower"
                                    : "within the spread";
}

Change change_of(const Spread& earlier, const Spread& now) {
  const double apart = std::max(earlier.largest - earlier.least, now.largest - now.least);
  if (!(std::abs(now.median - earlier.median) > apart)) return Change::within_spread;
  return now.median < earlier.median ? Change::faster : Change::slower;
}

Earlier::Earlier(const std::string& file, const std::string& bench)
    : figures_(file, "preheat bench " + bench + " --json of this version", is_bench_file) {
  if (!given()) return;
  const std::string of = text_of(figures_.json()["bench"]);
  if (of != bench) {
    throw Error(
        fmt::format("{}: was written by preheat bench {}, not by bench {}", file, of, bench));
  }
  date_ = text_of(figures_.json()["date"]);
}

std::optional<Earlier::Beside> Earlier::beside(const std::string& key, const Spread& now) const {
  if (!given()) return std::nullopt;
  const Json& all = figures_.json()["figures"];
  const auto found =
      std::ranges::find_if(all, [&](const Json& figure) { return figure["key"] == key; });
  if (found == all.end()) return std::nullopt;
  const Spread earlier{(*found)["median"], (*found)["least"], (*found)["largest"]};
  return Beside{earlier, times_ours(earlier.median, now.median), change_of(earlier, now)};
}

std::vector<std::string> Earlier::missing_from(const std::set<std::string>& keys) const {
  std::vector<std::string> missing;
  if (!given()) return missing;
  for (const Json& figure : figures_.json()["figures"]) {
    const std::string key = figure["key"];
    if (!keys.contains(key)) missing.push_back(clean(key));
  }
  return missing;
}

std::vector<std::string> Earlier::notes_before(const nlohmann::ordered_json& now) const {
  std::vector<std::string> notes;
  if (!given()) return notes;
  const Json& was = figures_.json();
  const std::string device = figures_.device_note(now["device"]);
  if (!device.empty()) notes.push_back(device);
  for (const char* version : {"preheat", "library"}) {
    if (was[version] != Json(now[version])) {
      notes.push_back(fmt::format("another version: {} {} (was {})", version, text_of(now[version]),
                                  text_of(was[version])));
    }
  }
  const std::vector<std::string> options = differences(was["options"], now["options"]);
  if (!options.empty()) {
    notes.push_back(fmt::format("other options: {}", fmt::join(options, ", ")));
  }
  if (was["interrupted"]) {
    notes.push_back(file() + " was interrupted and is incomplete");
  }
  return notes;
}

std::vector<std::string> Earlier::notes_after(const nlohmann::ordered_json& now) const {
  std::vector<std::string> notes;
  if (!given()) return notes;
  const Json& was = figures_.json();
  const std::vector<std::string> clocks = far_apart(was["clocks_mhz"], now["clocks_mhz"], " MHz");
  if (!clocks.empty()) notes.push_back(fmt::format("other clocks: {}", fmt::join(clocks, ", ")));
  if (was["clocks_mhz"].empty() || now["clocks_mhz"].empty()) {
    notes.push_back(fmt::format("the clocks {} are not known",
                                was["clocks_mhz"].empty() ? "of " + file() : "of this run"));
  }
  const std::vector<std::string> ceilings =
      far_apart(was.value("ceilings", Json::object()), now.value("ceilings", Json::object()), "");
  if (!ceilings.empty()) {
    notes.push_back(
        fmt::format("other ceilings, so the machine was faster or slower as a whole: {}",
                    fmt::join(ceilings, ", ")));
  }
  return notes;
}

}  // namespace preheat
