// What a run costs, counted from its config before anything is allocated or read.
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <string>

#include "distributed/mesh.h"
#include "models/transformer.h"
#include "train/run_config.h"

namespace longreach {

// Memory is that of one rank.
struct RunSize {
  int64_t parameters = 0, trained = 0;
  double tokens_per_step = 0;
  double flops_per_token = 0;  // of a training step, each token of which needs them
  // Bytes. What the passes of a micro-batch need is an estimate, the rest is exact.
  double weights = 0, gradients = 0, moments = 0;
  double gathered = 0;  // zero_stage 3: the layers in use
  double teacher = 0;   // weights of distillation.teacher
  // At most: while layers keep what their backward passes need, with the loss and its gradients, and where
  // rows are shared keys and values that other ranks own. At its end: one layer's, beside the gradients.
  double activations = 0, last_layer = 0;
  double least_activations = 0;  // what is certainly kept of them: the residual stream before every layer
  double earlier_gradients = 0;  // that are there when a micro-batch of a step begins
  int64_t ranks = 1;
  std::map<std::string, double> sent;  // bytes of the model's state that a rank sends in a step, by label

  // Of what lasts, and the passes where they need most.
  double total() const {
    return weights + moments + gathered + teacher +
           std::max(earlier_gradients + activations, gradients + last_layer);
  }
  double certain() const { return weights + gradients + moments + teacher + least_activations; }
};

// config: resolved. degrees: resolved, whatever the config says. Builds the model of shapes alone. Throws
// ConfigError for sizes beyond what can be counted, and as add_adapters does.
RunSize size_of_run(const RunConfig& config, const ParallelDegrees& degrees = {});

// The model that the config describes, of shapes alone, nothing frozen but beside adapters. Throws
// ConfigError for sizes beyond what can be addressed.
std::shared_ptr<Transformer> model_of_shapes(const RunConfig& config);

// Floating-point operations a token of a training step of this model: of a frozen model only what runs.
// teacher: that of distillation.teacher, null where there is none; models of shapes will do.
double training_flops_per_token(const RunConfig& config, const Transformer& model,
                                const Transformer* teacher = nullptr);

// Throws ConfigError naming the keys when what the run certainly needs is more than `available` bytes.
void expect_memory(const RunSize& size, const RunConfig& config, int64_t available);

// What `train --dry-run` prints.
void print_run_size(const RunSize& size, const RunConfig& config, int64_t available, std::ostream& out);

}  // namespace longreach
