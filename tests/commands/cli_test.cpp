// The program as a user meets it: exit codes, standard output, standard error, files.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "experiment/find_lr.h"
#include "schedule/schedule.h"
#include "temporary_folder.h"
#include "train/fingerprint.h"
#include "train/run_folder.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr const char* tiny = R"(name: tiny
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
model:
  layers: [{conv: {out: 4}}, {max_pool: {kernel: 4}}, {linear: {out: 10}}]
schedule:
  base_lr: 0.05
  warmup: {length: 4 steps}
train: {length: 20 steps}
)";

struct Result {
  int code = -1;
  std::string out;
  std::string err;
};

class Cli : public testing::Test {
 protected:
  Cli() { put_bytes(folder_ / "tiny.yaml", tiny); }

  // Makes this process a program in the test's folder.
  [[noreturn]] void become(std::vector<std::string> arguments) {
    setenv("GOMP_SPINCOUNT", "1000", 1);
    unsetenv("PREHEAT_DATA");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    if (chdir(folder_.path().c_str()) == 0) execvp(argv[0], argv.data());
    _exit(127);
  }

  // Starts a program in the test's folder; its output goes to the files "out" and "err" there.
  pid_t start(std::vector<std::string> arguments) {
    const pid_t child = fork();
    if (child != 0) return child;
    const auto to_file = [&](const char* name, int descriptor) {
      const int file = open((folder_ / name).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      dup2(file, descriptor);
    };
    to_file("out", STDOUT_FILENO);
    to_file("err", STDERR_FILENO);
    become(std::move(arguments));
  }

  Result wait(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            bytes_of(folder_ / "out"), bytes_of(folder_ / "err")};
  }

  Result preheat(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), PREHEAT_BINARY);
    return wait(start(std::move(arguments)));
  }
  // Everything that it writes to a terminal.
  std::string preheat_on_terminal(std::vector<std::string> arguments, int columns = 80) {
    arguments.insert(arguments.begin(), PREHEAT_BINARY);
    winsize size{24, static_cast<unsigned short>(columns), 0, 0};
    int terminal = -1;
    const pid_t child = forkpty(&terminal, nullptr, nullptr, &size);
    if (child == 0) become(std::move(arguments));
    std::string text;
    char piece[4096];
    for (ssize_t n = 0; (n = read(terminal, piece, sizeof piece)) > 0;) {
      text.append(piece, static_cast<std::size_t>(n));
    }
    close(terminal);
    EXPECT_EQ(wait(child).code, 0) << text;
    return text;
  }
  Result bash(const std::string& line) { return wait(start({"bash", "-c", line})); }

  // The program where no GPU is visible: an index that does not exist hides all of them.
  Result preheat_without_gpu(const std::string& arguments) {
    return bash("CUDA_VISIBLE_DEVICES=-1 '" PREHEAT_BINARY "' " + arguments);
  }

  // Waits until `seen` or until the program has ended, and returns whether it was seen.
  template <class Seen>
  static bool comes(pid_t child, const Seen& seen) {
    const auto has_ended = [&] {
      siginfo_t info{};
      waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT);
      return info.si_pid != 0;
    };
    const auto start = std::chrono::steady_clock::now();
    while (!seen() && !has_ended()) {
      if (std::chrono::steady_clock::now() - start > std::chrono::minutes(2)) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return seen();
  }

  // Interrupts preheat while it trains into `folder`: rows in a metrics.csv there show that it
  // does. A run that ends before the signal arrives is repeated with four times the updates;
  // `length` is then that of the interrupted one, to which `arguments` gives the command line.
  template <class Arguments>
  Result interrupted_training(const std::string& folder, int& length, const Arguments& arguments) {
    for (int attempt = 0;; ++attempt, length *= 4) {
      std::vector<std::string> line = arguments(length);
      line.insert(line.begin(), PREHEAT_BINARY);
      const pid_t child = start(line);
      EXPECT_TRUE(comes(child, [&] {
        std::error_code error;
        bool has_rows = false;
        for (const auto& entry :
             std::filesystem::recursive_directory_iterator(folder_ / folder, error)) {
          has_rows |= entry.path().filename() == "metrics.csv" && entry.file_size(error) > 500;
        }
        return has_rows;
      }));
      kill(child, SIGINT);
      Result result = wait(child);
      if (result.code != 0 || attempt == 4) return result;
      std::filesystem::remove_all(folder_ / folder);
    }
  }

  // An error is exactly one line on standard error.
  static void expect_one_line(const Result& result, int code) {
    EXPECT_EQ(result.code, code) << result.err;
    EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
    EXPECT_TRUE(result.err.ends_with('\n'));
  }

  std::set<std::string> files() {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }

  TemporaryFolder folder_;
};

TEST_F(Cli, WrongUsageIsOneLineAndTwo) {
  const std::vector<std::string> wrong[] = {
      {},
      {"trian", "tiny.yaml"},
      {"train"},
      {"train", "tiny.yaml", "--bogus"},
      {"train", "tiny.yaml", "more.yaml"},
      {"train", "tiny.yaml", "--device", "bogus"},
      {"train", "tiny.yaml", "--seed", "abc"},
      {"train", "tiny.yaml", "--seed", "-1"},
      {"train", "tiny.yaml", "--seed", "1.5"},
      {"train", "tiny.yaml", "--seed", "18446744073709551616"},
      {"train", "tiny.yaml", "--quiet", "--verbose"},
      {"train", "tiny.yaml", "--out", "a", "--resume", "b"},
      {"schedule", "tiny.yaml", "--csv"},
      {"train", "tiny.yaml", "--set"},
      {"train", "tiny.yaml", "--set", "nonsense"},
      {"train", "tiny.yaml", "--set", "seed=abc"},
      {"train", "missing.yaml"},
      {"compare", "tiny.yaml"}};
  for (const auto& arguments : wrong) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(arguments, " ")));
    expect_one_line(preheat(arguments), 2);
  }
  EXPECT_THAT(preheat({"train", "missing.yaml"}).err, StartsWith("missing.yaml: "));
  EXPECT_THAT(preheat({"train", "tiny.yaml", "--seed", "abc"}).err,
              AllOf(HasSubstr("--seed"), HasSubstr("abc")));
  EXPECT_THAT(preheat({"train", "tiny.yaml", "--device", "bogus"}).err,
              AllOf(HasSubstr("--device"), HasSubstr("bogus")));
  EXPECT_THAT(preheat({"compare", "tiny.yaml"}).err,
              AllOf(HasSubstr("compare"), HasSubstr("arms:")));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs"));
}

TEST_F(Cli, WhatTheCpuDoesNotComputeInIsAnErrorBeforeAnythingIsMade) {
  put_bytes(folder_ / "p.yaml", "# a comment\ntrain:\n  precision: bf16\n");
  const Result result = preheat({"train", "p.yaml", "--device", "cpu"});
  expect_one_line(result, 2);
  EXPECT_EQ(result.err,
            "p.yaml:3:3: train.precision: the CPU computes in fp32; bf16 needs --device cuda\n");
  // Nor are data read before.
  const Result without_data = preheat({"train", "p.yaml", "--device", "cpu", "--set",
                                       "data.dataset=mnist", "--set", "data.dir=nowhere"});
  expect_one_line(without_data, 2);
  EXPECT_EQ(without_data.err, result.err);
  for (const char* other : {"tf32", "fp16"}) {
    const std::string setting = fmt::format("train.precision={}", other);
    const Result set = preheat({"train", "tiny.yaml", "--device", "cpu", "--set", setting});
    expect_one_line(set, 2);
    EXPECT_THAT(set.err, AllOf(HasSubstr(setting), HasSubstr(fmt::format("; {} needs", other))));
  }
  // One such arm of an experiment is enough, and no run starts.
  put_bytes(folder_ / "e.yaml",
            std::string(tiny) +
                "compare: {seeds: 1, arms: {a: {}, b: {train.precision: bf16}}}\n"
                "sweep: {seeds: 1, axes: {train.precision: [fp32, bf16]}}\n"
                "find_lr: {seeds: 1, arms: {a: {}, b: {train.precision: bf16}}}\n");
  for (const std::string command : {"compare", "sweep", "find-lr"}) {
    SCOPED_TRACE(command);
    const Result experiment = preheat({command, "e.yaml", "--device", "cpu"});
    expect_one_line(experiment, 2);
    EXPECT_THAT(experiment.err, HasSubstr("the CPU computes in fp32"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs"));
}

TEST_F(Cli, HelpAndVersionAreNoErrors) {
  const Result help = preheat({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_EQ(help.err, "");
  EXPECT_THAT(help.out, AllOf(HasSubstr("train"), HasSubstr("compare"), HasSubstr("schedule"),
                              HasSubstr("info")));
  EXPECT_EQ(preheat({"train", "--help"}).code, 0);
  EXPECT_EQ(preheat({"--version"}).out, "preheat " PREHEAT_VERSION "\n");
}

TEST_F(Cli, WrongYamlNamesItsPlace) {
  put_bytes(folder_ / "bad.yaml", "schedule:\n  base_lr: fast\n");
  Result result = preheat({"train", "bad.yaml"});
  expect_one_line(result, 2);
  EXPECT_THAT(result.err, StartsWith("bad.yaml:2:3: schedule.base_lr: "));
  put_bytes(folder_ / "bad.yaml", "schedule: {base_lr: 0.1\ntrain: [\n");
  result = preheat({"schedule", "bad.yaml"});
  expect_one_line(result, 2);
  EXPECT_THAT(result.err, testing::ContainsRegex("^bad.yaml:[0-9]+:[0-9]+: "));
  result = preheat({"schedule", "tiny.yaml", "--set", "schedule.warmup.length=2 epochz"});
  expect_one_line(result, 2);
  EXPECT_THAT(result.err,
              HasSubstr("--set schedule.warmup.length=2 epochz: schedule.warmup.length: "));
  result = preheat({"train", "tiny.yaml", "--set", "model.layers.1.max_pool.kernel=16", "--set",
                    "model.layers.2={max_pool: {kernel: 2}}"});
  expect_one_line(result, 2);
  EXPECT_THAT(result.err, HasSubstr("layer '2': max_pool"));
  EXPECT_EQ(result.out, "");
  result = preheat({"schedule", "tiny.yaml", "--set", "schedule.base_lr=0.1", "--set",
                    "schedule={warmup: {length: 2 steps}}"});
  expect_one_line(result, 2);
  EXPECT_THAT(result.err, HasSubstr("write the section first, then schedule.base_lr"));
}

TEST_F(Cli, CudaThatIsNotThereIsAnError) {
  const Result result = preheat_without_gpu("train tiny.yaml --device cuda");
  expect_one_line(result, 1);
  EXPECT_THAT(result.err, AllOf(HasSubstr("CUDA"), HasSubstr("--device cpu")));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs"));
}

// The reason is the one that --device cuda gives.
TEST_F(Cli, WhyTheCpuWasTakenIsSaid) {
  const Result cuda = preheat_without_gpu("train tiny.yaml --device cuda --out cuda");
  const std::string begin = "preheat: ";
  ASSERT_THAT(cuda.err, StartsWith(begin));
  const std::string reason = cuda.err.substr(begin.size(), cuda.err.find(';') - begin.size());
  const Result taken = preheat_without_gpu("train tiny.yaml --out auto");
  EXPECT_EQ(taken.code, 0) << taken.err;
  EXPECT_THAT(taken.out, HasSubstr(" (--device auto took the CPU: " + reason + ")\n"));
  EXPECT_THAT(preheat({"train", "tiny.yaml", "--out", "cpu", "--device", "cpu"}).out,
              Not(HasSubstr("took the CPU")));
}

// --device cuda never falls back: the run is on a GPU, and says so, or it is an error.
TEST_F(Cli, CudaIsAGpuOrAnError) {
  const Result cuda = preheat({"train", "tiny.yaml", "--device", "cuda", "--out", "cuda"});
  if (cuda.code != 0) {
    expect_one_line(cuda, 1);
    EXPECT_THAT(cuda.err, HasSubstr("; use --device cpu\n"));
    EXPECT_FALSE(std::filesystem::exists(folder_ / "cuda"));
    return;
  }
  // Of the driver, natively and in WSL.
  EXPECT_TRUE(std::filesystem::exists("/dev/nvidiactl") || std::filesystem::exists("/dev/dxg"));
  EXPECT_THAT(cuda.out, testing::ContainsRegex("(^|\n)device: [^\n]*, CUDA [0-9.]+, cuDNN "));
  const auto summary = nlohmann::json::parse(bytes_of(folder_ / "cuda/summary.json"));
  EXPECT_THAT(summary["library"].get<std::string>(), StartsWith("CUDA "));
  EXPECT_THAT(preheat({"train", "tiny.yaml", "--out", "auto"}).out,
              AllOf(HasSubstr(", cuDNN "), Not(HasSubstr("took the CPU"))));
}

TEST_F(Cli, VerbosePrintsWhatItsHelpSays) {
  EXPECT_THAT(preheat({"train", "--help"}).out, HasSubstr("every layer"));
  EXPECT_THAT(preheat({"train", "tiny.yaml", "--out", "loud", "--verbose"}).out,
              AllOf(HasSubstr("data: "), HasSubstr("0.conv.weight"), HasSubstr("2.linear.bias")));
  EXPECT_THAT(preheat({"train", "tiny.yaml", "--out", "usual"}).out,
              AllOf(Not(HasSubstr("data: ")), Not(HasSubstr("0.conv.weight"))));
  put_bytes(folder_ / "c.yaml", std::string(tiny) + "compare: {seeds: 2, arms: {a: {}}}\n");
  EXPECT_THAT(preheat({"compare", "--help"}).out,
              AllOf(HasSubstr("memory"), Not(HasSubstr("every layer"))));
  const std::string loud = preheat({"compare", "c.yaml", "--out", "c", "--verbose"}).out;
  EXPECT_THAT(loud, AllOf(HasSubstr("memory: "), HasSubstr("20/20")));
  EXPECT_EQ(loud.find("memory: "), loud.rfind("memory: "));
  EXPECT_THAT(preheat({"compare", "c.yaml", "--out", "d", "--set", "compare.seeds=1"}).out,
              AllOf(Not(HasSubstr("memory: ")), Not(HasSubstr("20/20"))));
}

TEST_F(Cli, ADivergedRunIsThree) {
  const Result result =
      preheat({"train", "tiny.yaml", "--device", "cpu", "--out", "run", "--set",
               "schedule.base_lr=1e12", "--set", "schedule.warmup.length=0 steps"});
  expect_one_line(result, 3);
  EXPECT_THAT(result.err, AllOf(HasSubstr("diverged"), HasSubstr("not finite at step"),
                                HasSubstr("(learning rate "), HasSubstr("phase decay")));
  const auto summary = nlohmann::json::parse(bytes_of(folder_ / "run/summary.json"));
  EXPECT_EQ(summary["outcome"], "non_finite");
  // Some image of two batches is classified rightly, and then comes the base rate.
  const Result opened =
      preheat({"train", "tiny.yaml", "--device", "cpu", "--out", "gate", "--set",
               "schedule.base_lr=1e12", "--set",
               "schedule.warmup={shape: constant, start_lr: 0.01, length: 12 steps, until: "
               "{train_error_below: 1, window: 2 steps}}"});
  expect_one_line(opened, 3);
  EXPECT_THAT(opened.err, testing::ContainsRegex("learning rate [0-9.]+e\\+11, phase decay"));
  EXPECT_THAT(opened.out, AllOf(HasSubstr(", at most W = 12 of them warmup, "),
                                HasSubstr("\nwarmup          ended early, before update 2\n")));
}

TEST_F(Cli, ARunSaysHowLongItIsAndHowMuchOfThatIsWarmup) {
  const auto out = [&](const std::string& length) {
    return preheat({"train", "tiny.yaml", "--out", length.substr(0, 1), "--set",
                    "schedule.warmup.length=" + length})
        .out;
  };
  // 320 images in batches of 32.
  for (const char* length : {"5 steps", "25%"}) {
    EXPECT_THAT(out(length),
                HasSubstr(" parameters, T = 20 updates of 32 images (10 an epoch), W = "
                          "5 of them warmup, base learning rate 5.00e-02\n"));
  }
  EXPECT_THAT(out("1 epochs"), HasSubstr(" (10 an epoch), W = 10 of them warmup, base"));
  EXPECT_THAT(out("0 steps"), HasSubstr("T = 20 updates of 32 images (10 an epoch), base"));
}

TEST_F(Cli, PipedOutputIsPlainAndQuietIsSilent) {
  const Result loud = preheat({"train", "tiny.yaml", "--out", "loud", "--seed", "5", "--verbose"});
  EXPECT_EQ(loud.code, 0) << loud.err;
  EXPECT_EQ(loud.err, "");
  EXPECT_THAT(loud.out, Not(HasSubstr("\033")));
  EXPECT_THAT(loud.out, Not(HasSubstr("\r")));
  EXPECT_THAT(loud.out, AllOf(HasSubstr("test accuracy"), HasSubstr("20/20"), HasSubstr("warmup"),
                              HasSubstr("e-02"), Not(HasSubstr("0.000000"))));
  const Result quiet = preheat({"train", "tiny.yaml", "--out", "quiet", "--seed", "5", "--quiet"});
  EXPECT_EQ(quiet.code, 0);
  EXPECT_EQ(quiet.out, "");
  EXPECT_EQ(quiet.err, "");
  EXPECT_EQ(bytes_of(folder_ / "loud/metrics.csv"), bytes_of(folder_ / "quiet/metrics.csv"));
  EXPECT_THAT(bytes_of(folder_ / "quiet/config.yaml"), HasSubstr("seed: 5\n"));
}

// The lines that a terminal shows in the end, and the widest bar that was drawn on the way.
struct Screen {
  std::vector<std::string> lines{""};
  std::size_t bars = 0;
  std::ptrdiff_t widest_bar = 0;

  explicit Screen(const std::string& written) {
    for (std::size_t i = 0; i < written.size(); ++i) {
      if (written.compare(i, 4, "\r\033[K") == 0) {  // back to the start of the line, and erase it
        note_bar();
        lines.back().clear();
        i += 3;
      } else if (written[i] == '\n') {
        lines.emplace_back();
      } else if (written[i] != '\r') {
        lines.back() += written[i];
      }
    }
  }

 private:
  void note_bar() {
    if (lines.back().empty()) return;
    ++bars;
    widest_bar = std::max(widest_bar, std::ssize(lines.back()));
  }
};

TEST_F(Cli, ATerminalShowsABarThatFitsAndVanishes) {
  put_bytes(folder_ / "two.yaml",
            std::string(tiny) +
                "compare: {seeds: 3, arms: {a: {}, b: {schedule.base_lr: 0.04}}}\n" +
                "find_lr: {seeds: 6, first: 0.1, resolution: 8, loss_below: 1, arms: {a: {}}}\n");
  const std::pair<std::string, std::string> commands[] = {
      {"train", "tiny.yaml"}, {"compare", "two.yaml"}, {"find-lr", "two.yaml"}};
  for (const auto& [command, file] : commands) {
    for (const int columns : {200, 60, 12}) {
      const Screen screen(preheat_on_terminal(
          {command, file, "--set", "train.length=60 steps", "--set", "train.cpu_threads=1"},
          columns));
      EXPECT_GT(screen.bars, 0u) << command;
      EXPECT_LT(screen.widest_bar, columns) << command;
      EXPECT_THAT(screen.lines, Contains(testing::EndsWith("report.html"))) << command;
      EXPECT_THAT(screen.lines, Each(AllOf(Not(StartsWith("[")), Not(HasSubstr(" left")),
                                           Not(HasSubstr("side by side")))))
          << command;
      const auto searches = std::ranges::count_if(screen.lines, [](const std::string& line) {
        return line.starts_with("seed ") && line.find(" a: trains at ") != std::string::npos;
      });
      EXPECT_EQ(searches, command == "find-lr" ? 6 : 0);
    }
  }
}

TEST_F(Cli, OnATerminalABarIsDrawnOver) {
  EXPECT_THAT(preheat_on_terminal({"train", "tiny.yaml", "--out", "run"}),
              AllOf(HasSubstr("\r\033[K["), HasSubstr("#] tiny 100%  20/20  loss ")));
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "runs are one after the other";
  put_bytes(folder_ / "c.yaml", std::string(tiny) + "compare: {seeds: 6, arms: {a: {}}}\n");
  const auto begin = std::chrono::steady_clock::now();
  const std::string text =
      preheat_on_terminal({"compare", "c.yaml", "--out", "c", "--set", "train.cpu_threads=1"});
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  // "[####----]  20%  2 runs side by side, 1 ended of 6  0:03 left"
  int drawn = 0;
  double max_under_way = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line, '\r');) {
    const std::size_t at = line.find("] ");
    if (line.find("side by side") == std::string::npos || at == std::string::npos) continue;
    int percent = 0;
    int runs = 0;
    int ended = 0;
    ASSERT_EQ(std::sscanf(line.c_str() + at + 1, "%d%% %d runs side by side, %d ended of 6",
                          &percent, &runs, &ended),
              3)
        << line;
    const double under_way = percent - 100.0 * ended / 6;
    EXPECT_GE(under_way, -0.5) << line;
    EXPECT_LE(under_way, 100.0 * runs / 6 + 0.5) << line;
    EXPECT_LE(runs + ended, 6) << line;
    max_under_way = std::max(max_under_way, under_way);
    ++drawn;
  }
  EXPECT_GT(max_under_way, 0.5);
  EXPECT_GE(drawn, 1);
  EXPECT_LE(drawn, 1 + 10 * seconds.count());  // at most every 100 ms
}

TEST_F(Cli, TheDefaultFolderIsNamedAfterTheRunAndTheSeed) {
  EXPECT_EQ(preheat({"train", "tiny.yaml", "--seed", "17", "--quiet"}).code, 0);
  int folders = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "runs/tiny")) {
    EXPECT_THAT(entry.path().filename().string(), testing::EndsWith("-17"));
    ++folders;
  }
  EXPECT_EQ(folders, 1);
}

TEST_F(Cli, AFolderThatIsNotEmptyIsRefused) {
  std::filesystem::create_directory(folder_ / "run");
  put_bytes(folder_ / "run/precious", "x");
  const Result result = preheat({"train", "tiny.yaml", "--out", "run", "--quiet"});
  expect_one_line(result, 1);
  EXPECT_THAT(result.err, HasSubstr("run: is not empty"));
  EXPECT_EQ(bytes_of(folder_ / "run/precious"), "x");
}

TEST_F(Cli, MissingDataNamesThePlaces) {
  const Result given = preheat({"train", "tiny.yaml", "--quiet", "--set", "data.dataset=mnist",
                                "--set", "data.dir=nowhere"});
  expect_one_line(given, 1);
  EXPECT_THAT(given.err, HasSubstr("nowhere"));
  const std::string installed = "/usr/share/datasets/cifar10";
  if (std::filesystem::exists(installed)) GTEST_SKIP() << installed << " exists";
  const Result result = bash(
      "PREHEAT_DATA=elsewhere "
      "'" PREHEAT_BINARY
      "'"
      " train tiny.yaml --quiet --set data.dataset=cifar10");
  expect_one_line(result, 1);
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("data/cifar10"), HasSubstr("elsewhere"), HasSubstr(installed)));
}

