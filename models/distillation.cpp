// Teacher and student go through their layers side by side, so that of the teacher one layer exists at a
// time.
#include "models/distillation.h"

#include <ATen/core/grad_mode.h>

#include <optional>

#include "core/error.h"
#include "layers/basic/divergence.h"
#include "layers/basic/loss.h"

namespace longreach {
namespace {

constexpr double kTiny = 1e-12;

void add_to(at::Tensor& sum, const at::Tensor& value) { sum = sum.defined() ? sum + value : value; }

at::Tensor wide(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat); }

at::Tensor squared_error(const at::Tensor& own, const at::Tensor& wanted) {
  return (wide(own) - wide(wanted)).square().mean(-1).sum();
}

at::Tensor relative_error(const at::Tensor& own, const at::Tensor& wanted) {
  const at::Tensor aim = wide(wanted);
  return ((wide(own) - aim).square().sum(-1) / (aim.square().sum(-1) + kTiny)).sum();
}

// One model's walk through its layers without gradients.
class TeacherWalk {
 public:
  TeacherWalk(Transformer& model, const at::Tensor& tokens, const Batch& batch, const LossOptions& options)
      : model_(model), batch_(batch), options_(options) {
    const at::NoGradGuard no_grad;
    x_ = model.embedded(tokens, options);
  }

  const at::Tensor& stream() const { return x_; }
  // Through layer i; returns what its attention gave.
  at::Tensor pass(size_t i) {
    const at::NoGradGuard no_grad;
    at::Tensor attention = model_.attention(i, x_, batch_, options_);
    x_ = model_.after_attention(i, x_, attention, options_);
    return attention;
  }
  at::Tensor hidden() const {
    const at::NoGradGuard no_grad;
    return model_.final_hidden(x_, options_);
  }

 private:
  Transformer& model_;
  const Batch& batch_;
  const LossOptions& options_;
  at::Tensor x_;
};

at::Tensor labelled(const at::Tensor& hidden, const at::Tensor& rows) {
  return hidden.reshape({-1, hidden.size(-1)}).index_select(0, rows);
}

}  // namespace

DistillationLosses distillation_losses(Transformer& student, Transformer& teacher, const at::Tensor& tokens,
                                       const at::Tensor& labels, const Batch& batch,
                                       const LossOptions& options, const DistillationWeights& weights) {
  const auto layers = static_cast<size_t>(student.config().num_hidden_layers),
             taught = static_cast<size_t>(teacher.config().num_hidden_layers);
  const bool side_by_side = weights.attention > 0 || weights.hidden > 0,
             walks = weights.hidden > 0 || weights.logits > 0;
  DistillationLosses losses;
  TeacherWalk guide(teacher, tokens, batch, options);
  at::Tensor x = walks ? student.embedded(tokens, options) : at::Tensor();
  for (size_t i = 0; i < layers; ++i) {
    if (weights.attention > 0) {
      const at::Tensor own = student.attention(i, guide.stream(), batch, options);
      add_to(losses.attention, squared_error(own, guide.pass(i)));
    } else if (side_by_side) {
      guide.pass(i);
    }
    if (walks) x = student.layer(i, x, batch, options);
    if (weights.hidden > 0) add_to(losses.hidden, relative_error(x, guide.stream()));
  }
  if (weights.logits == 0) return losses;
  for (size_t i = side_by_side ? layers : 0; i < taught; ++i) guide.pass(i);
  const at::Tensor rows = labels.to(x.device()).reshape({-1}).ne(kIgnoredLabel).nonzero().squeeze(1);
  losses.logits =
      chunked_divergence(labelled(student.final_hidden(x, options), rows), student.output_weight(),
                         labelled(guide.hidden(), rows), teacher.output_weight(),
                         {.temperature = weights.temperature, .chunk_tokens = options.chunk_tokens});
  return losses;
}

void expect_teacher(const ModelConfig& student, const ModelConfig& teacher,
                    const DistillationWeights& weights) {
  const auto expect_same = [](const char* key, int64_t own, int64_t theirs, const char* loss) {
    check<ConfigError>(own == theirs, "distillation.teacher has model.", key, " = ", theirs, ", this run ",
                       own, ": distillation.", loss, " compares models of the same ", key);
  };
  const bool attention = weights.attention > 0;
  if (attention || weights.hidden > 0) {
    const char* loss = attention ? "attention_weight" : "hidden_weight";
    expect_same("num_hidden_layers", student.num_hidden_layers, teacher.num_hidden_layers, loss);
    expect_same("hidden_size", student.hidden_size, teacher.hidden_size, loss);
  }
  if (weights.logits > 0) expect_same("vocab_size", student.vocab_size, teacher.vocab_size, "logits_weight");
}

at::Tensor mixed_token_nll(Transformer& student, Transformer& teacher, const std::vector<bool>& its_own,
                           const at::Tensor& tokens, const at::Tensor& labels, const Batch& batch,
                           const LossOptions& options) {
  const at::NoGradGuard no_grad;
  at::Tensor x = teacher.embedded(tokens, options);
  for (size_t i = 0; i < its_own.size(); ++i)
    x = (its_own[i] ? student : teacher).layer(i, x, batch, options);
  const at::Tensor hidden = teacher.final_hidden(x, options);
  return chunked_cross_entropy(hidden.reshape({-1, hidden.size(-1)}), teacher.output_weight(),
                               labels.to(hidden.device()).reshape({-1}),
                               {.chunk_tokens = options.chunk_tokens})
      .nll.view(tokens.sizes());
}

}  // namespace longreach
