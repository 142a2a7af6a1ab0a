#include "train/program/verify_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/stack.h>

#include <functional>
#include <map>
#include <ostream>
#include <set>

#include "train/saved_model.h"
#include "train/verify/vector_file.h"

namespace longreach {
namespace {

using verify::UnknownCase;
using verify::VectorFile;

// Of a model in float32, in the largest reference of the kind: 168 roundings of it. What was measured of
// SmolLM2 (30 layers, 512 tokens): 8e-6 of the largest logit.
constexpr double kLimit = 2e-5;

// Names that other programs put beside what is compared here: states inside their model, their own errors.
const std::set<std::string> kNotCompared{"hidden_pos511", "nll_hf_f32"};

struct Outcome {
  std::string name, why;  // why: of a failure
  double error = 0, limit = 0;
};

// Logits of a file's tokens, and what follows from them.
class Model {
 public:
  Model(Transformer& model, const VectorFile& file) : model_(model), file_(file), ids_(read_ids()) {
    const at::NoGradGuard no_grad;
    logits_ = model_.logits(ids_, whole_rows(ids_.size(0), ids_.size(1)));
  }

  // What the file's out.NAME should be; undefined: nothing of that name.
  at::Tensor output(const std::string& name) const {
    const std::map<std::string, std::function<at::Tensor()>> outputs{
        {"logits", [&] { return logits_; }},
        {"logsumexp", [&] { return at::logsumexp(wide(), -1); }},
        {"nll", [&] { return next_nll(); }},
        {"greedy_ids", [&] { return greedy(); }},
        {"topk_logits", [&] { return at::gather(wide(), -1, of_rows(integers("topk_ids"))); }},
        {"full_logits", [&] { return at::index_select(logits_, 1, integers("full_logits_pos")); }}};
    const auto found = outputs.find(name);
    if (found == outputs.end()) return {};
    const at::Tensor value = found->second();
    // Files of one sequence leave out B.
    return file_.tensor("in.input_ids").dim() == 1 ? value.squeeze(0) : value;
  }

  // Inputs of other outputs.
  static bool is_index(const std::string& name) { return name == "topk_ids" || name == "full_logits_pos"; }

 private:
  at::Tensor read_ids() const {
    if (!file_.contains("in.input_ids")) refuse("in.input_ids is missing");
    at::Tensor ids = file_.tensor("in.input_ids").to(at::kLong);
    if (ids.dim() == 1) ids = ids.unsqueeze(0);
    if (ids.dim() != 2 || ids.numel() == 0) refuse("in.input_ids: expected [B, T] or [T]");
    const int64_t most = model_.config().vocab_size - 1;
    if (ids.min().item<int64_t>() < 0 || ids.max().item<int64_t>() > most)
      refuse(text("in.input_ids: expected ids from 0 to ", most, " (model.vocab_size)"));
    return ids;
  }

  [[noreturn]] void refuse(const std::string& why) const {
    throw UnknownCase(one_line(text(file_.path(), ": ", why)));
  }

  at::Tensor wide() const { return logits_.to(at::kDouble); }
  at::Tensor of_rows(const at::Tensor& x) const { return x.dim() == 2 ? x.unsqueeze(0) : x; }

  at::Tensor integers(const std::string& name) const {
    if (!file_.contains("out." + name)) refuse("out." + name + " is missing");
    const at::Tensor values = file_.tensor("out." + name).to(at::kLong);
    const int64_t most = name == "topk_ids" ? logits_.size(2) : logits_.size(1);
    if (values.numel() == 0 || values.min().item<int64_t>() < 0 || values.max().item<int64_t>() >= most)
      refuse(text("out.", name, ": expected numbers from 0 to ", most - 1));
    return values;
  }

  at::Tensor next_nll() const {
    const int64_t tokens = ids_.size(1);
    const at::Tensor log_p = at::log_softmax(wide().narrow(1, 0, tokens - 1), -1);
    return -at::gather(log_p, -1, ids_.narrow(1, 1, tokens - 1).unsqueeze(-1)).squeeze(-1);
  }