TEST_F(Cli, ScheduleAsCsv) {
  const std::string text =
      "schedule: {base_lr: 0.3, warmup: {length: 7 steps, endpoints: start},\n"
      "  hold: 2 steps, decay: {shape: power, power: 1.7, final_lr: 1e-5}}\n"
      "data: {batch_size: 6000}\ntrain: {length: 23 steps}\n";
  put_bytes(folder_ / "s.yaml", text);
  const RunConfig config = read_config(parse_document(text, "s.yaml"));
  const Schedule schedule = resolve_schedule(config, {23, 10});
  std::string expected = "step,epoch,phase,lr\n";
  double sum = 0;
  for (int k = 0; k < 23; ++k) {
    char lr[64];
    std::snprintf(lr, sizeof lr, "%.17g", lr_at(schedule.lr, k));
    EXPECT_EQ(std::strtod(lr, nullptr), lr_at(schedule.lr, k));
    sum += lr_at(schedule.lr, k);
    expected += fmt::format("{},{},{},{}\n", k, k / 10,
                            k < 7   ? "warmup"
                            : k < 9 ? "hold"
                                    : "decay",
                            lr);
  }
  const Result piped = preheat({"schedule", "s.yaml", "--csv", "-"});
  EXPECT_EQ(piped.code, 0);
  EXPECT_EQ(piped.out, expected);
  EXPECT_EQ(piped.err, "");
  const Result filed = preheat({"schedule", "s.yaml", "--csv", "lr.csv", "--svg", "lr.svg"});
  EXPECT_EQ(filed.code, 0) << filed.err;
  EXPECT_EQ(bytes_of(folder_ / "lr.csv"), expected);
  const std::string svg = bytes_of(folder_ / "lr.svg");
  EXPECT_THAT(svg, AllOf(HasSubstr("<svg"), HasSubstr("warmup"), HasSubstr("</svg>")));
  EXPECT_THAT(filed.out, AllOf(testing::ContainsRegex("\nwarmup +0 .. 6 +0.7 "),
                               testing::ContainsRegex("\ndecay +9 .. 22 +1.4 "),
                               HasSubstr(fmt::format("\nsum of rates {:.6g}, mean ", sum)),
                               Not(HasSubstr("\033"))));
  const Result both = preheat({"schedule", "s.yaml", "--csv", "-", "--svg", "lr2.svg"});
  EXPECT_EQ(both.out, expected);
  EXPECT_EQ(bytes_of(folder_ / "lr2.svg"), svg);
}

// No input file is overwritten, and no two outputs go to the same file.
TEST_F(Cli, AFileToBeWrittenIsNoOtherOnes) {
  std::filesystem::create_symlink("tiny.yaml", folder_ / "link.yaml");
  put_bytes(folder_ / "other.yaml", "train: {length: 5 steps}\n");
  const std::string absolute = (folder_ / "new").string();
  const std::vector<std::string> wrong[] = {
      {"schedule", "tiny.yaml", "--csv", "tiny.yaml"},
      {"schedule", "tiny.yaml", "--csv", "./tiny.yaml"},
      {"schedule", "tiny.yaml", "--svg", "link.yaml"},
      {"schedule", "other.yaml", "tiny.yaml", "--svg", "tiny.yaml"},
      {"schedule", "tiny.yaml", "--csv", "new", "--svg", "new"},
      {"schedule", "tiny.yaml", "--csv", "new", "--svg", absolute},
      {"bench", "step", "tiny.yaml", "--json", "tiny.yaml"},
      {"bench", "step", "tiny.yaml", "--html", "link.yaml"},
      {"bench", "step", "tiny.yaml", "--json", "new", "--html", absolute}};
  for (const auto& arguments : wrong) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(arguments, " ")));
    const Result result = preheat(arguments);
    expect_one_line(result, 2);
    EXPECT_THAT(result.err, HasSubstr("is the same file as"));
    EXPECT_EQ(bytes_of(folder_ / "tiny.yaml"), tiny);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "new"));
  }
  // One configuration may be read twice.
  EXPECT_EQ(preheat({"schedule", "tiny.yaml", "tiny.yaml", "--csv", "-"}).code, 0);
}

TEST_F(Cli, SchedulesAreCompared) {
  put_bytes(folder_ / "a.yaml",
            "name: own\nschedule: {base_lr: 0.1, warmup: {length: 5 steps, endpoints: start}}\n"
            "train: {length: 20 steps}\n");
  put_bytes(folder_ / "b.yaml",
            "name: own\nschedule: {base_lr: 0.1, warmup: {length: 5 steps, endpoints: start,\n"
            "  start_lr: 1e-5, overlap: true}}\ntrain: {length: 30 steps}\n");
  const Result both =
      preheat({"schedule", "a.yaml", "b.yaml", "--svg", "both.svg", "--csv", "both.csv"});
  EXPECT_EQ(both.code, 0) << both.err;
  EXPECT_EQ(both.err, "");
  // Configurations of the same name are labelled by their files.
  EXPECT_THAT(
      both.out,
      AllOf(HasSubstr("a: T = 20 updates"), HasSubstr("W = 5"), HasSubstr("b: T = 30 updates"),
            HasSubstr("a and b first differ at update 0: 0 and 1.00e-05"),
            HasSubstr("over the first 20 updates"), HasSubstr("note: the first update has rate 0"),
            HasSubstr("sum of rates")));
  EXPECT_THAT(bytes_of(folder_ / "both.svg"), AllOf(HasSubstr(">a<"), HasSubstr(">b<")));
  const std::string csv = bytes_of(folder_ / "both.csv");
  EXPECT_THAT(csv, StartsWith("name,step,epoch,phase,lr\na,0,0,warmup,0\n"));
  EXPECT_EQ(std::ranges::count(csv, '\n'), 51);
  const Result same = preheat({"schedule", "a.yaml", "a.yaml", "--set", "name=one"});
  EXPECT_THAT(same.out, HasSubstr("a.yaml and a.yaml are the same"));
  // No percentage of zero.
  put_bytes(folder_ / "zero.yaml", "schedule: {phases: [{shape: constant, from: 0}]}\n");
  EXPECT_THAT(preheat({"schedule", "zero.yaml", "a.yaml", "--set", "train.length=20 steps"}).out,
              HasSubstr("furthest apart at update 5: 0 and 9.89e-02\n"));
  std::filesystem::create_directory(folder_ / "a, b");
  put_bytes(folder_ / "a, b/a.yaml", "name: own\n");
  EXPECT_THAT(preheat({"schedule", "a.yaml", "a, b/a.yaml", "--csv", "-", "--set",
                       "train.length=1 step", "--set", "schedule.warmup.length=0 steps"})
                  .out,
              AllOf(HasSubstr("\na.yaml,0,0,"), HasSubstr("\na__b/a.yaml,0,0,")));
  // A --set applies to all of them.
  EXPECT_THAT(preheat({"schedule", "a.yaml", "b.yaml", "--set", "train.length=7 steps"}).out,
              AllOf(HasSubstr("a: T = 7 updates"), HasSubstr("b: T = 7 updates")));
}

