// The driver: gradients of sum <gout.x, out.x>, limits, and the report.
#include "train/verify/verify.h"

#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <ostream>
#include <set>

#include "data/common/files.h"
#include "train/verify/compare.h"
#include "train/verify/runners.h"

namespace longreach::verify {
namespace {

// One run of a file: every tensor it names, got or not.
struct Produced {
  std::map<std::string, at::Tensor> tensors;  // out.* and grad.*
  std::set<std::string> lists;                // out.* whose last axis holds sets
  std::vector<std::string> unused;            // in.* and param.* that nothing read
  std::vector<std::string> without_output;    // gout.* of outputs that do not exist
};

const Runner& runner_of(const VectorFile& file) {
  const auto found = runners().find(file.mechanism());
  if (found != runners().end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [name, runner] : runners()) known.push_back(name);
  throw UnknownCase(one_line(text(file.path(), ": unknown mechanism `", one_line(file.mechanism(), 60), "`",
                                  did_you_mean(file.mechanism(), known), " known: ", join(known))));
}

void differentiate(Case& run, Produced& produced) {
  at::Tensor total;
  for (const std::string& name : run.file.names("gout.")) {
    const auto found = run.outputs.find(name);
    const at::Tensor weights = run.file.tensor("gout." + name).to(at::kDouble);
    if (found == run.outputs.end() || found->second.sizes() != weights.sizes()) {
      produced.without_output.push_back("gout." + name);
      continue;
    }
    if (!found->second.requires_grad()) continue;
    const at::Tensor term = (found->second.to(at::kDouble) * weights).sum();
    total = total.defined() ? total + term : term;
  }
  if (total.defined()) total.backward();
  for (const auto& [name, leaf] : run.leaves)
    produced.tensors["grad." + name] = leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf);
}

Produced produce(const VectorFile& file, Implementation implementation, at::ScalarType dtype) {
  Case run(file, implementation, dtype);
  runner_of(file).run(run);
  Produced produced;
  for (const auto& [name, value] : run.outputs) produced.tensors["out." + name] = value.detach();
  for (const std::string& name : run.lists) produced.lists.insert("out." + name);
  differentiate(run, produced);
  for (const char* prefix : {"in.", "param."})
    for (const std::string& name : file.names(prefix))
      if (!run.used.count(prefix + name)) produced.unused.push_back(prefix + name);
  return produced;
}

// The largest finite numbers of a file's references, by kind: what an absolute floor is measured by.
struct Largest {
  double input, output, gradient;
};

// The largest finite number of the floating tensors under these prefixes.
double largest_of(const VectorFile& file, std::initializer_list<const char*> prefixes) {
  double largest = 0;
  for (const char* prefix : prefixes)
    for (const std::string& name : file.names(prefix)) {
      const at::Tensor tensor = file.tensor(prefix + name);
      if (!at::isFloatingType(tensor.scalar_type()) || tensor.numel() == 0) continue;
      const double most = tensor.to(at::kDouble).abs().nan_to_num(0, 0, 0).max().item<double>();
      largest = std::max(largest, most);
    }
  return largest;
}

TensorResult unknown_tensor(const std::string& name, const Produced& got) {
  std::vector<std::string> known;
  for (const auto& [produced, tensor] : got.tensors) known.push_back(produced);
  return {.name = name,
          .failed = true,
          .unknown = true,
          .why = text("is unknown, so it was not compared", did_you_mean(name, known),
                      " (compared here: ", join(known), ")")};
}

// Neither an input nor something to compare: a name that was mistyped must not go unseen.
std::vector<std::string> stray_names(const VectorFile& file) {
  std::vector<std::string> stray;
  for (const std::string& name : file.names("")) {
    const auto begins = [&](const char* prefix) { return name.starts_with(prefix); };
    if (!begins("in.") && !begins("param.") && !begins("gout.") && !begins("out.") && !begins("grad."))
      stray.push_back(name);
  }
  return stray;
}

TensorResult judge(const std::string& name, const at::Tensor& wanted, const Produced& got,
                   const Produced* own, at::ScalarType dtype, const Largest& largest) {
  TensorResult result{.name = name};
  const auto found = got.tensors.find(name);
  if (found == got.tensors.end()) return unknown_tensor(name, got);
  const bool as_sets = got.lists.count(name) > 0;
  const Difference difference = verify::difference(found->second, wanted, as_sets);
  const double own_error = own && own->tensors.count(name)
                               ? verify::difference(own->tensors.at(name), wanted, as_sets).relative()
                               : 0;
  result.error = difference.relative();
  result.limit = relative_limit(dtype, own_error);
  result.rms = difference.rms;
  result.floor = absolute_floor(dtype, result.error, largest.input,
                                name.starts_with("out.") ? largest.output : largest.gradient);
  result.failed = !difference.broken.empty() || !(result.error <= result.limit || result.rms <= result.floor);
  if (result.failed)
    result.why = difference.broken.empty() ? "is too far from the reference" : difference.broken;
  return result;
}

RunResult run_once(const VectorFile& file, Implementation implementation, at::ScalarType dtype) {
  RunResult result{implementation, dtype, {}, {}};
  std::vector<std::string> names;
  for (const char* prefix : {"out.", "grad."})
    for (const std::string& name : file.names(prefix)) names.push_back(prefix + name);
  if (names.empty()) result.failure = "holds nothing to compare (no out.* and no grad.*)";
  const Produced got = produce(file, implementation, dtype);
  // In float64 the reference is held to an absolute measure, elsewhere to its own rounding.
  std::optional<Produced> own;
  if (dtype != at::kDouble) own = produce(file, Implementation::reference, dtype);
  const Largest largest{largest_of(file, {"in.", "param."}), largest_of(file, {"out."}),
                        largest_of(file, {"grad."})};
  for (const std::string& name : names)
    result.tensors.push_back(judge(name, file.tensor(name), got, own ? &*own : nullptr, dtype, largest));
  for (const std::string& name : stray_names(file)) result.tensors.push_back(unknown_tensor(name, got));
  for (const std::string& name : got.unused)
    result.tensors.push_back({.name = name, .failed = true, .why = "is not used"});
  for (const std::string& name : got.without_output)
    result.tensors.push_back({.name = name, .failed = true, .why = "has no output of its name and shape"});
  return result;
}

const char* dtype_name(at::ScalarType dtype) {
  return dtype == at::kDouble ? "float64" : dtype == at::kFloat ? "float32" : "bfloat16";
}

std::string tensor_line(const std::string& path, const RunResult& run, const TensorResult& tensor) {
  char numbers[128];
  std::snprintf(numbers, sizeof numbers, "error %.2e limit %.2e", tensor.error, tensor.limit);
  if (tensor.by_floor())
    std::snprintf(numbers, sizeof numbers, "error %.2e beyond %.2e, but rms %.2e within the floor %.2e",
                  tensor.error, tensor.limit, tensor.rms, tensor.floor);
  const char* implementation = run.implementation == Implementation::fused ? "fused" : "reference";
  return one_line(text(tensor.failed ? "FAIL " : "ok   ", path, " ", implementation, " ",
                       dtype_name(run.dtype), " ", tensor.name, " ", numbers,
                       tensor.failed ? ": " + tensor.why : ""));
}

std::vector<std::string> files_of(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    std::vector<std::string> inside = data::list_files(path);
    std::erase_if(inside, [](const std::string& file) { return !file.ends_with(".safetensors"); });
    check<DataError>(!inside.empty(), path, ": a folder without .safetensors files");
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

struct Tally {
  int64_t tensors = 0, failed = 0;
  bool unknown = false;
};

void report(const std::string& path, const RunResult& run, std::ostream& out, Tally& tally) {
  for (const TensorResult& tensor : run.tensors) {
    out << tensor_line(path, run, tensor) << "\n";
    ++tally.tensors;
    tally.failed += tensor.failed;
    tally.unknown = tally.unknown || tensor.unknown;
  }
  if (run.failure.empty()) return;
  out << one_line(text("FAIL ", path, " ", run.failure)) << "\n";
  ++tally.failed;
}

}  // namespace

std::vector<RunResult> verify_file(const std::string& path, const Options& options) {
  const VectorFile file(path);
  std::vector<RunResult> results;
  const auto run = [&](Implementation implementation) {
    const bool fused = implementation == Implementation::fused, only = options.implementation.has_value();
    const at::ScalarType otherwise = fused ? at::kFloat : at::kDouble;
    const at::ScalarType dtype = fused || only ? options.dtype.value_or(otherwise) : otherwise;
    results.push_back(run_once(file, implementation, dtype));
  };
  if (options.implementation.value_or(Implementation::reference) == Implementation::reference)
    run(Implementation::reference);
  if (options.implementation.value_or(Implementation::fused) == Implementation::fused)
    run(Implementation::fused);
  return results;
}

int verify_files(const std::vector<std::string>& paths, const Options& options, std::ostream& out,
                 std::ostream& errors) {
  const std::vector<std::string> files = files_of(paths);
  Tally tally;
  bool unreadable = false;
  for (const std::string& path : files) {
    try {
      for (const RunResult& run : verify_file(path, options)) report(path, run, out, tally);
    } catch (const ShapeError& error) {  // the operator refuses what the file holds
      out << one_line(text("FAIL ", path, " ", error.what())) << "\n";
      ++tally.failed;
    } catch (const UserError& error) {
      errors << one_line(error.what()) << "\n";
      unreadable = true;
    } catch (const c10::Error& error) {
      out << one_line(text("FAIL ", path, " ", error.what_without_backtrace())) << "\n";
      ++tally.failed;
    }
  }
  out << files.size() << " files, " << tally.tensors << " tensors, " << tally.failed << " failed\n";
  return unreadable || tally.unknown ? 2 : tally.failed > 0 ? 1 : 0;
}

}  // namespace longreach::verify
