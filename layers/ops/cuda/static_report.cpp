#include "layers/ops/cuda/static_report.h"

#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <sstream>

#include "core/error.h"

namespace longreach::cuda {
namespace {

// Calls f(line) for each line, without its end.
template <class F>
void for_lines(std::string_view text, F f) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    f(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

std::string_view after(std::string_view line, std::string_view words) {
  const size_t at = line.find(words);
  return at == std::string_view::npos ? std::string_view{} : line.substr(at + words.size());
}

std::string_view until(std::string_view line, std::string_view ends) {
  return line.substr(0, line.find_first_of(ends));
}

std::string_view without_spaces_before(std::string_view line) {
  const size_t at = line.find_first_not_of(" \t");
  return at == std::string_view::npos ? std::string_view{} : line.substr(at);
}

// The number before `words`: "4 bytes spill stores".
std::optional<int64_t> number_before(std::string_view line, std::string_view words) {
  const size_t at = line.find(words);
  if (at == std::string_view::npos) return {};
  size_t first = at;
  while (first > 0 && line[first - 1] >= '0' && line[first - 1] <= '9') --first;
  int64_t value = 0;
  if (std::from_chars(line.data() + first, line.data() + at, value).ptr != line.data() + at || first == at)
    return {};
  return value;
}

bool is_global(std::string_view opcode, std::string_view start) {
  return opcode.starts_with(start) && opcode.find(".global") != std::string_view::npos;
}

// Bytes a lane of ld and st: "ld.global.v4.f32" is 16.
int64_t access_bytes(std::string_view opcode) {
  int64_t bits = 0;
  const size_t type = opcode.rfind('.');
  std::from_chars(opcode.data() + type + 2, opcode.data() + opcode.size(), bits);
  const int64_t lanes = opcode.find(".v4") != std::string_view::npos   ? 4
                        : opcode.find(".v2") != std::string_view::npos ? 2
                                                                       : 1;
  return bits / 8 * lanes;
}

// Follows one kernel's text line by line.
class CodeReader {
 public:
  explicit CodeReader(std::string_view kernel) { code_.kernel = kernel; }

  void read(std::string_view line) {
    line = without_spaces_before(line);
    if (line.starts_with('$')) {
      labels_[std::string(until(line, ":"))] = {instructions_, code_.tensor};
      return;
    }
    if (line.starts_with('@')) line = without_spaces_before(without_guard(line));
    if (line.empty() || line[0] < 'a' || line[0] > 'z') return;
    ++instructions_;
    count(until(line, " \t;"), line);
  }

  Code take() {
    if (code_.loop_tensor == 0 && code_.tensor > 0) {
      code_.loop_tensor = code_.tensor;
      code_.loop_instructions = instructions_;
    }
    return std::move(code_);
  }

 private:
  struct Place {
    int64_t instructions, tensor;
  };

  static std::string_view without_guard(std::string_view line) {
    const size_t end = line.find_first_of(" \t");
    return end == std::string_view::npos ? std::string_view{} : line.substr(end);
  }

  void count(std::string_view opcode, std::string_view line) {
    if (opcode.starts_with("mma.") || opcode.starts_with("wgmma.mma_async")) ++code_.tensor;
    if (opcode == "bra" || opcode == "bra.uni") branch(line);
    if (is_global(opcode, "ld.") && opcode.find(".param") == std::string_view::npos)
      ++(access_bytes(opcode) >= 16 ? code_.wide_loads : code_.narrow_loads);
    if (is_global(opcode, "st.")) ++(access_bytes(opcode) >= 16 ? code_.wide_stores : code_.narrow_stores);
    if (is_global(opcode, "cp.async.c"))
      ++(line.find("], 16") != std::string_view::npos ? code_.wide_loads : code_.narrow_loads);
  }

  void branch(std::string_view line) {
    const size_t name = line.find('$');
    if (name == std::string_view::npos) return;
    const auto label = labels_.find(std::string(until(line.substr(name), "; \t")));
    if (label == labels_.end()) return;  // forward
    const int64_t tensor = code_.tensor - label->second.tensor,
                  length = instructions_ - label->second.instructions;
    if (tensor == 0 || tensor < code_.loop_tensor) return;
    if (tensor == code_.loop_tensor && length >= code_.loop_instructions) return;
    code_.loop_tensor = tensor;
    code_.loop_instructions = length;
  }

  Code code_;
  int64_t instructions_ = 0;
  std::map<std::string, Place> labels_;
};

// The numbers of a row, in the order of the table's columns.
template <class Row>
auto columns_of(Row& row) {
  auto& r = row.resources;
  auto& c = row.code;
  return std::array{&r.registers,     &r.stack,        &r.spill_stores, &r.spill_loads,
                    &r.static_shared, &c.tensor,       &c.loop_tensor,  &c.loop_instructions,
                    &c.wide_loads,    &c.narrow_loads, &c.wide_stores,  &c.narrow_stores};
}

}  // namespace

std::vector<Resources> parse_ptxas(std::string_view text, const std::string& name) {
  std::vector<Resources> all;
  bool spills = true, registers = true;
  const auto finish = [&] {
    check<DataError>(spills && registers, name, ": ptxas says nothing of the ",
                     registers ? "spills" : "registers", " of ", all.empty() ? "" : all.back().kernel);
  };
  for_lines(text, [&](std::string_view line) {
    if (const std::string_view entry = after(line, "Compiling entry function '"); !entry.empty()) {
      finish();
      spills = registers = false;
      all.push_back(
          {.kernel = std::string(until(entry, "'")), .arch = std::string(until(after(entry, "for '"), "'"))});
      return;
    }
    if (all.empty()) return;
    Resources& r = all.back();
    if (const auto stores = number_before(line, " bytes spill stores")) {
      spills = true;
      r.spill_stores = *stores;
      r.spill_loads = number_before(line, " bytes spill loads").value_or(0);
      r.stack = number_before(line, " bytes stack frame").value_or(0);
    }
    if (const auto used = number_before(line, " registers")) {
      registers = true;
      r.registers = *used;
      r.static_shared = number_before(line, " bytes smem").value_or(0);
    }
  });
  finish();
  return all;
}

std::vector<Code> parse_ptx(std::string_view text) {
  std::vector<Code> all;
  std::optional<CodeReader> reader;
  int depth = 0;
  for_lines(text, [&](std::string_view line) {
    if (const std::string_view entry = after(line, ".entry "); !entry.empty())
      reader.emplace(until(entry, "("));
    if (!reader) return;
    reader->read(line);
    // Blocks of inline assembly have braces of their own.
    const std::string_view trimmed = without_spaces_before(line);
    if (trimmed.starts_with('{')) ++depth;
    if (!trimmed.starts_with('}') || --depth > 0) return;
    all.push_back(reader->take());
    reader.reset();
  });
  return all;
}

std::vector<StaticRow> join_reports(const std::vector<Resources>& resources, const std::vector<Code>& code,
                                    const std::string& name) {
  std::map<std::string, Code> by_kernel;
  for (const Code& c : code) by_kernel[c.kernel] = c;
  std::vector<StaticRow> rows;
  for (const Resources& r : resources) {
    const auto found = by_kernel.find(r.kernel);
    check<DataError>(found != by_kernel.end(), name, ": no kernel ", r.kernel, " in the PTX");
    rows.push_back({r, found->second});
  }
  return rows;
}

std::string write_table(const std::vector<StaticRow>& rows) {
  std::ostringstream out;
  for (const StaticRow& row : rows) {
    out << row.resources.kernel << ' ' << row.resources.arch;
    for (const int64_t* column : columns_of(row)) out << ' ' << *column;
    out << '\n';
  }
  return out.str();
}

std::vector<StaticRow> read_table(std::string_view text, const std::string& name) {
  std::vector<StaticRow> rows;
  int64_t number = 0;
  for_lines(text, [&](std::string_view line) {
    ++number;
    if (line.empty()) return;
    StaticRow row;
    std::istringstream in{std::string(line)};
    in >> row.resources.kernel >> row.resources.arch;
    for (int64_t* column : columns_of(row)) in >> *column;
    std::string rest;
    check<DataError>(!in.fail() && !(in >> rest), name, ": line ", number,
                     ": expected a kernel, an architecture and 12 numbers, found \"", line, '"');
    row.code.kernel = row.resources.kernel;
    rows.push_back(row);
  });
  return rows;
}

}  // namespace longreach::cuda