TEST_F(Cli, ScheduleDrawsInTheSizeItIsAsked) {
  const Result small = preheat({"schedule", "tiny.yaml", "--svg", "s.svg", "--size", "240x120"});
  EXPECT_EQ(small.code, 0) << small.err;
  EXPECT_THAT(bytes_of(folder_ / "s.svg"),
              AllOf(HasSubstr("width=\"240\""), HasSubstr("height=\"120\"")));
  EXPECT_THAT(bytes_of(folder_ / "s.svg"), Not(HasSubstr("warmup")));
  for (const auto& [size, has_words] : {std::pair("120x80", false), std::pair("300x199", false),
                                        std::pair("300x200", true), std::pair("880x10000", true)}) {
    ASSERT_EQ(preheat({"schedule", "tiny.yaml", "--svg", "s.svg", "--size", size}).code, 0) << size;
    EXPECT_EQ(bytes_of(folder_ / "s.svg").find("learning rate") != std::string::npos, has_words)
        << size;
  }
  for (const char* size : {"240", "x", "240x120x", "10x10", "240x-1", "119x80", "120x79",
                           "10001x80", "120x10001", "99999x99999"}) {
    const Result wrong = preheat({"schedule", "tiny.yaml", "--svg", "t.svg", "--size", size});
    expect_one_line(wrong, 2);
    EXPECT_THAT(wrong.err, HasSubstr(size));
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ / "t.svg"));
}

TEST_F(Cli, ScheduleDrawsALogarithmicAxisIfAsked) {
  for (const bool log : {false, true}) {
    std::vector<std::string> arguments = {"schedule", "tiny.yaml", "--svg", "s.svg"};
    if (log) arguments.push_back("--log");
    const Result result = preheat(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    // The last update but one has a hundredth of the base rate.
    for (const std::string& plot : {result.out, bytes_of(folder_ / "s.svg")}) {
      EXPECT_EQ(plot.find("5e-04") != std::string::npos, log) << plot;
    }
  }
}

// In a pipe lines have 80 columns: a row with its words, or the words below it.
TEST_F(Cli, ScheduleSaysWhatItDoesInEightyColumns) {
  for (const int name : {7, 10, 11, 12, 13, 14, 15, 16}) {
    put_bytes(folder_ / "s.yaml",
              fmt::format("schedule: {{base_lr: 0.1, phases: [{{name: {}, shape: linear, length: "
                          "9 steps}}, {{shape: cosine, from: base, to: 0, period: 10 steps, "
                          "multiply: 1.5, peak_factor: 0.5, rewarmup: 1 steps, every: epoch, "
                          "min_lr: 1e-3}}]}}\ntrain: {{length: 9000 steps}}\n",
                          std::string(name, 'n')));
    const std::string text = preheat({"schedule", "s.yaml"}).out;
    std::istringstream plan(text.substr(0, text.find("\n\nsum of rates")));
    const std::string words = "linear from 0 to 1.00e-01";
    int rows = 0;
    for (std::string line; std::getline(plan, line);) {
      EXPECT_LE(line.size(), 80u) << line;
      if (!line.ends_with(words)) continue;
      EXPECT_EQ(line == "    " + words, name > 13) << line;
      ++rows;
    }
    EXPECT_EQ(rows, 1);
  }
}

// Of a long run not every update is drawn, but the first and the last of every phase.
TEST_F(Cli, ScheduleDrawsTheEndsOfShortPhases) {
  for (const char* spike : {"from: 1, to: 0.1, endpoints: start", "from: 0.1, to: 1"}) {
    put_bytes(folder_ / "s.yaml",
              fmt::format("schedule: {{phases: [{{shape: constant, from: 0.1, length: 13 steps}}, "
                          "{{shape: linear, {}, length: 9 steps}}, {{shape: constant, from: "
                          "0.1}}]}}\ntrain: {{length: 100000 steps}}\n",
                          spike));
    EXPECT_THAT(preheat({"schedule", "s.yaml"}).out, HasSubstr("\n1.0 ┤")) << spike;
  }
}

// Of the cycles of a long run so many fall between two drawn updates that their lines fill the
// plot.
TEST_F(Cli, ScheduleDrawsTheEndsOfShortCycles) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  for (const auto period : {std::uint64_t{250}, 20 + random() % 480}) {
    put_bytes(folder_ / "s.yaml",
              fmt::format("schedule: {{decay: {{shape: cosine, period: {} steps}}}}\n"
                          "train: {{length: 1000000 steps}}\n",
                          period));
    const std::string plan = preheat({"schedule", "s.yaml"}).out;
    int full = 0;  // of 16 rows of 74 characters
    const std::string dots = "⣿";
    for (auto at = plan.find(dots); at != std::string::npos; at = plan.find(dots, at + 1)) ++full;
    EXPECT_GT(full, 800) << period << "\n" << plan;
  }
}

TEST_F(Cli, ThePicturesOfTheDocsAreThePrograms) {
  const std::filesystem::path shapes = std::filesystem::path(PREHEAT_SOURCE_DIR) / "docs/shapes";
  const std::string docs = bytes_of(shapes.parent_path() / "schedules.md");
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(shapes)) {
    std::filesystem::path path = entry.path();
    if (path.extension() != ".yaml") continue;
    const Result drawn =
        preheat({"schedule", path.string(), "--svg", "drawn.svg", "--size", "200x100"});
    EXPECT_EQ(drawn.code, 0) << drawn.err;
    path.replace_extension(".svg");
    EXPECT_EQ(bytes_of(folder_ / "drawn.svg"), bytes_of(path)) << path;
    EXPECT_THAT(docs, HasSubstr("(shapes/" + path.filename().string() + ")"));
    ++count;
  }
  EXPECT_GE(count, 20);
  for (const ShapeFacts& facts : shape_facts) {
    EXPECT_THAT(docs, HasSubstr(fmt::format("(shapes/{}.svg)", facts.name)));
  }
}

TEST_F(Cli, TheComparisonOfTheDocsIsWhatItPrints) {
  const std::string presets = PREHEAT_SOURCE_DIR "/configs/schedules/";
  const Result result =
      preheat({"schedule", presets + "transformers-cosine.yaml", presets + "timm-cosine.yaml",
               "--set", "train.length=20 epochs", "--set", "schedule.warmup.length=5 epochs",
               "--set", "schedule.base_lr=0.1", "--set", "schedule.scale=null"});
  const std::string docs = bytes_of(PREHEAT_SOURCE_DIR "/docs/schedules.md");
  const auto begin = docs.find("\nnote: from warmup to decay the rate jumps");
  ASSERT_NE(begin, std::string::npos);
  std::istringstream block(docs.substr(begin + 1, docs.find("```", begin) - begin - 1));
  for (std::string line; std::getline(block, line);) {
    if (line == "...") continue;
    EXPECT_THAT(result.out, HasSubstr(line + "\n"));
  }
}

TEST_F(Cli, ScheduleShowsWhatAGateDoes) {
  put_bytes(folder_ / "gate.yaml",
            "name: gate\nschedule:\n  base_lr: 0.1\n  warmup: {shape: constant, start_lr: 0.01,\n"
            "    until: {train_error_below: 0.8, window: 4 steps, at_most: 12 steps}}\n"
            "train: {length: 20 steps}\n");
  EXPECT_THAT(preheat({"schedule", "gate.yaml"}).out,
              AllOf(HasSubstr("0 .. 11"), HasSubstr("12 .. 19"), HasSubstr("below 0.8")));
  const Result opened = preheat({"schedule", "gate.yaml", "--gate-opens", "6"});
  EXPECT_THAT(opened.out, AllOf(HasSubstr("0 .. 5"), HasSubstr("6 .. 19")));
  const Result csv = preheat({"schedule", "gate.yaml", "--gate-opens", "6", "--csv", "-"});
  EXPECT_THAT(csv.out, AllOf(HasSubstr("5,0,warmup,"), HasSubstr("6,0,decay,"),
                             HasSubstr("19,0,decay,0\n")));
  for (const char* when : {"4", "12"}) {
    EXPECT_EQ(preheat({"schedule", "gate.yaml", "--gate-opens", when}).code, 0) << when;
  }
  for (const char* when : {"3", "13", "-1", "x"}) {
    expect_one_line(preheat({"schedule", "gate.yaml", "--gate-opens", when}), 2);
  }
  const Result none = preheat({"schedule", "tiny.yaml", "--gate-opens", "6"});
  expect_one_line(none, 2);
  EXPECT_THAT(none.err, HasSubstr("schedule.warmup.until"));
  // Compared with a schedule without a gate.
  const Result beside = preheat({"schedule", "gate.yaml", "tiny.yaml", "--gate-opens", "6"});
  EXPECT_EQ(beside.code, 0) << beside.err;
  EXPECT_THAT(beside.out, HasSubstr("gate and tiny first differ at update 0"));
}

TEST_F(Cli, ScheduleNeedsNoData) {
  put_bytes(folder_ / "s.yaml", "data: {dataset: cifar10}\ntrain: {length: 2 epochs}\n");
  const Result result = preheat({"schedule", "s.yaml", "--csv", "-"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(std::ranges::count(result.out, '\n'), 1 + 2 * (50'000 / 128));
}

TEST_F(Cli, AFullDiskHarmsNothing) {
  put_bytes(folder_ / "lr.csv", "precious");
  put_bytes(folder_ / "lr.svg", "precious too");
  // Files may grow to 8 KiB; writes beyond that fail as on a full disk.
  const std::string limited =
      "trap '' XFSZ; ulimit -f 8; "
      "'" PREHEAT_BINARY "' ";
  const auto before = files();
  Result result = bash(limited + "schedule tiny.yaml --set 'train.length=4000 steps' --csv lr.csv");
  expect_one_line(result, 1);
  EXPECT_THAT(result.err, AllOf(HasSubstr("lr.csv"), HasSubstr("cannot be written")));
  result = bash(limited + "schedule tiny.yaml --set 'train.length=4000 steps' --svg lr.svg");
  expect_one_line(result, 1);
  EXPECT_EQ(bytes_of(folder_ / "lr.csv"), "precious");
  EXPECT_EQ(bytes_of(folder_ / "lr.svg"), "precious too");
  auto after = files();
  after.erase("out");
  after.erase("err");
  EXPECT_EQ(after, before);  // no temporary file stays behind

  result = bash(limited + "train tiny.yaml --quiet --out run --set 'train.length=200 steps'");
  expect_one_line(result, 1);
  EXPECT_THAT(result.err, AllOf(HasSubstr("run/"), HasSubstr("File too large")));
}

TEST_F(Cli, FullStandardOutputIsAnError) {
  expect_one_line(bash("'" PREHEAT_BINARY "' schedule tiny.yaml --csv - > /dev/full"), 1);
  expect_one_line(bash("'" PREHEAT_BINARY "' schedule tiny.yaml > /dev/full"), 1);
  expect_one_line(bash("'" PREHEAT_BINARY "' info > /dev/full"), 1);
  // Nothing is left to be written at its end, where the reason of an earlier failure is not known.
  EXPECT_EQ(bash("'" PREHEAT_BINARY "' bench schedule --quick --device cpu > /dev/full").err,
            "preheat: standard output: cannot be written\n");
}

TEST_F(Cli, AnInterruptedRunGoesOn) {
  const auto with_length = [](std::vector<std::string> arguments, int length) {
    for (const char* key : {"train.length", "train.eval_every"}) {
      arguments.insert(arguments.end(), {"--set", fmt::format("{}={} steps", key, length)});
    }
    return arguments;
  };
  int length = 600;
  const Result cut = interrupted_training("run", length, [&](int steps) {
    return with_length({"train", "tiny.yaml", "--out", "run"}, steps);
  });
  expect_one_line(cut, 1);
  EXPECT_THAT(cut.err, AllOf(HasSubstr("interrupted after"), HasSubstr("--resume run")));
  const auto summary = nlohmann::json::parse(bytes_of(folder_ / "run/summary.json"));
  EXPECT_EQ(summary["interrupted"], true);
  EXPECT_LT(summary["steps"], length);

  const Result done =
      preheat(with_length({"train", "tiny.yaml", "--resume", "run", "--quiet"}, length));
  EXPECT_EQ(done.code, 0) << done.err;
  const auto finished = nlohmann::json::parse(bytes_of(folder_ / "run/summary.json"));
  EXPECT_EQ(finished["interrupted"], false);
  EXPECT_EQ(finished["steps"], length);
  EXPECT_EQ(std::ranges::count(bytes_of(folder_ / "run/metrics.csv"), '\n'), length + 1);
}

// As `preheat train tiny.yaml | head -1` once head has ended.
TEST_F(Cli, ARunWhoseOutputNobodyReadsIsSaved) {
  const std::string settings =
      "tiny.yaml --set 'train.length=600 steps' --set 'train.eval_every=600 steps'";
  const std::string unread = "exec 3> >(exec true); wait $!; ";
  const Result cut = bash(unread + "'" PREHEAT_BINARY "' train " + settings + " --out run >&3");
  EXPECT_EQ(cut.code, 1);
  EXPECT_THAT(cut.err, AllOf(HasSubstr("interrupted after"), HasSubstr("--resume run"),
                             HasSubstr("standard output: Broken pipe")));
  const auto summary = nlohmann::json::parse(bytes_of(folder_ / "run/summary.json"));
  EXPECT_EQ(summary["interrupted"], true);
  EXPECT_LT(summary["steps"], 600);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "run/report.html"));
  const Result rest = bash("'" PREHEAT_BINARY "' train --resume run --quiet");
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_EQ(std::ranges::count(bytes_of(folder_ / "run/metrics.csv"), '\n'), 601);
  // What is printed and not saved ends at once.
  const Result table =
      bash(unread + "'" PREHEAT_BINARY
                    "' schedule tiny.yaml --csv - --set 'train.length=9999 steps' >&3");
  EXPECT_EQ(table.code, 128 + SIGPIPE);
  EXPECT_EQ(table.err, "");
}

TEST_F(Cli, ARunThatHasEndedStaysAsItIs) {
  ASSERT_EQ(preheat({"train", "tiny.yaml", "--quiet", "--out", "run"}).code, 0);
  std::map<std::string, std::string> before;
  std::map<std::string, std::filesystem::file_time_type> written;
  const std::filesystem::recursive_directory_iterator run(folder_ / "run");
  for (const auto& entry : run) {
    if (!entry.is_regular_file()) continue;
    before[entry.path()] = bytes_of(entry.path());
    written[entry.path()] = entry.last_write_time();
  }
  ASSERT_TRUE(before.contains(folder_ / "run/summary.json"));
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"train", "--resume", "run"},
           {"train", "tiny.yaml", "--resume", "run", "--set", "train.eval_every=7 steps"},
           {"train", "tiny.yaml", "--resume", "run", "--new-schedule"}}) {
    const Result again = preheat(arguments);
    EXPECT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(again.out, "run: finished after 20 updates; nothing to do\n");
    for (const auto& [path, bytes] : before) {
      EXPECT_EQ(bytes_of(path), bytes) << path;
      EXPECT_EQ(std::filesystem::last_write_time(path), written[path]) << path;
    }
  }
  EXPECT_EQ(preheat({"train", "--resume", "run", "--quiet"}).out, "");

  // Only a page that could not be written, as when the disk was full, is made up for.
  std::filesystem::remove(folder_ / "run/report.html");
  EXPECT_EQ(preheat({"train", "--resume", "run"}).out,
            "run: finished after 20 updates; nothing to do\nreport          run/report.html\n");
  for (const auto& [path, bytes] : before) EXPECT_EQ(bytes_of(path), bytes) << path;
  // A run that was killed between its last checkpoint and its summary gets its summary.
  std::filesystem::remove(folder_ / "run/summary.json");
  EXPECT_EQ(preheat({"train", "--resume", "run", "--quiet"}).code, 0);
  const auto summary = nlohmann::json::parse(bytes_of(folder_ / "run/summary.json"));
  EXPECT_EQ(summary["outcome"],
            nlohmann::json::parse(before[folder_ / "run/summary.json"])["outcome"]);
}

