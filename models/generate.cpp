#include "models/generate.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "layers/basic/rope.h"
#include "models/sampling.h"

namespace longreach {
namespace {

std::vector<int64_t> drawable_ids(const SamplingOptions& options, int64_t vocab) {
  std::vector<int64_t> ids;
  const bool all = options.drawable.empty();
  for (int64_t id = 0; id < (all ? vocab : std::min<int64_t>(vocab, std::ssize(options.drawable))); ++id)
    if (all || options.drawable[id]) ids.push_back(id);
  check(!ids.empty(), "generation: the tokenizer has none of the model's ", vocab, " tokens");
  return ids;
}

std::vector<double> row_of(const at::Tensor& logits) {
  const at::Tensor wide = logits.to(at::kCPU, at::kDouble).contiguous();
  std::vector<double> row(wide.const_data_ptr<double>(), wide.const_data_ptr<double>() + wide.numel());
  for (const double value : row)
    check<TrainingError>(!std::isnan(value), "generation: the model gives NaN; its weights are damaged");
  return row;
}

void expect_options(const SamplingOptions& options) {
  check(options.temperature >= 0.0, "temperature = ", options.temperature,
        ": expected a number >= 0 (0: greedy)");
  check(options.top_p > 0.0 && options.top_p <= 1.0, "top_p = ", options.top_p,
        ": expected a number in (0, 1]");
  check(options.top_k >= 0, "top_k = ", options.top_k, ": expected an integer >= 0 (0: all tokens)");
  check(options.max_new_tokens >= 0, "max_new_tokens = ", options.max_new_tokens,
        ": expected an integer >= 0");
  check(options.prefill_chunk > 0, "prefill_chunk = ", options.prefill_chunk, ": expected an integer >= 1");
}

// Tokens of the prompt that are read at a time: all of a prompt whose length changes the angles of its first
// ones. What decoding would refuse in mid-text is refused before it begins.
int64_t steady_chunk(const ModelConfig& config, const SamplingOptions& options, int64_t length) {
  const int64_t all = length + options.max_new_tokens - 1;
  const int64_t wanted = std::min(options.prefill_chunk, length);
  if (!config.uses_rope()) return wanted;
  const RotaryEmbedding rope(config.rope, config.head_dim, config.max_position_embeddings);
  const bool steady = rope.length_with_these_angles(wanted) == rope.length_with_these_angles(length);
  const int64_t chunk = steady ? wanted : length;
  rope.expect_steady_angles(chunk, all - chunk);
  return chunk;
}

}  // namespace

std::vector<int64_t> generate(Transformer& model, const std::vector<int64_t>& prompt,
                              const SamplingOptions& options, const std::function<bool(int64_t)>& on_token) {
  expect_options(options);
  check(!prompt.empty(), "prompt: expected at least one token");
  const auto length = static_cast<int64_t>(prompt.size());
  std::vector<int64_t> generated;
  if (options.max_new_tokens == 0) return generated;
  const int64_t chunk = steady_chunk(model.config(), options, length);
  ModelDecodeState state = model.start_decoding(1, length + options.max_new_tokens);
  at::Tensor logits;
  const at::Tensor tokens = at::tensor(prompt, at::kLong).unsqueeze(0);
  for (int64_t begin = 0; begin < length; begin += chunk)
    logits = model.decode(tokens.narrow(1, begin, std::min(chunk, length - begin)), state);
  const std::vector<int64_t> ids = drawable_ids(options, model.config().vocab_size);
  for (int64_t step = 0;; ++step) {
    const int64_t token = sample(row_of(logits), ids, options, step);
    generated.push_back(token);
    const bool wanted = !on_token || on_token(token);
    const bool stop =
        std::find(options.stop_tokens.begin(), options.stop_tokens.end(), token) != options.stop_tokens.end();
    if (!wanted || stop || step + 1 == options.max_new_tokens) return generated;
    logits = model.decode(at::tensor({token}, at::kLong).unsqueeze(0), state);
  }
}

}  // namespace longreach
