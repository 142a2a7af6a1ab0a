#include "train/foreign_export.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <iostream>

#include "checkpoints/formats/gguf/ggml_type.h"
#include "checkpoints/formats/gguf/gguf_export.h"
#include "checkpoints/formats/hugging_face_export.h"
#include "checkpoints/new_folder.h"
#include "core/error.h"
#include "train/merge_adapters.h"
#include "train/probe_logits.h"
#include "train/saved_model.h"
#include "train/tokenizer_export.h"

namespace longreach {
namespace {

struct Format {
  std::string name;
  std::vector<std::string> dtypes;
  // What a reader makes of a weight that is written in a dtype.
  at::Tensor (*rounded)(const std::string& name, const at::Tensor& weight, const std::string& dtype);
  std::string file;  // what a reader opens in the folder; empty: the folder itself
  void (*write)(const SavedModel& saved, const NamedTensors& weights, const ForeignExport& options,
                const std::string& path);
};

at::ScalarType dtype_of(const std::string& name) {
  return name == "bfloat16" ? at::kBFloat16 : name == "float16" ? at::kHalf : at::kFloat;
}

at::Tensor cast_and_back(const std::string&, const at::Tensor& weight, const std::string& dtype) {
  return weight.to(dtype_of(dtype)).to(weight.scalar_type());
}

// Vectors stay as they are, and rows that are no whole blocks of Q8_0 become float16.
at::Tensor quantised_and_back(const std::string&, const at::Tensor& weight, const std::string& dtype) {
  if (dtype == "float32" || weight.dim() < 2) return weight;
  const bool blocks = dtype == "q8_0" && weight.size(-1) % ggml_q8_0().block == 0;
  const GgmlType& type = blocks ? ggml_q8_0() : ggml_f16();
  const at::Tensor from = weight.to(at::kFloat).contiguous(), to = at::empty_like(from);
  const std::string bytes = ggml_encode(type, from.const_data_ptr<float>(), from.numel());
  type.dequantize(reinterpret_cast<const uint8_t*>(bytes.data()), from.numel() / type.block,
                  to.mutable_data_ptr<float>());
  return to;
}

void write_gguf_model(const SavedModel& saved, const NamedTensors& weights, const ForeignExport& foreign,
                      const std::string& path) {
  const std::string& dtype = foreign.dtype;
  const std::string type = dtype == "q8_0" ? "Q8_0" : dtype == "float16" ? "F16" : "F32";
  // No tokenizer of its programs has the bytes alone: ids go in and come out.
  const bool named = saved.tokenizer && saved.tokenizer->name() != "bytes";
  const std::map<std::string, std::string> none;
  write_gguf(path, saved.config.model, weights, named ? tokenizer_export(saved) : none, {.type = type});
}

std::optional<int64_t> id_of(const std::optional<data::Token>& token) {
  return token ? std::optional<int64_t>(*token) : std::nullopt;
}

void write_hf(const SavedModel& saved, const NamedTensors& weights, const ForeignExport& foreign,
              const std::string& folder) {
  HuggingFaceExport options{.dtype = dtype_of(foreign.dtype), .family = foreign.family};
  if (saved.tokenizer) {
    options.bos = id_of(saved.tokenizer->bos());
    options.eos = id_of(saved.tokenizer->eos());
  }
  options.files = tokenizer_export(saved);
  write_hugging_face(saved.config.model, weights, options, folder);
}

const std::vector<Format>& formats() {
  static const std::vector<Format> all{
      {"hf", {"float32", "bfloat16", "float16"}, cast_and_back, "", write_hf},
      {"gguf", {"float16", "float32", "q8_0"}, quantised_and_back, "model.gguf", write_gguf_model},
  };
  return all;
}

const Format& format_named(const std::string& name) {
  for (const Format& format : formats())
    if (format.name == name) return format;
  throw ConfigError(text("export: `", name, "` is none of ", join(foreign_formats())));
}

// The model's weights become those that a reader of the file will have: adapters go into what they belong to,
// all are rounded. Returns those that are written.
NamedTensors round_weights(Transformer& model, const Format& format, const std::string& dtype) {
  const at::NoGradGuard no_grad;
  merge_adapters(model);
  NamedTensors written;
  for (auto& [name, tensor] : model_tensors(model)) {
    if (is_adapter_parameter(name)) continue;
    check<CheckpointError>(at::isfinite(tensor).all().item<bool>(), name,
                           ": holds values that are not finite");
    tensor.copy_(format.rounded(name, tensor, dtype));
    check<CheckpointError>(at::isfinite(tensor).all().item<bool>(), name, ": holds values too large for ",
                           dtype, "; export another --dtype");
    written.emplace_back(name, tensor);
  }
  return written;
}

}  // namespace

const std::vector<std::string>& foreign_formats() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Format& format : formats()) all.push_back(format.name);
    return all;
  }();
  return names;
}

bool is_foreign_format(const std::string& format) {
  return std::find(foreign_formats().begin(), foreign_formats().end(), format) != foreign_formats().end();
}

void expect_foreign_dtype(const std::string& format, const std::string& dtype) {
  const std::vector<std::string>& known = format_named(format).dtypes;
  check<ConfigError>(std::find(known.begin(), known.end(), dtype) != known.end(), "dtype: `", dtype,
                     "` is none of ", join(known), " (format ", format, ")");
}

std::string foreign_file(const std::string& folder, const std::string& format) {
  const std::string& file = format_named(format).file;
  return file.empty() ? folder : folder + "/" + file;
}

void write_foreign(const std::string& checkpoint, const std::string& folder, const std::string& format_name,
                   const ForeignExport& asked) {
  const Format& format = format_named(format_name);
  ForeignExport options = asked;
  if (options.dtype.empty()) options.dtype = format.dtypes.front();
  expect_foreign_dtype(format.name, options.dtype);
  const NewFolder output(folder);
  const std::string path = foreign_file(output.path(), format.name);
  at::Tensor before;
  {
    const SavedModel saved = load_saved_model(checkpoint);
    const NamedTensors weights = round_weights(*saved.model, format, options.dtype);
    format.write(saved, weights, options, path);
    before = probe_logits(*saved.model);
  }
  const at::Tensor after = probe_logits(*load_saved_model(path).model);
  // yarn's positions are written as more than a short model here has.
  const int64_t tokens = std::min(before.size(1), after.size(1));
  const double error =
      expect_same_logits(before.narrow(1, 0, tokens), after.narrow(1, 0, tokens), kOrderOfSums, folder);
  std::cout << "logits     of " << tokens << " tokens, read back: largest error " << error
            << " of the largest\n";
  output.publish();
}

}  // namespace longreach
