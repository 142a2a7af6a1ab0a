// Modules as users see them: files, names, and where an instruction comes from.
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "tests/ptx/interpreter/machine.h"

namespace longreach::ptx {

Module Module::load(const std::filesystem::path& file) {
  std::ifstream in(file);
  check<DataError>(in.good(), file.string(), ": cannot be read");
  std::ostringstream all;
  all << in.rdbuf();
  return parse(all.str(), file.filename().string());
}

Module load_kernels(std::string_view name) {
  return Module::load(std::filesystem::path(LONGREACH_CUDA_FOLDER) / (std::string(name) + ".ptx"));
}

const Kernel& Module::kernel(const std::string& name) const {
  const auto found = data_->kernels.find(name);
  check<DataError>(found != data_->kernels.end(), data_->file, ": no kernel ", name, "; there are ",
                   join(kernel_names()));
  return found->second;
}

std::vector<std::string> Module::kernel_names() const {
  std::vector<std::string> names;
  for (const auto& [name, kernel] : data_->kernels) names.push_back(name);
  return names;
}

std::string source_text(const Kernel& kernel, uint32_t code) {
  const Location& lines = kernel.locations[kernel.code[code].location];
  std::string all;
  for (size_t k = 0; k < lines.size() && k < 4; ++k) {
    all += text(k ? ", inlined at " : "", lines[k].file, ":", lines[k].line);
  }
  return all.empty() ? text("instruction ", code) : all;
}

std::string location_text(const Kernel& kernel, uint32_t code) {
  if (code >= kernel.code.size()) return "?";
  return text(source_text(kernel, code), ", ", kernel.opcodes[kernel.code[code].opcode]);
}

}  // namespace longreach::ptx