TEST_F(Cli, ARunGoesOnUnderAnotherScheduleWhenAsked) {
  ASSERT_EQ(preheat({"train", "tiny.yaml", "--quiet", "--out", "run"}).code, 0);
  const std::vector<std::string> longer = {"train",    "tiny.yaml",
                                           "--resume", "run",
                                           "--set",    "train.length=30 steps",
                                           "--set",    "schedule.decay.shape=linear"};
  const Result refused = preheat(longer);
  expect_one_line(refused, 2);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("config.yaml"), HasSubstr("--new-schedule")));
  std::vector<std::string> asked = longer;
  asked.push_back("--new-schedule");
  const Result done = preheat(asked);
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_THAT(done.out, AllOf(HasSubstr("resumed after 20 updates"),
                              HasSubstr("the next learning rate changes from")));
  EXPECT_EQ(std::ranges::count(bytes_of(folder_ / "run/metrics.csv"), '\n'), 31);
  EXPECT_THAT(bytes_of(folder_ / "run/config.yaml"), HasSubstr("length: 30 steps"));
  EXPECT_THAT(bytes_of(folder_ / "run/config-before-20.yaml"), HasSubstr("length: 20 steps"));
  // From then on the new schedule is the run's own, as the folder records.
  EXPECT_EQ(preheat(longer).code, 0);
  EXPECT_EQ(preheat({"train", "--resume", "run", "--quiet"}).code, 0);
  const Result nothing = preheat({"train"});
  expect_one_line(nothing, 2);
  EXPECT_THAT(nothing.err, HasSubstr("CONFIG is required"));
  expect_one_line(preheat({"train", "tiny.yaml", "--new-schedule"}), 2);
}

