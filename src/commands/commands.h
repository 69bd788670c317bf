// One function per subcommand: adds it to the command line. When the subcommand is chosen its work
// is done by CLI11's callback, and `exit_code` says how it ended where that is not 0.
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
