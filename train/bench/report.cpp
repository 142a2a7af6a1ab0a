// Prints and writes what was measured.
#include "train/bench/report.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "core/error.h"

namespace longreach::bench {
namespace {

std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));
std::string format(const char* pattern, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(line, sizeof line, pattern, arguments);
  va_end(arguments);
  return line;
}

}  // namespace

void print_machine(std::ostream& out, const Machine& machine) {
  out << "machine  " << machine.cpu << ", " << machine.cores << " core(s), " << machine.has.names() << "; "
      << machine.libraries << std::endl;
}

void print_table_header(std::ostream& out) {
  out << format("%-18s %7s %-8s %-7s %3s %10s %10s %9s %6s %9s  %-12s %10s %10s %9s %9s", "name", "T",
                "dtype", "pass", "thr", "min ms", "median ms", "GFLOP/s", "peak", "ns/tok.hd", "peer",
                "min ms", "median ms", "ratio", "of minima")
      << std::endl;
}

void print_row(std::ostream& out, const Row& row) {
  const Setting& s = row.setting;
  out << format("%-18s %7lld %-8s %-7s %3d ", s.name.c_str(), static_cast<long long>(s.tokens),
                s.dtype.c_str(), s.pass.c_str(), s.threads);
  if (!row.refused.empty()) {
    out << "refused: " << one_line(row.refused) << std::endl;
    return;
  }
  out << format("%10.3f %10.3f %9.1f %5.0f%% %9.1f", 1e3 * row.seconds_min, 1e3 * row.seconds_median,
                1e-9 * row.flops / row.seconds_min, 100 * row.peak_share, row.nanoseconds_per_token_head());
  if (!s.peer.empty()) {
    const std::string peer = s.peer + (row.peer_same_function ? "" : "*");
    out << format("  %-12s %10.3f %10.3f %8.2fx %8.2fx", peer.c_str(), 1e3 * row.peer_seconds_min,
                  1e3 * row.peer_seconds_median, row.ratio, row.ratio_of_minima);
  }
  out << std::endl;
}

void print_footer(std::ostream& out, const Conditions& conditions, const Report& report) {
  const auto any = [&](auto predicate) { return std::ranges::any_of(report.rows, predicate); };
  out << "time     process CPU time at one thread, wall time at more; ratio: peer / ours, median over "
         "rounds\n";
  if (any([](const Row& row) {
        return row.refused.empty() && !row.setting.peer.empty() && !row.peer_same_function;
      })) {
    out << "peer*    dense causal attention over the same inputs: what ours replaces, not what it computes\n";
  }
  out << format("peak     %.0f GFLOP/s float32, %.0f bfloat16, measured, one thread\n",
                1e-9 * report.peak.float32, 1e-9 * report.peak.bfloat16);
  out << format("load     %.2f before, %.2f after\n", conditions.load_before, conditions.load_after);
  int threads = 1;
  for (const Row& row : report.rows) threads = std::max(threads, row.setting.threads);
  const std::string warning = busy_warning(conditions.load_before, conditions.load_after, threads);
  if (!warning.empty()) out << warning << "\n";
  out << std::flush;
}

nlohmann::json curves_json(const Report& report) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Row& row : report.rows) {
    if (!row.refused.empty()) continue;
    const Setting& s = row.setting;
    const std::string how = text(", ", s.dtype, ", ", s.pass, ", ", s.threads, " thread(s)");
    rows.push_back({{"name", s.name + how}, {"T", s.tokens}, {"seconds", row.seconds_min}});
    if (!s.peer.empty()) {
      rows.push_back({{"name", s.peer + how}, {"T", s.tokens}, {"seconds", row.peer_seconds_min}});
    }
  }
  return {{"rows", rows}};
}

nlohmann::json to_json(const Conditions& conditions, const Report& report) {
  const Machine& machine = conditions.machine;
  return {{"machine",
           {{"cpu", machine.cpu},
            {"cores", machine.cores},
            {"avx2", machine.has.avx2},
            {"avx512", machine.has.avx512},
            {"avx512_bf16", machine.has.avx512_bf16},
            {"amx", machine.has.amx},
            {"libraries", machine.libraries},
            {"load_before", conditions.load_before},
            {"load_after", conditions.load_after},
            {"peak_float32", report.peak.float32},
            {"peak_bfloat16", report.peak.bfloat16}}},
          {"rows", report.rows}};
}

void write_json(const std::string& path, const nlohmann::json& json) {
  std::ofstream file(path);
  file << json.dump(2) << "\n";
  file.flush();
  check<UserError>(file.good(), one_line(path), ": cannot be written");
}

}  // namespace longreach::bench
