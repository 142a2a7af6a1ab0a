// The table on standard output, and the JSON of --json.
#pragma once
#include <iosfwd>
#include <string>

#include "train/bench/conditions.h"
#include "train/bench/worker.h"

namespace longreach::bench {

struct Conditions {
  Machine machine;
  double load_before = 0, load_after = 0;
};

void print_machine(std::ostream& out, const Machine& machine);
void print_table_header(std::ostream& out);
void print_row(std::ostream& out, const Row& row);
// What the columns mean, the measured peak, the load, and a warning when the machine was busy.
void print_footer(std::ostream& out, const Conditions& conditions, const Report& report);

// {"rows": [{"name", "T", "seconds"}, ...]} with one name a curve, ours and the peers', as `longreach plot`
// reads it.
nlohmann::json curves_json(const Report& report);

nlohmann::json to_json(const Conditions& conditions, const Report& report);
// Throws UserError when the file cannot be written.
void write_json(const std::string& path, const nlohmann::json& json);

}  // namespace longreach::bench
