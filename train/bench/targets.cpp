// The closed list of goals and their verdicts.
#include "train/bench/targets.h"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <set>

#include "core/error.h"
#include "train/bench/bench_case.h"

namespace longreach::bench {
namespace {

constexpr int64_t kFlatLengths[] = {2048, 4096, 8192, 16384, 32768, 65536};
constexpr const char* kFlatCase = "lightning";

std::string fixed(double value, int digits) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

void print_line(std::ostream& out, const std::string& what, const std::string& measured,
                const std::string& verdict) {
  char line[256];
  std::snprintf(line, sizeof line, "%-62s %-28s %s", what.c_str(), measured.c_str(), verdict.c_str());
  out << line << std::endl;
}

std::string verdict(double measured, double required) {
  if (required == 0) return "no target on this machine";
  return text(measured >= required ? "met" : "not met", " (>= ", fixed(required, 2), "x)");
}

const Row* find_row(const std::vector<Row>& rows, const Target& target, int threads) {
  const auto found = std::ranges::find_if(rows, [&](const Row& row) {
    const Setting& s = row.setting;
    return s.name == target.name && s.dtype == target.dtype && s.pass == target.pass &&
           s.tokens == target.tokens && s.threads == threads && s.peer == target.peer;
  });
  return found == rows.end() ? nullptr : &*found;
}

}  // namespace

const std::vector<Target>& targets() {
  // Against the dense kernel: this share of what the pairs left out would save.
  const auto of_pairs = [](double share, int64_t tokens) { return share * causal_over_listed_pairs(tokens); };
  static const std::vector<Target> all{
      {"interval_attention", "float32", "forward", 8192, 1.25},
      {"interval_attention", "float32", "forward", 16384, 1.25},
      {"interval_attention", "bfloat16", "forward", 8192, 2.0},
      {"interval_attention", "bfloat16", "forward", 16384, 2.0},
      {"interval_attention", "float32", "both", 8192, 1.6},
      {"interval_attention", "bfloat16", "both", 8192, 1.6},
      {"block_attention", "float32", "forward", 16384, 10.0},
      {"block_attention", "bfloat16", "forward", 16384, 15.0},
      {"block_attention", "float32", "both", 8192, 11.0},
      {"block_attention", "float32", "forward", 16384, of_pairs(0.85, 16384), "dense"},
      {"block_attention", "bfloat16", "forward", 16384, of_pairs(0.75, 16384), "dense"},
      {"block_attention", "float32", "both", 8192, of_pairs(0.85, 8192), "dense"},
      {"lightning", "float32", "both", 16384, 60.0},
  };
  return all;
}

double required_ratio(const Target& target, const Machine& machine) {
  if (machine.targets_apply() || target.peer == "dense") return target.ratio;
  return target.dtype == "float32" ? 1.0 : 0.0;
}

std::vector<Setting> target_settings(const std::vector<int>& thread_counts, int rounds) {
  std::vector<Setting> settings;
  for (const int threads : thread_counts) {
    for (const Target& target : targets()) {
      settings.push_back({.name = target.name,
                          .peer = target.peer,
                          .tokens = target.tokens,
                          .dtype = target.dtype,
                          .pass = target.pass,
                          .threads = threads,
                          .rounds = rounds});
    }
    for (const int64_t tokens : kFlatLengths) {
      settings.push_back({.name = kFlatCase,
                          .peer = "",
                          .tokens = tokens,
                          .pass = "both",
                          .threads = threads,
                          .rounds = rounds});
    }
  }
  return settings;
}

double spread_of_cost(const std::vector<Row>& rows) {
  double smallest = 0, largest = 0;
  for (const Row& row : rows) {
    if (row.setting.name != kFlatCase || !row.setting.peer.empty() || !row.refused.empty()) continue;
    const double cost = row.nanoseconds_per_token_head();
    smallest = smallest == 0 ? cost : std::min(smallest, cost);
    largest = std::max(largest, cost);
  }
  return smallest > 0 ? (largest - smallest) / smallest : 0;
}

void print_targets(std::ostream& out, const Machine& machine, const std::vector<Row>& rows) {
  out << "targets apply to CPUs with AVX-512-BF16 and without AMX; this machine "
      << (machine.targets_apply() ? "is one" : "is not one: float32 must be no slower than the peer") << "\n";
  std::set<int> thread_counts;
  for (const Row& row : rows) thread_counts.insert(row.setting.threads);
  for (const int threads : thread_counts) {
    for (const Target& target : targets()) {
      const Row* row = find_row(rows, target, threads);
      if (row == nullptr) continue;
      const std::string what = text(target.name, " ", target.dtype, " ", target.pass, " T=", target.tokens,
                                    target.peer == "dense" ? " over dense, " : ", ", threads, " thread(s)");
      if (!row->refused.empty()) {
        print_line(out, what, "refused", one_line(row->refused));
        continue;
      }
      print_line(out, what, text(fixed(row->ratio, 2), "x of ", fixed(target.ratio, 2), "x"),
                 verdict(row->ratio, required_ratio(target, machine)));
    }
    std::vector<Row> mine;
    std::ranges::copy_if(rows, std::back_inserter(mine),
                         [&](const Row& row) { return row.setting.threads == threads; });
    const double spread = spread_of_cost(mine);
    if (spread == 0) continue;
    print_line(out, text("lightning cost per token, T=2048..65536, ", threads, " thread(s)"),
               text("spread ", fixed(100 * spread, 1), " %"),
               spread <= kFlatness ? "met (<= 10 %)" : "not met (<= 10 %)");
  }
  // What more threads bring: wall over wall of the same row.
  for (const Target& target : targets()) {
    const Row* one = find_row(rows, target, 1);
    const Row* two = find_row(rows, target, 2);
    if (target.peer != "sdpa" || one == nullptr || two == nullptr || one->wall_min == 0 || two->wall_min == 0)
      continue;
    const double scaling = one->wall_min / two->wall_min;
    print_line(
        out,
        text(target.name, " ", target.dtype, " ", target.pass, " T=", target.tokens, ", 2 threads over 1"),
        text(fixed(scaling, 2), "x"), text(scaling >= 1.8 ? "met" : "not met", " (>= 1.80x)"));
  }
}

}  // namespace longreach::bench
