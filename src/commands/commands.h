// One function per subcommand: adds it to the command line. CLI11's callback runs the chosen one
// and sets `exit_code` if it ends with something other than 0.
#pragma once

namespace CLI {
class App;
}

namespace preheat {

void add_train_command(CLI::App& app, int& exit_code);
void add_compare_command(CLI::App& app, int& exit_code);
void add_sweep_command(CLI::App& app, int& exit_code);
void add_find_lr_command(CLI::App& app, int& exit_code);
void add_report_command(CLI::App& app);
void add_schedule_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_info_command(CLI::App& app);

}  // namespace preheat