TEST_F(Cli, TrainSaysWhatIsOddAboutItsSchedule) {
  const Result result =
      preheat({"train", "tiny.yaml", "--out", "run", "--set", "schedule.warmup.endpoints=start"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("note: the first update has rate 0"));
}

// It learns, and then a far higher rate destroys what it has learned.
TEST_F(Cli, TrainPrintsWhatTheSummarySays) {
  const Result result = preheat(
      {"train", "tiny.yaml", "--out", "run", "--device", "cpu", "--set", "train.cpu_threads=1",
       "--set", "train.length=40 steps", "--set", "train.eval_every=1 steps", "--set",
       "schedule={phases: [{shape: constant, from: 0.02, length: 30 steps}, "
       "{shape: constant, from: 3}]}"});
  EXPECT_EQ(result.code, 0) << result.err;
  const auto summary = nlohmann::json::parse(bytes_of(folder_ / "run/summary.json"));
  const double best = summary["best_test_accuracy"];
  const double last = summary["test_accuracy"];
  EXPECT_GT(best, last);
  EXPECT_THAT(result.out,
              AllOf(HasSubstr(fmt::format("\ntest accuracy   {:.2f} %\n", 100 * last)),
                    HasSubstr(fmt::format(
                        "\nbest            {:.2f} % after {} updates, chosen by test accuracy\n",
                        100 * best, summary["best_step"].get<int>()))));
}

TEST_F(Cli, TrainSaysWhatMemoryItsDiagnosticsTake) {
  EXPECT_THAT(preheat({"train", "tiny.yaml", "--out", "without"}).out,
              testing::ContainsRegex("\nmemory: [^\n]* MiB workspace, [0-9.]+ MiB data\n"));
  EXPECT_THAT(
      preheat({"train", "tiny.yaml", "--out", "with", "--set", "diagnostics.layers_every=5 steps"})
          .out,
      testing::ContainsRegex(
          "\nmemory: [^\n]* MiB workspace, [0-9.]+ MiB diagnostics, [0-9.]+ MiB data\n"));
  const auto summary = nlohmann::json::parse(bytes_of(folder_ / "with/summary.json"));
  EXPECT_GT(summary["memory_bytes"]["diagnostics"].get<std::int64_t>(), 0);
}

TEST_F(Cli, TrainPrintsTheValidationSetIfThereIsOne) {
  const Result result =
      preheat({"train", "tiny.yaml", "--out", "run", "--set", "data.validation=64"});
  EXPECT_EQ(result.code, 0) << result.err;
  const auto summary = nlohmann::json::parse(bytes_of(folder_ / "run/summary.json"));
  const auto percent = [&](const char* key) {
    return fmt::format("{:.2f} %", 100 * summary.at(key).get<double>());
  };
  EXPECT_THAT(
      result.out,
      AllOf(HasSubstr("20 updates of 32 images (8 an epoch)"),
            HasSubstr(fmt::format("accuracy {}; validation loss ", percent("test_accuracy"))),
            HasSubstr(fmt::format("\nvalidation      {}\n", percent("validation_accuracy"))),
            HasSubstr(fmt::format(
                "\nbest            {} after {} updates, chosen by validation accuracy {}\n",
                percent("best_test_accuracy"), summary.at("best_step").get<int>(),
                percent("best_validation_accuracy")))));
  // Known sizes are enough for the schedule: 60000 - 5000 images of Fashion-MNIST.
  put_bytes(folder_ / "s.yaml",
            "data: {dir: nowhere, validation: 5000, batch_size: 100}\ntrain: {length: 1 epochs}\n");
  const Result schedule = preheat({"schedule", "s.yaml", "--csv", "-"});
  EXPECT_EQ(schedule.code, 0) << schedule.err;
  EXPECT_EQ(std::ranges::count(schedule.out, '\n'), 551);
  const Result none = preheat({"train", "tiny.yaml", "--set", "data.validation=320"});
  expect_one_line(none, 2);
  EXPECT_THAT(none.err, HasSubstr("data.validation: holding out 320 of 320 training examples"));
}

TEST_F(Cli, CompareWritesItsFolderAndIsZeroWhereArmsDiverge) {
  put_bytes(folder_ / "c.yaml",
            std::string(tiny) +
                "compare:\n  seeds: 2\n  arms:\n"
                "    absurd: {schedule.base_lr: 1e12}\n    sane: {optimizer.momentum: 0.8}\n"
                "    stuck: {schedule.base_lr: 1e-9}\n    other: {optimizer.momentum: 0.7}\n");
  const Result result = preheat({"compare", "c.yaml", "--out", "experiment"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(result.out, AllOf(HasSubstr("absurd"), HasSubstr("McNemar p = "),
                                HasSubstr("not finite at"), Not(HasSubstr("\033"))));
  for (const char* file : {"compare.json", "config.yaml", "report.html", "sane/0/metrics.csv",
                           "absurd/1/summary.json"}) {
    EXPECT_TRUE(std::filesystem::exists(folder_ / (std::string("experiment/") + file))) << file;
  }
  const auto json = nlohmann::json::parse(bytes_of(folder_ / "experiment/compare.json"));
  // The last row of a run that was not finite is of that step.
  const std::string metrics = bytes_of(folder_ / "experiment/absurd/0/metrics.csv");
  std::istringstream row(metrics.substr(metrics.rfind('\n', metrics.size() - 2) + 1));
  std::string cells[4];  // step, epoch, phase, lr
  for (std::string& cell : cells) std::getline(row, cell, ',');
  const std::string failed_at = fmt::format("seed 0    absurd not finite at step {}", cells[0]);
  EXPECT_THAT(result.out, HasSubstr(fmt::format("\n{} (learning rate {:.2e}, phase {}), first in ",
                                                failed_at, std::stod(cells[3]), cells[2])));
  // When the runs stopped being finite is beside how many did.
  std::set<int> steps;
  for (const char* seed : {"0", "1"}) {
    const auto summary =
        nlohmann::json::parse(bytes_of(folder_ / "experiment/absurd" / seed / "summary.json"));
    steps.insert(summary["first_non_finite_step"].get<int>());
  }
  const std::string when = fmt::format("2 (step {})", fmt::join(steps, " .. "));
  EXPECT_THAT(
      result.out,
      AllOf(
          HasSubstr(fmt::format("\nabsurd     2       2  [0.16, 1.00]  {:<10}      0  -\n", when)),
          HasSubstr(fmt::format("\nstuck      2       2  [0.16, 1.00]  {:<{}}      2  -\n", 0,
                                std::max<std::size_t>(when.size(), 10)))));
  // The median of two is their mean.
  std::vector<double> accuracies;
  for (const auto& run : json["arms"][1]["runs"]) {
    if (run["outcome"] == "ok") accuracies.push_back(run["test_accuracy"]);
  }
  ASSERT_EQ(accuracies.size(), 2u);
  const auto [least, largest] = std::ranges::minmax(accuracies);
  EXPECT_LT(least, largest);
  EXPECT_THAT(result.out,
              HasSubstr(fmt::format("  {:.2f} % ({:.2f} .. {:.2f})\n", 50 * (least + largest),
                                    100 * least, 100 * largest)));
  // Of four arms it tells the pairs that some seed tells apart, of three all.
  EXPECT_THAT(result.out, AllOf(HasSubstr("\nabsurd against sane: of 2 seeds 2 failed only in"),
                                Not(HasSubstr("absurd against stuck")),
                                HasSubstr("\n6 comparisons; the p-values are not corrected for "
                                          "their number\n"),
                                // All arms have 20 updates of 32 images.
                                Not(HasSubstr("budgets"))));
  const auto with_arms = [&](const std::string& arms) {
    return preheat({"compare", "c.yaml", "--resume", "experiment", "--set", "compare.arms=" + arms})
        .out;
  };
  EXPECT_THAT(
      with_arms("{absurd: {schedule.base_lr: 1e12}, sane: {optimizer.momentum: 0.8}, "
                "stuck: {schedule.base_lr: 1e-9}}"),
      HasSubstr("\nabsurd against stuck: of 2 seeds 0 failed only in the first, 0 only in"));
  // A single comparison has nothing to be corrected for.
  EXPECT_THAT(with_arms("{absurd: {schedule.base_lr: 1e12}, sane: {optimizer.momentum: 0.8}}"),
              AllOf(HasSubstr("\nabsurd against sane: "), Not(HasSubstr("comparisons;")),
                    HasSubstr("\n" + failed_at + ", first in ")));  // read, without its schedule
}

TEST_F(Cli, CompareTellsTheTestLossesAtEqualTrainingLoss) {
  const std::string line =
      "\na against b: test loss at equal training loss +0 [+0, +0], the first minus the second, "
      "n = 2 seeds\n";
  put_bytes(folder_ / "c.yaml", std::string(tiny) +
                                    "compare:\n  seeds: 2\n  arms:\n"
                                    "    a: {optimizer.momentum: 0.8}\n"
                                    "    b: {optimizer.momentum: 0.8}\n");
  EXPECT_THAT(
      preheat({"compare", "c.yaml", "--out", "often", "--set", "train.eval_every=5 steps"}).out,
      HasSubstr(line));
  // Not of two evaluations.
  EXPECT_THAT(preheat({"compare", "c.yaml", "--out", "seldom"}).out,
              Not(HasSubstr("equal training loss")));
}

TEST_F(Cli, CompareSaysWhereArmsDifferInUpdatesOrImages) {
  put_bytes(folder_ / "c.yaml",
            std::string(tiny) +
                "compare:\n  seeds: 1\n  arms:\n"
                "    a: {schedule.decay.shape: constant}\n"
                "    long: {schedule.decay.shape: constant, train.length: 30 steps}\n"
                "    b: {schedule.decay.shape: constant, optimizer.momentum: 0}\n"
                "    small: {schedule.decay.shape: constant, data.batch_size: 16}\n");
  // A ramp of 0.0125, 0.025, 0.0375 and 0.05, then 0.05.
  EXPECT_THAT(preheat({"compare", "c.yaml", "--out", "experiment"}).out,
              HasSubstr("\nthe arms differ in their budgets: 20 updates of 32 images, sum of rates "
                        "0.925 (a, b); 30 updates of 32 images, sum of rates 1.425 (long); 20 "
                        "updates of 16 images, sum of rates 0.925 (small)\n"));
}

TEST_F(Cli, CompareShowsTheValidationAccuracyOfArmsThatHaveIt) {
  put_bytes(
      folder_ / "c.yaml",
      std::string(tiny) + "compare: {seeds: 1, arms: {split: {data.validation: 64}, plain: {}}}\n");
  const Result result =
      preheat({"compare", "c.yaml", "--out", "experiment", "--set", "train.length=80 steps"});
  EXPECT_EQ(result.code, 0) << result.err;
  const auto json = nlohmann::json::parse(bytes_of(folder_ / "experiment/compare.json"));
  const auto& split = json.at("arms").at(0).at("runs").at(0);
  ASSERT_EQ(json.at("arms").at(0).at("failures"), 0) << "too short to learn";
  const auto percent = [&](const char* key) { return 100 * split.at(key).get<double>(); };
  const auto of_one = [&](const char* key) {
    return fmt::format("{0:.2f} % ({0:.2f} .. {0:.2f})", percent(key));
  };
  EXPECT_THAT(
      result.out,
      AllOf(HasSubstr(
                fmt::format("  {:<29}{}\n", "validation accuracy", "test accuracy of the others")),
            HasSubstr(fmt::format("  {:<29}{}\n", of_one("validation_accuracy"),
                                  of_one("test_accuracy"))),
            HasSubstr(fmt::format("  {:<29}", "-")),
            HasSubstr(fmt::format("test accuracy {:.2f} %, validation {:.2f} %\n",
                                  percent("test_accuracy"), percent("validation_accuracy")))));
}

// A page that cannot be made hides neither the outcome of an experiment nor that of a run.
TEST_F(Cli, ThePageComesAfterTheOutcome) {
  put_bytes(folder_ / "c.yaml",
            std::string(tiny) +
                "compare: {seeds: 2, arms: {a: {}, b: {optimizer.momentum: 0.8}}}\n"
                "expect:\n  - failures: {arm: a, above: 0.5}\n");
  ASSERT_EQ(preheat({"compare", "c.yaml", "--quiet", "--out", "experiment"}).code, 0);
  ASSERT_EQ(preheat({"train", "tiny.yaml", "--quiet", "--out", "run"}).code, 0);
  for (const char* page : {"experiment/report.html", "run/report.html"}) {
    std::filesystem::remove(folder_ / page);
    std::filesystem::create_directory(folder_ / page);
  }
  const Result experiment = preheat({"compare", "--resume", "experiment"});
  expect_one_line(experiment, 1);
  EXPECT_THAT(experiment.err, HasSubstr("experiment/report.html"));
  EXPECT_THAT(experiment.out,
              AllOf(HasSubstr("McNemar p = "), HasSubstr("\nINCONCLUSIVE  a fails")));
  const Result train = preheat({"train", "--resume", "experiment"});
  expect_one_line(train, 1);
  EXPECT_THAT(train.err, HasSubstr("belongs to another command: it has a compare.json"));
  // A run that diverged still has the exit code that says so.
  const Result diverged = preheat(
      {"train", "tiny.yaml", "--resume", "run", "--new-schedule", "--set", "train.length=60 steps",
       "--set", "schedule.decay.shape=constant", "--set", "schedule.base_lr=1e12"});
  EXPECT_EQ(diverged.code, 3) << diverged.err;
  EXPECT_THAT(diverged.err, AllOf(HasSubstr("preheat: diverged: "), HasSubstr("run/report.html")));
  EXPECT_THAT(diverged.out, HasSubstr("\noutcome         non_finite\n"));
}

// Runs that were made elsewhere are not the same but for their arms.
TEST_F(Cli, RunsOfDifferentDevicesAreSaidToBe) {
  put_bytes(
      folder_ / "c.yaml",
      std::string(tiny) + "compare: {seeds: 2, arms: {a: {}, b: {optimizer.momentum: 0.8}}}\n");
  const Result alike = preheat({"compare", "c.yaml", "--out", "experiment"});
  EXPECT_EQ(alike.code, 0) << alike.err;
  EXPECT_THAT(alike.out, Not(HasSubstr("different environments")));
  EXPECT_THAT(bytes_of(folder_ / "experiment/report.html"),
              Not(HasSubstr("different environments")));
  const auto path = folder_ / "experiment/b/1/summary.json";
  auto summary = nlohmann::json::parse(bytes_of(path));
  summary["device"] = "Elsewhere";
  put_bytes(path, summary.dump());
  const Result mixed = preheat({"compare", "--resume", "experiment"});
  EXPECT_EQ(mixed.code, 0) << mixed.err;
  EXPECT_THAT(mixed.out,
              AllOf(HasSubstr("\nnote: the runs were made in different environments"),
                    HasSubstr("\n  1 of them: Elsewhere, "), HasSubstr("\n  3 of them: ")));
  EXPECT_THAT(bytes_of(folder_ / "experiment/report.html"),
              AllOf(HasSubstr("different environments"), HasSubstr("Elsewhere, ")));
}

TEST_F(Cli, ClaimsArePrintedWithTheirVerdicts) {
  put_bytes(folder_ / "c.yaml", std::string(tiny) +
                                    "compare:\n  seeds: 6\n  arms:\n"
                                    "    absurd: {schedule.base_lr: 1e12}\n    sane: {}\n"
                                    "expect:\n"
                                    "  - failures: {arm: absurd, above: 0.5}\n"
                                    "  - failures: {arm: absurd, below: 0.5}\n");
  const Result result = preheat({"compare", "c.yaml", "--out", "experiment"});
  EXPECT_EQ(result.code, 0) << result.err;
  // 0.025^(1/6) = 0.54.
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("\nPASS          absurd fails in more than 50 % of runs\n"
                              "              6 of 6 runs failed, 95 % interval [0.54, 1.00]\n"),
                    HasSubstr("\nFAIL          absurd fails in less than 50 % of runs\n")));
  const auto json = nlohmann::json::parse(bytes_of(folder_ / "experiment/compare.json"));
  ASSERT_EQ(json["claims"].size(), 2u);
  EXPECT_EQ(json["claims"][0]["verdict"], "PASS");
  EXPECT_EQ(json["claims"][1]["verdict"], "FAIL");
}

// A grid of which half the cells diverge, and a search.
constexpr const char* grid =
    "sweep: {seeds: 2, axes: {schedule.base_lr: [0.05, 1e12], optimizer.momentum: [0, 0.9]}}\n";
constexpr const char* search =
    "find_lr: {seeds: 1, first: 0.1, resolution: 8, loss_below: 1,\n"
    "  arms: {plain: {optimizer.momentum: 0}}}\n";

TEST_F(Cli, SweepDrawsItsMapAndIsZeroWhereCellsDiverge) {
  put_bytes(folder_ / "s.yaml",
            std::string(tiny) +
                "sweep: {seeds: 1, axes: {schedule.base_lr: [0.05, 1e12], optimizer.nesterov: "
                "[false, true], optimizer.momentum: [0.5, 0.9]}}\n");
  const Result result = preheat({"sweep", "s.yaml", "--out", "map"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("8 cells x 1 seed, 8 runs"), HasSubstr("not finite at step"),
                    HasSubstr("boundary along the base rate"), HasSubstr("map/report.html"),
                    Not(HasSubstr("\033"))));
  // Whether the smaller rate trains is not for this test to know.
  const std::string cells = " +(\\.|1/1) +1/1!\n";
  const std::string sides = " +2 +(5.00e-02 +1.00e\\+12|- +5.00e-02) +0 .*\n";
  EXPECT_THAT(result.out,
              AllOf(testing::ContainsRegex("\n +0.05 +1e12\nfalse, 0.5" + cells + "false, 0.9" +
                                           cells + "\ntrue, 0.5" + cells + "true, 0.9" + cells),
                    testing::ContainsRegex("\nfalse, 0.5" + sides + "false, 0.9" + sides +
                                           "true, 0.5" + sides + "true, 0.9" + sides)));
  for (const char* file : {"sweep.json", "config.yaml", "0.05_true_0.9/0/metrics.csv",
                           "1e12_false_0.5/0/summary.json"}) {
    EXPECT_TRUE(std::filesystem::exists(folder_ / "map" / file)) << file;
  }
  EXPECT_THAT(bytes_of(folder_ / "map/report.html"), HasSubstr("✕ 1/1"));
  const Result again = preheat({"sweep", "--resume", "map"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("(had ended before)"));
}

// The second map has the median over the runs that did not fail, as the runs' own folders have it.
TEST_F(Cli, SweepDrawsAMapOfAccuraciesToo) {
  put_bytes(folder_ / "s.yaml", std::string(tiny) +
                                    "sweep: {seeds: 3, axes: {schedule.base_lr: [0.05, 0.1, "
                                    "1e12]}}\n");
  const Result result = preheat({"sweep", "s.yaml", "--out", "map", "--verbose"});
  EXPECT_EQ(result.code, 0) << result.err;
  std::string row = "\n" + std::string(std::string_view("schedule.base_lr").size(), ' ');
  for (const char* rate : {"0.05", "0.1", "1e12"}) {
    std::vector<double> accuracies;
    for (const char* seed : {"0", "1", "2"}) {
      const auto summary =
          nlohmann::json::parse(bytes_of(folder_ / "map" / rate / seed / "summary.json"));
      const std::string outcome = summary["outcome"];
      if (outcome == "non_finite" || outcome == "stuck") continue;
      accuracies.push_back(summary["test_accuracy"]);
    }
    std::ranges::sort(accuracies);
    const std::size_t n = accuracies.size();
    row += n == 0 ? std::string(8, ' ') + "-"
                  : fmt::format("  {:>5.2f} %", 50 * (accuracies[(n - 1) / 2] + accuracies[n / 2]));
  }
  EXPECT_THAT(result.out, AllOf(HasSubstr("\nmedian test accuracy of the runs that did not fail by "
                                          "schedule.base_lr (across); - there are none\n"),
                                HasSubstr(row + "\n")));
  EXPECT_THAT(preheat({"sweep", "--resume", "map"}).out, Not(HasSubstr("median test accuracy")));
}

TEST_F(Cli, FindLrTellsTheRatesAndIsZeroWhereRunsDiverge) {
  put_bytes(folder_ / "f.yaml", std::string(tiny) + search);
  const Result result = preheat({"find-lr", "f.yaml", "--out", "search", "--set",
                                 "train.length=60 steps", "--set", "train.eval_every=60 steps"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(result.out, AllOf(HasSubstr("the largest base rate that trains"),
                                HasSubstr("first, the critical rate and the sharpness of 1 initial "
                                          "weights\n"),
                                HasSubstr("\ncritical "), HasSubstr("\n2 / sharpness "),
                                HasSubstr("plain: trains at "), HasSubstr("search/report.html"),
                                Not(HasSubstr("\033"))));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "search/plain/0/0.1/summary.json"));
  EXPECT_THAT(bytes_of(folder_ / "search/report.html"), HasSubstr("largest base rate that trains"));
}

// The folder of a search of f.yaml from 1e-7 on, at a resolution of 2, whose runs are there
// already: trains(arm, seed, rate) says which of them train.
template <class Trains>
void put_search(const TemporaryFolder& folder, const nlohmann::json& summary_of_a_run,
                const Trains& trains) {
  const Document document = load_document(folder / "f.yaml");
  const RunConfig base = read_config(document);
  std::filesystem::create_directory(folder / "search");
  put_bytes(folder / "search/config.yaml", write_config(base));
  const std::vector<Arm>& arms = base.find_lr->arms;
  const std::vector<RunConfig> configs = arm_configs(document, arms);
  for (std::size_t arm = 0; arm < arms.size(); ++arm) {
    RunConfig config = configs[arm];
    for (const std::uint64_t seed : base.find_lr->seeds) {
      config.seed = seed;
      const auto of_seed = folder / "search" / arms[arm].name / std::to_string(seed);
      search_rate(1e-7, 2, [&](const std::vector<double>& rates) {
        std::vector<Trial> trials(rates.size());
        for (std::size_t i = 0; i < rates.size(); ++i) {
          config.schedule.base_lr = trials[i].rate = rates[i];
          const bool good = trains(arm, seed, rates[i]);
          trials[i].trained = good;
          trials[i].run.outcome = good ? Outcome::ok : Outcome::non_finite;
          nlohmann::json summary = summary_of_a_run;
          summary["fingerprint"] = fingerprint(config);
          summary["outcome"] = good ? "ok" : "non_finite";
          summary["final_train_loss"] = 0.5;
          summary["first_non_finite_step"] = good ? nlohmann::json() : nlohmann::json(3);
          summary["first_non_finite_tensor"] = good ? nlohmann::json() : nlohmann::json("loss");
          RunFolder(of_seed / rate_name(rates[i]), config).write_summary(summary);
        }
        return trials;
      });
    }
  }
}

// Arms a, b and d train up to a rate, but a not at one below it; c trains nowhere.
TEST_F(Cli, FindLrPrintsWhatTheRunsSay) {
  put_bytes(folder_ / "f.yaml",
            std::string(tiny) +
                "find_lr:\n  seeds: 3\n  first: 1e-7\n  resolution: 2\n  arms:\n"
                "    a: {}\n    b: {optimizer.momentum: 0.8}\n    c: {optimizer.momentum: 0.7}\n"
                "    d: {optimizer.momentum: 0.6}\n");
  const double largest[4][3] = {
      {1e-7, 4e-7, 2e-7}, {2e-7, 8e-7, 4e-7}, {0, 0, 0}, {1e-7, 4e-7, 2e-7}};
  ASSERT_EQ(preheat({"train", "tiny.yaml", "--quiet", "--out", "run"}).code, 0);
  put_search(folder_, nlohmann::json::parse(bytes_of(folder_ / "run/summary.json")),
             [&](std::size_t arm, std::uint64_t seed, double rate) {
               return rate <= largest[arm][seed] && (arm != 0 || rate_name(rate) != "2.829e-07");
             });
  const Result four = preheat({"find-lr", "f.yaml", "--resume", "search"});
  EXPECT_EQ(four.code, 0) << four.err;
  EXPECT_THAT(
      four.out,
      AllOf(
          HasSubstr("\nseed 1 a: trains at 4.00e-07, not at 8.00e-07\n"),
          HasSubstr("\nseed 2 c: trains at none of 4 rates from 1.25e-08 to 1.00e-07; see "),
          HasSubstr("\nseed                  0         1         2    median      90 %     seeds  "
                    "violations\n"),
          HasSubstr(
              "\na              1.00e-07  4.00e-07  2.00e-07  2.00e-07  1.00e-07    3 of 3  1 of "
              "12 runs below\n"),
          HasSubstr(
              "\nc                     -         -         -         -         -    0 of 3  0 of "
              "0 runs below\n"),
          HasSubstr(
              "\nb against a: 2.00 times the rate, geometric mean over 3 seeds, too few for a "
              "bootstrap, which needs 5\n"),
          HasSubstr("\nc against a: no seed has a rate that trains in both\n"),
          HasSubstr("\nd against a: "), Not(HasSubstr("d against b: "))));
  const auto json = nlohmann::json::parse(bytes_of(folder_ / "search/find_lr.json"));
  const auto& of_seed_1 = json["arms"][0]["searches"][1];
  EXPECT_EQ(of_seed_1["largest"], 4e-7);
  EXPECT_EQ(of_seed_1["smallest_failing"], 8e-7);
  EXPECT_EQ(of_seed_1["violations"], 1);
  EXPECT_EQ(of_seed_1["tried_below"], 5);
  // The rows below the arms are of the initial weights, as the file has them.
  std::string sharp = "\n2 / sharpness";
  std::string critical = "\ncritical     ";
  for (const auto& at : json["critical_rates"]) {
    critical += fmt::format("  {:.2e}", at["rate"].get<double>());
    sharp += fmt::format("  {:.2e}", 2 / at["sharpness"].get<double>());
  }
  EXPECT_THAT(four.out, AllOf(HasSubstr(critical + sharp + "\n"),
                              HasSubstr("below them the critical rate and 2 / sharpness of the "
                                        "initial weights of a\n"),
                              Not(HasSubstr("rank correlation"))));
  const Result without =
      preheat({"find-lr", "f.yaml", "--resume", "search", "--set", "find_lr.sharpness=false"});
  EXPECT_THAT(without.out, AllOf(HasSubstr("first, the critical rate of 3 initial weights\n"),
                                 HasSubstr("\ncritical  "), Not(HasSubstr("2 / sharpness"))));
  // Of three arms every ratio.
  const Result three = preheat({"find-lr", "f.yaml", "--resume", "search", "--set",
                                "find_lr.arms={a: {}, b: {optimizer.momentum: 0.8}, d: "
                                "{optimizer.momentum: 0.6}}"});
  EXPECT_THAT(three.out, AllOf(HasSubstr("\nd against a: 1.00 times"),
                               HasSubstr("\nd against b: 0.50 times")));
}

// Eight layers of a gain of a million overflow in fp32.
TEST_F(Cli, FindLrEndsAtOnceWhereTheInitialWeightsAreNotFinite) {
  put_bytes(folder_ / "f.yaml",
            std::string(tiny) + "find_lr: {seeds: 2, arms: {only: {}}, loss_below: 1}\n");
  const Result result = preheat(
      {"find-lr", "f.yaml", "--out", "search", "--set", "model.init.gain=1e6", "--set",
       "model.layers=[{conv: {out: 2}}, {conv: {out: 2}}, {conv: {out: 2}}, {conv: {out: 2}}, "
       "{conv: {out: 2}}, {conv: {out: 2}}, {conv: {out: 2}}, {linear: {out: 10}}]"});
  EXPECT_EQ(result.code, 0) << result.err;
  for (const char* seed : {"0", "1"}) {
    EXPECT_THAT(result.out,
                testing::ContainsRegex(fmt::format("\nseed {} only: not finite at the initial "
                                                   "weights, first in activation of [0-9]: no rate "
                                                   "can train\n",
                                                   seed)));
    const auto runs = std::filesystem::directory_iterator(folder_ / "search/only" / seed);
    EXPECT_EQ(std::distance(begin(runs), end(runs)), 1);
  }
  EXPECT_THAT(bytes_of(folder_ / "search/report.html"), HasSubstr("<td>not finite</td>"));
}

// The largest rates of five seeds rise with the seed. By Spearman's formula for ranks without ties.
TEST_F(Cli, FindLrPrintsWhatTheInitialWeightsTellOfTheSeeds) {
  put_bytes(
      folder_ / "f.yaml",
      std::string(tiny) + "find_lr: {seeds: 5, first: 1e-7, resolution: 2, arms: {only: {}}}\n");
  ASSERT_EQ(preheat({"train", "tiny.yaml", "--quiet", "--out", "run"}).code, 0);
  put_search(folder_, nlohmann::json::parse(bytes_of(folder_ / "run/summary.json")),
             [](std::size_t, std::uint64_t seed, double rate) {
               return rate <= 1.001e-7 * std::exp2(static_cast<double>(seed));
             });
  const Result result = preheat({"find-lr", "f.yaml", "--resume", "search"});
  EXPECT_EQ(result.code, 0) << result.err;
  const auto json = nlohmann::json::parse(bytes_of(folder_ / "search/find_lr.json"));
  std::vector<double> largest;
  for (const auto& s : json["arms"][0]["searches"]) largest.push_back(s["largest"]);
  EXPECT_THAT(largest, testing::ElementsAre(1e-7, 2e-7, 4e-7, 8e-7, 1.6e-6));
  std::vector<double> stable;
  for (const auto& at : json["critical_rates"]) stable.push_back(2 / at["sharpness"].get<double>());
  ASSERT_EQ(stable.size(), 5u);
  double squares = 0;  // of the differences of ranks
  for (std::size_t seed = 0; seed < 5; ++seed) {
    const auto rank = std::ranges::count_if(stable, [&](double s) { return s < stable[seed]; });
    squares += std::pow(static_cast<double>(rank) - static_cast<double>(seed), 2);
  }
  EXPECT_NEAR(json["arms"][0]["two_over_sharpness"]["rank_correlation"].get<double>(),
              1 - 6 * squares / (5 * 24), 1e-12);
  for (const auto& [key, name] : {std::pair{"critical_rate", "the critical rate"},
                                  std::pair{"two_over_sharpness", "2 / sharpness"}}) {
    const auto& found = json["arms"][0][key];
    EXPECT_EQ(found["n"], 5);
    EXPECT_THAT(result.out,
                HasSubstr(fmt::format(
                    "\nonly: rank correlation of the largest rate with {} {:.2f}, "
                    "p = {:.2g} by permutations, 5 seeds\n",
                    name, found["rank_correlation"].get<double>(), found["p"].get<double>())));
  }
}

// Ctrl-C prints how to resume, and resuming that way works.
TEST_F(Cli, AnInterruptedExperimentGoesOn) {
  put_bytes(folder_ / "e.yaml",
            std::string(tiny) + grid + search +
                "compare: {seeds: 2, arms: {a: {}, b: {optimizer.momentum: 0}}}\n");
  for (const std::string command : {"compare", "sweep", "find-lr"}) {
    SCOPED_TRACE(command);
    int length = 100;
    const Result cut = interrupted_training(command, length, [&](int steps) {
      return std::vector<std::string>{command, "e.yaml",
                                      "--out", command,
                                      "--set", fmt::format("train.length={} steps", steps),
                                      "--set", fmt::format("train.eval_every={} steps", steps)};
    });
    expect_one_line(cut, 1);
    EXPECT_EQ(cut.err, "preheat: interrupted; continue with --resume " + command + "\n");
    const std::string json = command == "find-lr" ? "find_lr.json" : command + ".json";
    EXPECT_THAT(bytes_of(folder_ / command / json),
                AllOf(HasSubstr("\"interrupted\": true"), HasSubstr("\"incomplete\"")));
    // Nothing is said of what is not there yet.
    EXPECT_THAT(cut.out, AllOf(Not(HasSubstr("of 0 seeds")), Not(HasSubstr("the boundary along"))));
    // Without CONFIG, the folder's own configuration is used.
    const Result rest = preheat({command, "--resume", command, "--quiet"});
    EXPECT_EQ(rest.code, 0) << rest.err;
    EXPECT_EQ(rest.out, "");
    EXPECT_THAT(bytes_of(folder_ / command / json),
                AllOf(Not(HasSubstr("interrupted")), Not(HasSubstr("incomplete"))));
  }
}

TEST_F(Cli, AnExperimentWhoseDataAreMissingLeavesNoFolder) {
  put_bytes(folder_ / "e.yaml",
            std::string(tiny) + grid + search + "compare: {seeds: 1, arms: {a: {}}}\n");
  for (const std::string command : {"train", "compare", "sweep", "find-lr"}) {
    SCOPED_TRACE(command);
    const Result result = preheat({command, "e.yaml", "--quiet", "--out", "new", "--set",
                                   "data.dataset=mnist", "--set", "data.dir=nowhere"});
    expect_one_line(result, 1);
    EXPECT_THAT(result.err, HasSubstr("nowhere"));
    EXPECT_FALSE(std::filesystem::exists(folder_ / "new"));
  }
}

TEST_F(Cli, WrongUsageOfExperimentsIsTwo) {
  put_bytes(folder_ / "s.yaml", std::string(tiny) + grid);
  for (const std::string command : {"compare", "sweep", "find-lr"}) {
    SCOPED_TRACE(command);
    const Result nothing = preheat({command});
    expect_one_line(nothing, 2);
    EXPECT_THAT(nothing.err, HasSubstr("CONFIG is required"));
    expect_one_line(preheat({command, "s.yaml", "--out", "a", "--resume", "b"}), 2);
    expect_one_line(preheat({command, "s.yaml", "--set", "schedule.base_lrr=1"}), 2);
    expect_one_line(preheat({command, "s.yaml", "--bogus"}), 2);
    expect_one_line(preheat({command, "missing.yaml"}), 2);
  }
  expect_one_line(preheat({"sweep", "tiny.yaml"}), 2);
  expect_one_line(preheat({"sweep", "s.yaml", "--resume", "nowhere"}), 1);
  expect_one_line(preheat({"sweep", "s.yaml", "--set", "sweep.axes={schedule.base_lr: [fast]}"}),
                  2);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs"));
}

// A damaged file in a folder is not wrong usage: every command exits with 1.
TEST_F(Cli, ADamagedConfigurationInAFolderIsOne) {
  put_bytes(folder_ / "e.yaml",
            std::string(tiny) + grid + search + "compare: {seeds: 1, arms: {a: {}}}\n");
  for (const std::string command : {"train", "compare", "sweep", "find-lr"}) {
    SCOPED_TRACE(command);
    ASSERT_EQ(preheat({command, "e.yaml", "--quiet", "--out", command}).code, 0);
    const std::string path = command + "/config.yaml";
    const std::string config = bytes_of(folder_ / path);
    // A wrong --set still is wrong usage.
    expect_one_line(preheat({command, "--resume", command, "--set", "nonsense.key=1"}), 2);
    put_bytes(folder_ / path, config + "nonsense: 1\n");
    for (const auto& arguments : {std::vector<std::string>{command, "--resume", command},
                                  {command, "e.yaml", "--resume", command}}) {
      const Result result = preheat(arguments);
      expect_one_line(result, 1);
      EXPECT_THAT(result.err, AllOf(HasSubstr(path), HasSubstr("nonsense: unknown key")));
    }
  }
}

TEST_F(Cli, ScheduleSaysThatAStartIsLeftToTheNetwork) {
  const Result result =
      preheat({"schedule", "tiny.yaml", "--set", "schedule.warmup.start_lr=auto"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("found from the network when the run begins"),
                                HasSubstr("linear from 5.00e-03 to 5.00e-02")));
  const Result none = preheat({"schedule", "tiny.yaml", "--set", "schedule.warmup.start_lr=auto",
                               "--set", "schedule.warmup.length=0 steps"});
  EXPECT_THAT(none.out, Not(HasSubstr("found from the network")));
}

TEST_F(Cli, ReportWritesThePageOfFolders) {
  ASSERT_EQ(preheat({"train", "tiny.yaml", "--quiet", "--out", "a"}).code, 0);
  ASSERT_EQ(preheat({"train", "tiny.yaml", "--quiet", "--out", "b", "--seed", "1"}).code, 0);
  const std::string written = bytes_of(folder_ / "a/report.html");
  std::filesystem::remove(folder_ / "a/report.html");
  Result result = preheat({"report", "a"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out, "a/report.html\n");
  EXPECT_EQ(bytes_of(folder_ / "a/report.html"), written);
  EXPECT_EQ(preheat({"report", "a", "b"}).out, "report.html\n");
  EXPECT_THAT(bytes_of(folder_ / "report.html"), HasSubstr("<h1>2 runs</h1>"));
  EXPECT_EQ(preheat({"report", "a", "b", "-o", "both.html"}).out, "both.html\n");
  EXPECT_EQ(bytes_of(folder_ / "both.html"), bytes_of(folder_ / "report.html"));

  expect_one_line(preheat({"report"}), 2);
  std::filesystem::create_directory(folder_ / "empty");
  result = preheat({"report", "empty"});
  expect_one_line(result, 1);
  EXPECT_THAT(result.err, HasSubstr("neither it nor a folder directly below it"));
  // The runs directly below the folder.
  EXPECT_EQ(preheat({"report", ".", "-o", "below.html"}).out, "below.html\n");
  EXPECT_THAT(bytes_of(folder_ / "below.html"), HasSubstr("<h1>2 runs</h1>"));
  result = preheat({"report", "a", "-o", "nowhere/page.html"});
  expect_one_line(result, 1);
  EXPECT_THAT(result.err, HasSubstr("nowhere/page.html"));
  // A file that is there and is not a page is left as it is.
  const std::string metrics = bytes_of(folder_ / "a/metrics.csv");
  result = preheat({"report", "a", "-o", "a/metrics.csv"});
  expect_one_line(result, 1);
  EXPECT_THAT(result.err, HasSubstr("a/metrics.csv: exists and is not a page"));
  EXPECT_EQ(bytes_of(folder_ / "a/metrics.csv"), metrics);
  put_bytes(folder_ / "empty.html", "");  // as mktemp makes one
  EXPECT_EQ(preheat({"report", "a", "-o", "empty.html"}).code, 0);
  // Also under the default names, here and in a run's folder.
  const std::string other = "<!doctype html>\n<html><body>of another program</body></html>\n";
  for (const std::string usual : {"report.html", "a/report.html"}) {
    put_bytes(folder_ / usual, other);
    result = usual[0] == 'a' ? preheat({"report", "a"}) : preheat({"report", "a", "b"});
    expect_one_line(result, 1);
    EXPECT_THAT(result.err, HasSubstr(usual + ": exists and is not a page of preheat's; choose"));
    EXPECT_EQ(bytes_of(folder_ / usual), other);
    std::filesystem::remove(folder_ / usual);
  }
  // A link to itself is no run.
  std::filesystem::create_symlink("loop", folder_ / "loop");
  result = preheat({"report", "."});
  EXPECT_EQ(result.code, 0) << result.err;
  std::filesystem::remove(folder_ / "loop");
  std::filesystem::resize_file(folder_ / "a/summary.json", 50);
  result = preheat({"report", "a"});
  expect_one_line(result, 1);
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("a/summary.json: is damaged: byte 51"), Not(HasSubstr("exception"))));
}

const std::vector<std::string> small_update = {
    "bench", "update", "--device", "cpu", "--quick", "--parameters", "5000", "--tensors", "3"};

const std::vector<std::string> quick_schedule = {"bench", "schedule", "--device", "cpu", "--quick"};

std::vector<std::string> with(std::vector<std::string> base, const std::vector<std::string>& more) {
  base.insert(base.end(), more.begin(), more.end());
  return base;
}

TEST_F(Cli, BenchTimesEveryShape) {
  const Result result =
      preheat(with(quick_schedule, {"--json", "times.json", "--html", "times.html"}));
  EXPECT_EQ(result.code, 0) << result.err;
  const auto json = nlohmann::json::parse(bytes_of(folder_ / "times.json"));
  EXPECT_EQ(json["bench"], "schedule");
  std::set<std::string> names;
  for (const auto& row : json["schedules"]) {
    names.insert(row["name"]);
    EXPECT_GT(row["least_ns"], 0);
    EXPECT_LE(row["least_ns"], row["median_ns"]);
    EXPECT_LE(row["median_ns"], row["largest_ns"]);
    EXPECT_EQ(row["in_step"].size(), 2u);
    for (const auto& in_step : row["in_step"]) EXPECT_GT(in_step["us"], 0);
    EXPECT_THAT(result.out, HasSubstr(row["name"].get<std::string>()));
  }
  for (const ShapeFacts& facts : shape_facts) EXPECT_TRUE(names.contains(facts.name)) << facts.name;
  EXPECT_THAT(bytes_of(folder_ / "times.html"), HasSubstr("inverse_sqrt"));
  expect_one_line(preheat({"bench"}), 2);
  expect_one_line(preheat({"bench", "nonsense"}), 2);
}

TEST_F(Cli, BenchTimesAStep) {
  const Result result =
      preheat({"bench", "step", "tiny.yaml", "--device", "cpu", "--seconds", "0.1", "--json",
               "step.json", "--html", "step.html", "--layers", "--replicas", "1,2"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("images per second"), HasSubstr("host time of a step"),
                                HasSubstr("first update"), HasSubstr("weight gradient")));
  const auto json = nlohmann::json::parse(bytes_of(folder_ / "step.json"));
  const auto& step = json["step_ms"];
  EXPECT_GT(step["least"], 0);
  EXPECT_LE(step["least"], step["median"]);
  EXPECT_LE(step["median"], step["largest"]);
  const double images = json["images_per_second"];
  const double batch = json["batch"];
  EXPECT_NEAR(images, 1e3 * batch / step["median"].get<double>(), 1e-6 * images);
  EXPECT_LE(json["host_us"], 1e3 * step["largest"].get<double>());
  EXPECT_EQ(json["precision"], "fp32");
  double bytes = 0;
  std::map<std::string, std::pair<double, double>> of_list;  // sums of the least and the largest
  for (const char* list : {"parts", "works", "passes"}) {
    for (const auto& part : json[list]) {
      EXPECT_GT(part["least_us"], 0) << part;
      EXPECT_LE(part["least_us"], part["us"]) << part;
      EXPECT_LE(part["us"], part["largest_us"]) << part;
      of_list[list].first += 1e-3 * part["least_us"].get<double>();
      of_list[list].second += 1e-3 * part["largest_us"].get<double>();
    }
    // The median of the rounds' sums.
    EXPECT_GE(json["parts_ms"], 0.999999 * of_list[list].first) << list;
    EXPECT_LE(json["parts_ms"], 1.000001 * of_list[list].second) << list;
  }
  for (const auto& part : json["parts"]) bytes += part["bytes"].get<double>();
  EXPECT_EQ(json["bytes"], bytes);
  EXPECT_GT(json["parts"].size(), json["works"].size());
  // The subtotals are of their own pass's parts.
  ASSERT_EQ(json["passes"].size(), 3u);
  const char* const passes[] = {"forward", "backward", "update"};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto& pass = json["passes"][i];
    EXPECT_EQ(pass["pass"], passes[i]);
    std::map<std::string, double> sums;
    for (const auto& part : json["parts"]) {
      if (part["pass"] != passes[i]) continue;
      for (const char* key :
           {"bytes", "operations", "launches", "limit_us", "least_us", "largest_us"}) {
        sums[key] += part[key].get<double>();
      }
    }
    for (const char* key : {"bytes", "operations", "launches"}) EXPECT_EQ(pass[key], sums[key]);
    EXPECT_NEAR(pass["limit_us"], sums["limit_us"], 1e-9 * sums["limit_us"]);
    EXPECT_GE(pass["us"], 0.999999 * sums["least_us"]);
    EXPECT_LE(pass["us"], 1.000001 * sums["largest_us"]);
    const std::string key = fmt::format("tiny, batch 32, fp32: {}, all", passes[i]);
    EXPECT_EQ(std::ranges::count_if(json["figures"],
                                    [&](const auto& figure) {
                                      return figure["key"] == key && figure["median"] == pass["us"];
                                    }),
              1);
  }
  ASSERT_EQ(json["replicas"].size(), 2u);
  EXPECT_EQ(json["replicas"][0]["times_one"], 1);
  EXPECT_THAT(bytes_of(folder_ / "step.html"),
              AllOf(HasSubstr("Where the time goes"), HasSubstr("Forward, backward, update")));
  EXPECT_THAT(result.out, AllOf(testing::ContainsRegex("\nforward [^\n]* all "),
                                testing::ContainsRegex("\nupdate [^\n]* all ")));

  const Result refused =
      preheat({"bench", "step", "tiny.yaml", "--device", "cpu", "--set", "train.precision=bf16"});
  expect_one_line(refused, 2);
  EXPECT_THAT(refused.err, HasSubstr("train.precision"));
  expect_one_line(preheat({"bench", "step", "tiny.yaml", "--replicas", "0"}), 2);
  expect_one_line(preheat({"bench", "step", "tiny.yaml", "--seconds", "nan"}), 2);
  // An output that cannot be written is reported before anything is measured.
  const std::vector<std::string> base = {"bench", "step", "--replicas", "1", "tiny.yaml"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = base;
    all.insert(all.end(), more.begin(), more.end());
    return preheat(all);
  };
  expect_one_line(with({"--json", "one", "--html", "one"}), 2);
  const Result nowhere = with({"--json", "nowhere/step.json"});
  expect_one_line(nowhere, 1);
  EXPECT_THAT(nowhere.out, Not(HasSubstr("images per second")));
  const Result once = with({"--set", "data.batch_size=64", "--set", "data.train_limit=64"});
  expect_one_line(once, 1);
  EXPECT_THAT(once.err, HasSubstr("data.batch_size"));
}

