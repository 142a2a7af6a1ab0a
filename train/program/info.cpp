// `longreach info [MECHANISM|cuda|--table]`: the build, the machine, and every mechanism with its options,
// defaults and source; or what is known of the CUDA kernels without a device.
#include <ATen/Version.h>

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "checkpoints/formats/modeling_sources.h"
#include "core/config.h"
#include "core/machine.h"
#include "layers/attention/mechanisms.h"
#include "layers/ops/cuda/backend.h"
#include "layers/ops/matmul/matmul.h"
#include "train/program/build_info.h"
#include "train/program/command_line.h"
#include "train/program/info_cuda.h"
#include "train/program/mechanism_table.h"
#include "train/program/terminal.h"

namespace longreach {
namespace {

// "can be pre-trained, ..." and what it cannot, each with its reason.
void describe_abilities(const AttentionConfig& config, std::ostream& out) {
  const std::vector<Limitation> limits = limitations_of(config);
  std::vector<std::string> able;
  for (const Ability ability :
       {Ability::pretraining, Ability::packed_documents, Ability::bfloat16, Ability::activation_checkpoint,
        Ability::decoding, Ability::context_parallel}) {
    const bool limited = std::any_of(limits.begin(), limits.end(),
                                     [&](const Limitation& limit) { return limit.ability == ability; });
    std::string words(inability(ability));
    if (!limited) able.push_back(words.substr(words.find(' ') + 1));  // without "cannot"
  }
  out << "    can " << join(able) << "\n";
  for (const Limitation& limit : limits)
    out << "    " << inability(limit.ability) << ": " << limit.reason << "\n";
  if (modeling_sources().count(std::string(kind_of(config))) > 0)
    out << "    can be exported for transformers (longreach export --format hf)\n";
  else
    out << "    cannot be exported for transformers: it has no Python\n";
  if (gate_of(config))
    out << "    its gates alone have a layout of other programs (longreach export --format gates)\n";
}

void describe_mechanism(const AttentionConfig& config, std::ostream& out) {
  std::visit(
      [&](auto kind) {
        out << kind.kind << "  (" << kind.source << ")\n";
        for (const FieldHelp& row : help_of(fields_of(kind)))
          out << "    " << std::left << std::setw(12) << row.key << std::right << " = " << row.default_value
              << "  " << row.help << (row.allowed.empty() ? "" : "; " + row.allowed) << "\n";
      },
      config);
  describe_abilities(config, out);
}

}  // namespace

int info_verb(const Arguments& arguments) {
  std::string mechanism;
  bool table = false;
  CLI::App app("build, machine, mechanisms", "info");
  app.add_option("MECHANISM", mechanism, "only this one; cuda: the static report of the CUDA kernels");
  app.add_flag("--table", table, "README's table of mechanisms, as Markdown");
  if (!parse_arguments(app, arguments)) return 0;
  if (table) {
    std::cout << mechanism_table();
    return 0;
  }
  if (mechanism == "cuda") {
    std::cout << cuda::libraries() << "\n\n";
    print_static_report(cuda::static_table(), std::cout);
    return 0;
  }
  std::ostringstream out;
  if (!mechanism.empty()) {
    describe_mechanism(make_attention_config(mechanism), out);
  } else {
    out << "longreach " << kVersion << ", LibTorch " << kTorchVersion << "\n"
        << cpu_name() << ", " << usable_cores() << " cores, " << total_memory_bytes() / (1 << 20)
        << " MiB; vectors: " << at::get_cpu_capability() << "; float32 products by "
        << name_of(fastest_matmul_library()) << "\n\nmechanisms ([[model.attention]] kind = ...):\n\n";
    for (const AttentionConfig& config : all_attention_configs()) describe_mechanism(config, out);
  }
  std::cout << wrapped(out.str(), terminal_width());
  return 0;
}

}  // namespace longreach
