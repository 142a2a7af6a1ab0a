#include "tests/ptx/interpreter/mutation.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <regex>
#include <sstream>

#include "core/error.h"

namespace longreach::ptx {
namespace {

// Calls f(line) for each line, with its end.
template <class F>
void for_lines(const std::string& text, F f) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    f(text.substr(at, end - at));
    at = end;
  }
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  check<DataError>(in.good(), path.string(), ": cannot be read");
  return text.str();
}

// Follows braces that begin a line: bodies of kernels, and blocks of inline assembly in them.
class Depth {
 public:
  void read(const std::string& line) {
    const size_t at = line.find_first_not_of(" \t");
    if (at == std::string::npos) return;
    if (line[at] == '{') ++depth_;
    if (line[at] == '}') --depth_;
  }
  int value() const { return depth_; }

 private:
  int depth_ = 0;
};

// The file with one kernel alone: what stands outside of kernels stays. Parsing the others would take most of
// the time.
std::string only_kernel(const std::string& file, const std::string& kernel) {
  std::string kept;
  Depth depth;
  bool inside = false, wanted = true, found = false;
  for_lines(file, [&](const std::string& line) {
    const size_t entry = line.find(".entry ");
    if (entry != std::string::npos) {
      inside = true;
      wanted = line.compare(entry + 7, kernel.size() + 1, kernel + "(") == 0;
      found = found || wanted;
    }
    if (!inside || wanted) kept += line;
    const int before = depth.value();
    depth.read(line);
    if (before == 1 && depth.value() == 0) inside = false;
  });
  check<DataError>(found, "no kernel ", kernel);
  return kept;
}

std::string edit(const std::string& code, const Mutant& mutant) {
  const std::regex pattern(mutant.pattern);
  std::string edited;
  int matches = 0;
  Depth depth;
  for_lines(code, [&](const std::string& line) {
    depth.read(line);
    const std::string body = line.substr(0, line.find('\n'));
    if (depth.value() == 0 || !std::regex_search(body, pattern)) {
      edited += line;
      return;
    }
    const bool chosen = mutant.which == kEverywhere || mutant.which == matches;
    ++matches;
    edited += chosen ? std::regex_replace(body, pattern, mutant.replacement) + "\n" : line;
  });
  check<DataError>(edited != code, mutant.name, ": ", mutant.pattern, " number ", mutant.which,
                   " changes nothing in ", mutant.kernel, ", which has ", matches, " such lines");
  return edited;
}

std::string code_of(const std::string& file, const std::string& kernel) {
  static std::map<std::string, std::string> files, kernels;
  const auto known = kernels.find(kernel);
  if (known != kernels.end()) return known->second;
  auto text = files.find(file);
  if (text == files.end())
    text =
        files.emplace(file, read_file(std::filesystem::path(LONGREACH_CUDA_FOLDER) / (file + ".ptx"))).first;
  return kernels[kernel] = only_kernel(text->second, kernel);
}

}  // namespace

const Module& Kernels::module_of(const std::string& kernel) const {
  const auto known = modules_.find(kernel);
  if (known != modules_.end()) return known->second;
  return modules_.emplace(kernel, Module::parse(code_of(file_of_(kernel), kernel), kernel)).first->second;
}

Kernels Kernels::with(const Mutant& mutant) const {
  Kernels faulty(*this);
  faulty.modules_.insert_or_assign(
      mutant.kernel,
      Module::parse(edit(code_of(file_of_(mutant.kernel), mutant.kernel), mutant), mutant.name));
  return faulty;
}

void Outcome::add(const Report& report) {
  errors.insert(errors.end(), report.errors.begin(), report.errors.end());
  wavefronts = std::max(wavefronts, report.shared_wavefront_ratio());
  sectors = std::max(sectors, report.sector_ratio());
}

std::string judge(const Mutant& mutant, const Outcome& outcome, double limit) {
  const std::string wanted = mutant.caught_by;
  const std::string numbers = text("; numbers off by ", outcome.error, ", wavefronts ", outcome.wavefronts);
  if (wanted != kNumbers && wanted != kWavefronts) {
    for (const std::string& error : outcome.errors)
      if (error.find(wanted) != std::string::npos) return "";
    return text("nothing says \"", wanted, "\"; ", outcome.errors.size(),
                " errors: ", outcome.errors.empty() ? "" : outcome.errors[0], numbers);
  }
  if (!outcome.errors.empty()) return text("an error instead of ", wanted, ": ", outcome.errors[0], numbers);
  const bool wrong = !(outcome.error <= limit);
  if (wanted == kNumbers) return wrong ? "" : text("not noticed", numbers);
  return !wrong && outcome.wavefronts > 1.05 ? "" : text("not noticed as waste", numbers);
}

double relative_rms(std::span<const float> found, std::span<const double> exact) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error += std::pow(found[i] - exact[i], 2);
    norm += exact[i] * exact[i];
  }
  return std::sqrt(error / norm);
}

}  // namespace longreach::ptx