TEST_F(Cli, BenchTimesTheUpdateBesideWhatTheMemoryAllows) {
  put_bytes(folder_ / "peers.json", R"({"torch": "2.0", "device": "another", "rows": [
      {"tensors": 16, "parameters": 870826, "mode": "fused", "us": 100},
      {"tensors": 65, "parameters": 1, "mode": "fused", "us": 100}]})");
  const Result result = preheat({"bench", "update", "--device", "cpu", "--quick", "--json",
                                 "update.json", "--html", "update.html", "--peers", "peers.json"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("PyTorch 2.0, fused"), HasSubstr("not in peers.json"),
                                HasSubstr("was measured on another")));
  const auto json = nlohmann::json::parse(bytes_of(folder_ / "update.json"));
  std::map<std::string, std::int64_t> tensors;
  std::set<std::string> variants;
  const std::map<std::string, double> bytes_of_a_parameter = {{"copy", 8},
                                                              {"read 3, write 2", 20},
                                                              {"fused", 20},
                                                              {"fused, no norms", 20},
                                                              {"fused, clipped", 24},
                                                              {"fused, nesterov", 20},
                                                              {"fused, folded", 20},
                                                              {"per_tensor", 20},
                                                              {"three_pass", 36}};
  for (const auto& row : json["rows"]) {
    tensors[row["set"]] = row["tensors"];
    variants.insert(row["variant"]);
    EXPECT_GT(row["us"], 0);
    EXPECT_LE(row["least_us"], row["us"]);
    EXPECT_LE(row["us"], row["largest_us"]);
    const double bytes = bytes_of_a_parameter.at(row["variant"]) * row["parameters"].get<double>();
    if (row["how"] == "ceiling") {
      EXPECT_GE(row["bytes"], bytes);  // moves the padding too
    } else {
      EXPECT_EQ(row["bytes"], bytes);
    }
    EXPECT_TRUE(row["us_over_empty"].is_null()) << row;  // there are no launches
    const double rate = row["bytes"].get<double>() / (1e3 * row["us"].get<double>());
    EXPECT_NEAR(row["gigabytes_per_second"], rate, 1e-6 * rate);
    if (row["variant"] == "copy") {
      EXPECT_EQ(row["share_of_copy"], 1);
    } else if (row["how"] == "ceiling") {
      EXPECT_EQ(row["share_of_traffic"], 1);
    }
  }
  EXPECT_EQ(variants.size(), bytes_of_a_parameter.size());
  EXPECT_EQ(tensors["small CNN"], 16);
  EXPECT_EQ(tensors["ResNet-20"], 65);
  EXPECT_EQ(tensors["ResNet-50"], 161);
  EXPECT_EQ(tensors["2^20 in 1000 tensors"], 1000);
  // Every set has its row; that of the small CNN has a time.
  ASSERT_EQ(json["peers"].size(), tensors.size());
  for (const auto& peer : json["peers"]) {
    EXPECT_EQ(peer["name"], "PyTorch 2.0, fused");
    if (peer["set"] == "small CNN") {
      EXPECT_EQ(peer["us"], 100);
      EXPECT_GT(peer["ratio"], 0);
    } else {
      EXPECT_TRUE(peer["us"].is_null()) << peer;
      EXPECT_EQ(peer["missing"], "not in peers.json") << peer;
    }
  }
  EXPECT_THAT(bytes_of(folder_ / "update.html"),
              AllOf(HasSubstr("Roofline"), HasSubstr("Compared with PyTorch"),
                    HasSubstr("missing: not in peers.json")));
  for (const char* rows : {"[1]", R"([{"mode": 5}])", R"([{"tensors": "1"}])", R"([{"us": 0}])",
                           R"([{"us": -3}])", R"([{"missing": 1}])", R"([], "modes": [1])"}) {
    put_bytes(folder_ / "bad.json",
              fmt::format(R"({{"torch": "2", "device": "d", "rows": {}}})", rows));
    const Result bad = preheat({"bench", "update", "--quick", "--peers", "bad.json"});
    expect_one_line(bad, 1);
    EXPECT_THAT(bad.err, HasSubstr("bad.json: is not what")) << rows;
  }
}