  at::Tensor greedy() const {
    const at::NoGradGuard no_grad;
    const int64_t wanted = file_.tensor("out.greedy_ids").size(-1);
    const std::string& rope_type = model_.config().rope.rope_type;
    if (rope_type == "dynamic" || rope_type == "longrope") return greedy_anew(wanted);
    ModelDecodeState state = model_.start_decoding(ids_.size(0), ids_.size(1) + wanted);
    std::vector<at::Tensor> chosen;
    at::Tensor logits = model_.decode(ids_, state);
    for (int64_t i = 0; i < wanted; ++i) {
      chosen.push_back(logits.argmax(-1));
      if (i + 1 < wanted) logits = model_.decode(chosen.back().unsqueeze(1), state);
    }
    return at::stack(chosen, 1);
  }

  // From the whole sequence each time: beyond the original length every token changes all angles.
  at::Tensor greedy_anew(int64_t wanted) const {
    const at::NoGradGuard no_grad;
    at::Tensor ids = ids_;
    for (int64_t i = 0; i < wanted; ++i) {
      const at::Tensor logits = model_.logits(ids, whole_rows(ids.size(0), ids.size(1)));
      ids = at::cat({ids, logits.select(1, -1).argmax(-1, true)}, 1);
    }
    return ids.narrow(1, ids_.size(1), wanted);
  }

  Transformer& model_;
  const VectorFile& file_;
  at::Tensor ids_, logits_;
};

Outcome compared(const std::string& name, const at::Tensor& wanted, const at::Tensor& got) {
  Outcome outcome{.name = "out." + name};
  if (!got.defined()) {
    outcome.why = "is unknown, so it was not compared";
  } else if (got.sizes() != wanted.sizes()) {
    outcome.why = text("has shape ", wanted.sizes(), ", here it is ", got.sizes());
  } else if (!at::isFloatingType(wanted.scalar_type())) {
    if (!got.equal(wanted.to(got.scalar_type()))) outcome.why = "differs";
  } else {
    const at::Tensor reference = wanted.to(at::kDouble), difference = (got.to(at::kDouble) - reference).abs();
    outcome.error = difference.max().item<double>();
    outcome.limit = kLimit * std::max(1.0, reference.abs().max().item<double>());
    if (!(outcome.error <= outcome.limit)) outcome.why = "is too far from the reference";
  }
  return outcome;
}

std::vector<Outcome> verify_file(Transformer& model, const std::string& path) {
  const VectorFile file(path);
  const Model run(model, file);
  std::vector<Outcome> outcomes;
  for (const std::string& name : file.names("out.")) {
    if (kNotCompared.count(name) > 0 || Model::is_index(name)) continue;
    outcomes.push_back(compared(name, file.tensor("out." + name), run.output(name)));
  }
  if (outcomes.empty()) throw UnknownCase(one_line(text(path, ": holds nothing to compare (no out.*)")));
  return outcomes;
}

}  // namespace

int verify_model(const std::string& checkpoint, const std::vector<std::string>& files,
                 const verify::Options& options, std::ostream& out, std::ostream& errors) {
  const SavedModel saved =
      load_saved_model(open_origin(checkpoint), options.implementation.value_or(Implementation::fused));
  int64_t tensors = 0, failed = 0;
  bool unreadable = false;
  for (const std::string& path : files) try {
      for (const Outcome& outcome : verify_file(*saved.model, path)) {
        const bool bad = !outcome.why.empty();
        out << one_line(text(bad ? "FAIL " : "ok   ", path, " ", outcome.name, " error ", outcome.error,
                             " limit ", outcome.limit, bad ? ": " + outcome.why : ""))
            << "\n";
        ++tensors;
        failed += bad;
      }
    } catch (const UserError& error) {
      errors << one_line(error.what()) << "\n";
      unreadable = true;
    }
  out << files.size() << " files, " << tensors << " tensors, " << failed << " failed\n";
  return unreadable ? 2 : failed > 0 ? 1 : 0;
}

}  // namespace longreach
