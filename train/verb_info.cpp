// `longreach info [MECHANISM|cuda]`: the build, the machine, and every mechanism with its options, defaults and
// source; or what is known of the CUDA kernels without a device.
#include <ATen/Version.h>

#include <iomanip>
#include <iostream>

#include "core/config.h"
#include "layers/attention_config.h"
#include "layers/ops/cuda/backend.h"
#include "layers/ops/matmul/matmul.h"
#include "train/build_info.h"
#include "train/command_line.h"
#include "train/info_cuda.h"
#include "train/machine.h"

namespace longreach {
namespace {

void print_mechanism(const AttentionConfig& config) {
  std::visit(
      [](auto kind) {
        std::cout << kind.kind << "  (" << kind.source << ")\n";
        for (const FieldHelp& row : help_of(fields_of(kind)))
          std::cout << "    " << std::left << std::setw(12) << row.key << std::right << " = "
                    << row.default_value << "  " << row.help
                    << (row.allowed.empty() ? "" : "; " + row.allowed) << "\n";
        for (const Limitation& limitation : limitations_of(kind))
          std::cout << "    " << inability(limitation.ability) << ": " << limitation.reason << "\n";
      },
      config);
}

}  // namespace

int info_verb(const Arguments& arguments) {
  std::string mechanism;
  CLI::App app("build, machine, mechanisms", "info");
  app.add_option("MECHANISM", mechanism, "only this one; cuda: the static report of the CUDA kernels");
  if (!parse_arguments(app, arguments)) return 0;
  if (mechanism == "cuda") {
    std::cout << cuda::libraries() << "\n\n";
    print_static_report(cuda::static_table(), std::cout);
    return 0;
  }
  if (!mechanism.empty()) {
    print_mechanism(make_attention_config(mechanism));
    return 0;
  }
  std::cout << "longreach " << kVersion << ", LibTorch " << kTorchVersion << "\n"
            << cpu_name() << ", " << usable_cores() << " cores, " << total_memory_bytes() / (1 << 20)
            << " MiB; vectors: " << at::get_cpu_capability() << "; float32 products by "
            << name_of(fastest_matmul_library()) << "\n\nmechanisms ([[model.attention]] kind = ...):\n\n";
  for (const AttentionConfig& config : all_attention_configs()) print_mechanism(config);
  return 0;
}

}  // namespace longreach