TEST_F(Cli, BenchTakesASetOfTheUsersOwn) {
  const Result result = preheat({"bench", "update", "--device", "cpu", "--quick", "--parameters",
                                 "1001", "--tensors", "10", "--json", "own.json"});
  EXPECT_EQ(result.code, 0) << result.err;
  const auto json = nlohmann::json::parse(bytes_of(folder_ / "own.json"));
  EXPECT_FALSE(json["rows"].empty());
  for (const auto& row : json["rows"]) {
    EXPECT_EQ(row["parameters"], 1001);
    EXPECT_EQ(row["tensors"], 10);
  }
  expect_one_line(preheat({"bench", "update", "--tensors", "10"}), 2);
  expect_one_line(preheat({"bench", "update", "--parameters", "0"}), 2);
  expect_one_line(preheat({"bench", "update", "--parameters", "3", "--tensors", "5"}), 2);
}

// ---- A bench compared with an earlier one ------------------------------------------------------

// The verdict on two figures of a JSON file, from the rule as it is worded.
std::string expected_change(const nlohmann::json& before, const nlohmann::json& now) {
  const double most = std::max(before["largest"].get<double>() - before["least"].get<double>(),
                               now["largest"].get<double>() - now["least"].get<double>());
  const double more = now["median"].get<double>() - before["median"].get<double>();
  return more > most ? "slower" : -more > most ? "faster" : "within the spread";
}

TEST_F(Cli, BenchHoldsItsFiguresAgainstAnEarlierRun) {
  ASSERT_EQ(preheat(with(small_update, {"--json", "real.json"})).code, 0);
  // Makes some rows of the earlier run slower and some faster, and renames others.
  const auto seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  auto before = nlohmann::json::parse(bytes_of(folder_ / "real.json"));
  std::map<std::string, nlohmann::json> earlier;
  for (auto& figure : before["figures"]) {
    const int kind = static_cast<int>(earlier.size() % 4);
    const double factor = kind == 1 ? 1e4 : kind == 2 ? 1e-4 : 1.0;
    for (const char* key : {"median", "least", "largest"}) {
      figure[key] = figure[key].get<double>() * factor *
                    (key[0] == 'm'   ? 1
                     : key[1] == 'e' ? 0.9
                                     : 1.1);
    }
    if (random() % 5 == 0) figure["key"] = "gone " + figure["key"].get<std::string>();
    earlier[figure["key"]] = figure;
  }
  before["device"] = "another machine";
  before["library"] = "oneDNN 1.0";
  before["options"]["--quick"] = false;
  before["clocks_mhz"] = {{"processor", 1}};
  put_bytes(folder_ / "before.json", before.dump());

  const Result result = preheat(
      with(small_update, {"--compare", "before.json", "--json", "now.json", "--html", "now.html"}));
  ASSERT_EQ(result.code, 0) << result.err;
  const auto now = nlohmann::json::parse(bytes_of(folder_ / "now.json"));
  std::map<std::string, int> counts;
  ASSERT_EQ(now["figures"].size(), earlier.size());
  for (const auto& figure : now["figures"]) {
    const auto was = earlier.find(figure["key"]);
    if (was == earlier.end()) {
      EXPECT_TRUE(figure["earlier"].is_null());
      ++counts["new"];
      continue;
    }
    const std::string expected = expected_change(was->second, figure);
    EXPECT_EQ(figure["change"], expected) << figure << was->second;
    EXPECT_DOUBLE_EQ(figure["ratio"],
                     was->second["median"].get<double>() / figure["median"].get<double>());
    ++counts[expected];
    earlier.erase(was);
  }
  const auto& comparison = now["comparison"];
  EXPECT_EQ(comparison["faster"], counts["faster"]);
  EXPECT_EQ(comparison["slower"], counts["slower"]);
  EXPECT_EQ(comparison["within_spread"], counts["within the spread"]);
  EXPECT_EQ(comparison["only_now"], counts["new"]);
  EXPECT_EQ(comparison["only_earlier"].size(), earlier.size());
  EXPECT_THAT(result.out,
              HasSubstr(fmt::format("{} faster, {} slower, {} within the spread, {} only here, {} "
                                    "only there\n",
                                    counts["faster"], counts["slower"], counts["within the spread"],
                                    counts["new"], earlier.size())));
  EXPECT_THAT(result.out, AllOf(HasSubstr("note: before.json was measured on another machine"),
                                HasSubstr("library oneDNN"), HasSubstr("--quick true (was false)"),
                                HasSubstr("other clocks"), HasSubstr("earlier / now")));
  const std::string page = bytes_of(folder_ / "now.html");
  EXPECT_THAT(page, AllOf(HasSubstr("Compared with before.json"),
                          HasSubstr("was measured on another"), HasSubstr("earlier / now")));
  if (!earlier.empty()) {
    EXPECT_THAT(page, HasSubstr("gone "));
  }
}

TEST_F(Cli, EveryBenchCanBeHeldAgainstItself) {
  const std::vector<std::string> step = {
      "bench",      "step", "tiny.yaml", "--device",           "cpu", "--seconds", "0.1",
      "--replicas", "2",    "--set",     "train.cpu_threads=1"};
  for (const auto& bench : {step, quick_schedule, small_update}) {
    SCOPED_TRACE(bench[1]);
    const std::string earlier = bench[1] + ".json";
    ASSERT_EQ(preheat(with(bench, {"--json", earlier})).code, 0);
    const Result result =
        preheat(with(bench, {"--compare", earlier, "--json", "b.json", "--html", "b.html"}));
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_THAT(result.out, AllOf(HasSubstr("0 only here, 0 only there"),
                                  Not(HasSubstr("other options")), Not(HasSubstr("version"))));
    const auto a = nlohmann::json::parse(bytes_of(folder_ / earlier));
    const auto b = nlohmann::json::parse(bytes_of(folder_ / "b.json"));
    ASSERT_EQ(a["figures"].size(), b["figures"].size());
    std::set<std::string> keys;
    for (std::size_t i = 0; i < a["figures"].size(); ++i) {
      const auto& figure = b["figures"][i];
      EXPECT_TRUE(keys.insert(figure["key"]).second) << figure["key"];
      EXPECT_EQ(a["figures"][i]["key"], figure["key"]);
      EXPECT_EQ(figure["earlier"]["median"], a["figures"][i]["median"]);
      EXPECT_EQ(figure["change"], expected_change(a["figures"][i], figure)) << figure;
    }
    EXPECT_THAT(bytes_of(folder_ / "b.html"), HasSubstr("Compared with " + earlier));
  }
  // Another batch size makes other rows, and the difference is named.
  const Result other =
      preheat(with(step, {"--compare", "step.json", "--set", "data.batch_size=16"}));
  EXPECT_EQ(other.code, 0) << other.err;
  EXPECT_THAT(other.out, AllOf(HasSubstr("other options: data.batch_size 16 (was 32)"),
                               HasSubstr("0 faster, 0 slower, 0 within the spread")));
}

TEST_F(Cli, BenchRefusesWhatIsNoEarlierRun) {
  ASSERT_EQ(preheat(with(small_update, {"--json", "update.json"})).code, 0);
  const std::string whole = bytes_of(folder_ / "update.json");
  put_bytes(folder_ / "half.json", whole.substr(0, whole.size() / 2));
  const std::vector<std::string> schedule = {"bench", "schedule", "--device", "cpu", "--compare"};
  for (const char* file : {"update.json", "half.json", "tiny.yaml", "missing.json"}) {
    const Result result = preheat(with(schedule, {file}));
    expect_one_line(result, 1);
    EXPECT_THAT(result.err, HasSubstr(file));
    EXPECT_EQ(result.out, "");
  }
  for (const char* option : {"--json", "--html"}) {
    expect_one_line(
        preheat(with(small_update, {"--compare", "update.json", option, "update.json"})), 2);
  }
  EXPECT_EQ(bytes_of(folder_ / "update.json"), whole);
}

TEST_F(Cli, BenchWritesWhatItCan) {
  std::filesystem::create_directory(folder_ / "taken");
  const Result at_once = preheat(with(small_update, {"--json", "taken"}));
  expect_one_line(at_once, 1);
  EXPECT_EQ(at_once.err, "preheat: taken: cannot be written: Is a directory\n");
  EXPECT_THAT(at_once.out, Not(HasSubstr("median us")));
  const char* full = "/dev/full";
  if (!std::filesystem::exists(full)) GTEST_SKIP() << "no " << full;
  const Result result = preheat(with(small_update, {"--json", full, "--html", "page.html"}));
  expect_one_line(result, 1);
  EXPECT_EQ(result.err,
            "preheat: /dev/full: cannot be written: No space left on device; what was measured is "
            "in page.html\n");
  EXPECT_THAT(bytes_of(folder_ / "page.html"), HasSubstr("three_pass"));
}

TEST_F(Cli, AnInterruptedBenchKeepsWhatItHas) {
  struct Case {
    std::vector<std::string> arguments;
    std::string until;  // interrupted once this is on standard output
    int signal;
    std::string head;  // of the first figures
  };
  const std::vector<Case> cases = {
      {{"bench", "update", "--device", "cpu"}, "three_pass", SIGINT, "three_pass"},
      {{"bench", "step", "tiny.yaml", "--device", "cpu", "--seconds", "600"},
       "load",
       SIGTERM,
       "images per second"},
      {{"bench", "step", "tiny.yaml", "--device", "cpu", "--seconds", "0.1", "--replicas",
        "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19"},
       "replicas",
       SIGINT,
       "images per second"},
      {{"bench", "schedule", "--device", "cpu"}, "load", SIGINT, "lr_at on one core"}};
  for (const Case& c : cases) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(c.arguments, " ")));
    put_bytes(folder_ / "out", "");  // left by the case before
    put_bytes(folder_ / "cut.json", "old");
    std::filesystem::remove(folder_ / "cut.html");
    std::vector<std::string> arguments =
        with(c.arguments, {"--json", "cut.json", "--html", "cut.html"});
    arguments.insert(arguments.begin(), PREHEAT_BINARY);
    const pid_t child = start(arguments);
    EXPECT_TRUE(
        comes(child, [&] { return bytes_of(folder_ / "out").find(c.until) != std::string::npos; }));
    const auto asked = std::chrono::steady_clock::now();
    kill(child, c.signal);
    const Result result = wait(child);
    EXPECT_LT(std::chrono::steady_clock::now() - asked, std::chrono::minutes(1));
    expect_one_line(result, 1);
    for (const std::string& name : files()) EXPECT_FALSE(name.ends_with(".tmp")) << name;
    // On a busy machine the signal may arrive after the first figures; what is printed tells.
    if (result.out.find(c.head) == std::string::npos) {
      EXPECT_EQ(c.until, "load");
      EXPECT_EQ(
          result.err,
          "preheat: interrupted before anything was measured; nothing was written to cut.json "
          "and cut.html\n");
      EXPECT_EQ(bytes_of(folder_ / "cut.json"), "old");
      EXPECT_FALSE(std::filesystem::exists(folder_ / "cut.html"));
      continue;
    }
    EXPECT_NE(c.signal, SIGTERM) << "figures of 600 seconds";
    EXPECT_EQ(result.err, "preheat: interrupted; what was measured is in cut.json and cut.html\n");
    EXPECT_THAT(result.out, HasSubstr("interrupted and incomplete"));
    const auto json = nlohmann::json::parse(bytes_of(folder_ / "cut.json"));
    EXPECT_EQ(json["interrupted"], true);
    EXPECT_FALSE(json["figures"].empty());
    EXPECT_THAT(bytes_of(folder_ / "cut.html"), HasSubstr("interrupted and incomplete"));
    // An interrupted bench can be compared with, although it has fewer figures.
    if (c.arguments[1] == "update") {
      const Result beside = preheat(with(small_update, {"--compare", "cut.json"}));
      EXPECT_EQ(beside.code, 0) << beside.err;
      EXPECT_THAT(beside.out, HasSubstr("note: cut.json was interrupted"));
    }
  }
}

TEST_F(Cli, ABenchWhoseOutputNobodyReadsKeepsWhatItHas) {
  // Its first table, of the host, comes long after the line that is read.
  const std::string bench =
      "set -o pipefail; '" PREHEAT_BINARY "' bench schedule --quick --device cpu";
  const Result cut = bash(bench + " --json cut.json | head -1");
  EXPECT_EQ(cut.code, 1);
  EXPECT_EQ(cut.err, "preheat: interrupted; what was measured is in cut.json\n");
  const auto json = nlohmann::json::parse(bytes_of(folder_ / "cut.json"));
  EXPECT_EQ(json["interrupted"], true);
  EXPECT_FALSE(json["figures"].empty());
  // Without a file there is nothing to keep.
  EXPECT_EQ(bash(bench + " | head -1").code, 128 + SIGPIPE);
}

TEST_F(Cli, InfoSaysWhatThereIs) {
  const Result result = preheat({"info"});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.out, AllOf(HasSubstr("preheat"), HasSubstr(PREHEAT_VERSION), HasSubstr("cpu"),
                                HasSubstr("cuda"), HasSubstr("fashion-mnist"), HasSubstr("cifar10"),
                                Not(HasSubstr("use --device"))));
}

TEST_F(Cli, WhatIsWrongOnTheCommandLineIsNamed) {
  Result result = preheat({"trian", "tiny.yaml"});
  expect_one_line(result, 2);
  EXPECT_THAT(result.err, HasSubstr("did you mean train?"));
  result = preheat({"bench", "updates"});
  expect_one_line(result, 2);
  EXPECT_THAT(result.err, HasSubstr("'updates' is not a command of bench; did you mean update?"));
  result = preheat({"train", "tiny.yaml", "--device", "gpu"});
  expect_one_line(result, 2);
  EXPECT_THAT(result.err, HasSubstr("auto, cpu or cuda"));
  // A name with a line break or an escape sequence does not break the line.
  for (const auto& [arguments, code] :
       {std::pair<std::vector<std::string>, int>({"report", "no\n\x1b[31mrun"}, 1),
        {{"train", "tiny.yaml", "--out", "tiny.yaml/no\n\x1b[31mrun"}, 1},
        {{"schedule", "no\n\x1b[31mrun"}, 2},
        {{"info", "no\n\x1b[31mrun"}, 2}}) {
    result = preheat(arguments);
    expect_one_line(result, code);
    EXPECT_THAT(result.err, HasSubstr("no\\x0a\\x1b[31mrun"));
  }
  // A wrong configuration is reported as such even if the data are missing too.
  result = preheat({"train", "tiny.yaml", "--set", "data.dataset=cifar10", "--set",
                    "schedule.warmup.shape=linaer"});
  expect_one_line(result, 2);
  EXPECT_THAT(result.err, HasSubstr("linaer"));
}

// As a script gives them whose variable is unset; taken as not given, --resume would begin a run.
TEST_F(Cli, AnEmptyArgumentIsNotTakenAsNoneGiven) {
  const std::pair<std::vector<std::string>, std::string> wrong[] = {
      {{"train", "tiny.yaml", "--resume", ""}, "the argument after --resume is empty"},
      {{"train", "tiny.yaml", "--resume="}, "--resume: the value is empty"},
      {{"train", "tiny.yaml", "--out", ""}, "the argument after --out is empty"},
      {{"schedule", "tiny.yaml", "--csv", ""}, "the argument after --csv is empty"},
      {{"schedule", "tiny.yaml", "--csv=", "other.yaml"}, "--csv: the value is empty"},
      {{"schedule", "tiny.yaml", "--gate-opens", ""}, "the argument after --gate-opens is empty"},
      {{"report", "run", "-o", ""}, "the argument after -o is empty"},
      {{"schedule", ""}, "the argument after schedule is empty"},
      {{"report", ""}, "the argument after report is empty"}};
  for (const auto& [arguments, message] : wrong) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(arguments, " ")));
    const Result result = preheat(arguments);
    expect_one_line(result, 2);
    EXPECT_THAT(result.err, HasSubstr(message));
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "other.yaml"));
  // An empty value of a key is null.
  EXPECT_EQ(preheat({"schedule", "tiny.yaml", "--set=schedule.warmup.length="}).code, 0);
  EXPECT_EQ(preheat({"schedule", "tiny.yaml", "--set", "schedule.warmup.length="}).code, 0);
}

TEST_F(Cli, ADivergedRunKeepsItsStateAndIsNotResumed) {
  const Result result =
      preheat({"train", "tiny.yaml", "--quiet", "--out", "run", "--set", "schedule.base_lr=1e10",
               "--set", "schedule.warmup.length=0 steps"});
  expect_one_line(result, 3);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "run/checkpoints/last.ckpt"));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "run/report.html"));
  EXPECT_THAT(bytes_of(folder_ / "run/metrics.csv"), Not(HasSubstr("-nan")));
  const Result again =
      preheat({"train", "tiny.yaml", "--quiet", "--resume", "run", "--set", "schedule.base_lr=1e10",
               "--set", "schedule.warmup.length=0 steps"});
  expect_one_line(again, 1);
  EXPECT_THAT(again.err, HasSubstr("diverged at step"));
}

TEST_F(Cli, MemoryThatIsNotThereIsOne) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's own memory is beyond the limit";
#endif
  for (const char* file : {"metrics.csv", "summary.json"}) put_bytes(folder_ / file, "");
  std::filesystem::resize_file(folder_ / "summary.json", 1UL << 32);  // without blocks on disk
  const Result result = bash("ulimit -v 1500000; '" PREHEAT_BINARY "' report .");
  expect_one_line(result, 1);
  EXPECT_EQ(result.err, "preheat: out of memory\n");
}

TEST_F(Cli, StandardStreamsThatAreClosedHarmNoFile) {
  const Result result = bash("'" PREHEAT_BINARY "' train tiny.yaml --out run >&- 2>&- <&-");
  EXPECT_EQ(result.code, 0);
  const std::string metrics = bytes_of(folder_ / "run/metrics.csv");
  EXPECT_EQ(std::ranges::count(metrics, '\n'), 21);
  EXPECT_THAT(metrics, Not(HasSubstr("device")));
}

TEST_F(Cli, FewerThreadsThanCoresDoNotHang) {
  for (const char* limit : {"OMP_THREAD_LIMIT=1", "OMP_DYNAMIC=true", "OMP_NUM_THREADS=3"}) {
    const Result result =
        bash(std::string(limit) +
             " timeout 60 '" PREHEAT_BINARY "' train tiny.yaml --quiet --out " + limit);
    EXPECT_EQ(result.code, 0) << limit;
  }
}

// Their number decides the bits, not that of the cores.
TEST_F(Cli, AsManyThreadsGiveTheSameBitsOnAnyNumberOfCores) {
  for (const std::string cores : {"1", "3"}) {
    const Result result =
        bash("OMP_NUM_THREADS=" + cores +
             " '" PREHEAT_BINARY
             "' train tiny.yaml --device cpu --set train.cpu_threads=2 --quiet --out " +
             cores);
    EXPECT_EQ(result.code, 0) << result.err;
  }
  for (const char* file : {"metrics.csv", "checkpoints/last.ckpt"}) {
    EXPECT_EQ(bytes_of(folder_ / "1" / file), bytes_of(folder_ / "3" / file)) << file;
  }
}

// Where nothing says how long threads spin, it restarts itself with the same arguments; under
// another name it runs as it is.
TEST_F(Cli, RestartsItselfToSpinBriefly) {
  put_bytes(folder_ / "two words.yaml", tiny);
  std::filesystem::create_symlink(PREHEAT_BINARY, folder_ / "another");
  const Result expected = preheat({"schedule", "two words.yaml", "--csv", "-"});
  const std::vector<std::string> unset = {"env", "-u", "GOMP_SPINCOUNT", "-u", "OMP_WAIT_POLICY"};
  for (const std::string program : {PREHEAT_BINARY, "./another"}) {
    SCOPED_TRACE(program);
    const auto run = [&](std::vector<std::string> arguments) {
      arguments.insert(arguments.begin(), program);
      arguments.insert(arguments.begin(), unset.begin(), unset.end());
      return start(arguments);
    };
    const Result result = wait(run({"schedule", "two words.yaml", "--csv", "-"}));
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.out, expected.out);
    expect_one_line(wait(run({"schedule", "two words.yaml", "--set", "seed=x"})), 2);
    const pid_t child = run({"schedule", "two words.yaml", "--set",
                             "train.length=1000000000000 steps", "--csv", "rates.csv"});
    EXPECT_TRUE(comes(child, [&] { return std::filesystem::exists(folder_ / "rates.csv.1.tmp"); }));
    const std::string environment = bytes_of(fmt::format("/proc/{}/environ", child));
    EXPECT_EQ(environment.find("GOMP_SPINCOUNT=") != std::string::npos, program != "./another");
    kill(child, SIGINT);
    EXPECT_EQ(wait(child).code, 1);
  }
}

TEST_F(Cli, AnInterruptedTableLeavesWhatWasThere) {
  put_bytes(folder_ / "rates.csv", "old");
  const pid_t child = start({PREHEAT_BINARY, "schedule", "tiny.yaml", "--set",
                             "train.length=1000000000000 steps", "--csv", "rates.csv"});
  EXPECT_TRUE(comes(child, [&] { return std::filesystem::exists(folder_ / "rates.csv.1.tmp"); }));
  kill(child, SIGINT);
  const Result result = wait(child);
  expect_one_line(result, 1);
  EXPECT_THAT(result.err, HasSubstr("interrupted"));
  EXPECT_EQ(bytes_of(folder_ / "rates.csv"), "old");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "rates.csv.1.tmp"));
}

TEST_F(Cli, AScheduleLongerThanMemoryIsPrinted) {
  Result result = preheat({"schedule", "tiny.yaml", "--set", "train.length=1000000000000 steps"});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.out, HasSubstr("1000000000000 updates"));
  result = bash("'" PREHEAT_BINARY
                "' schedule tiny.yaml --set 'train.length=300000 steps' --csv - | tail -1");
  EXPECT_THAT(result.out, StartsWith("299999,29999,decay,"));
}

}  // namespace
}  // namespace preheat
