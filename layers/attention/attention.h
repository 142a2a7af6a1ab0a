// What every attention mechanism promises to a model. A model holds one per layer and knows no more than
// this.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "layers/basic/module.h"

namespace longreach {

class ContextGroup;  // distributed/: the ranks that share one sequence

// Where the tokens of x [B, T, C] stand.
struct Batch {
  at::Tensor positions;   // int64 [B, T], CPU or device of x: position of each token inside its document
  at::Tensor cu_seqlens;  // int32 [N+1] on the CPU: document bounds when B = 1 (packed); undefined: a row is
                          // a document
  // Null: the whole sequence is here. Else x is what this rank owns of one packed row, B = 1, its tokens in
  // the row's order; the layout has the documents' bounds, cu_seqlens is undefined.
  std::shared_ptr<const ContextGroup> context = nullptr;
};

struct AttentionOutput {
  at::Tensor y;  // [B, T, C]
  // The mechanism's own losses, named scalars, added to the training loss: sums over the batch, which are
  // divided by the loss_counts of the whole step.
  std::vector<std::pair<std::string, at::Tensor>> losses;
};

// KV cache, recurrent state, memory: what a mechanism carries from token to token.
class DecodeState {
 public:
  virtual ~DecodeState() = default;
  virtual int64_t bytes() const = 0;   // memory it holds now
  virtual int64_t tokens() const = 0;  // tokens seen so far
};

class Attention : public Module {
 public:
  using Module::Module;

  // x [B, T, C] of any T; the rows of a batch, and the documents of a packed row, never see each other.
  virtual AttentionOutput forward(const at::Tensor& x, const Batch& batch) = 0;

  // By what the losses of a step are divided, under their names: its batches in any number, of which no token
  // is read. Known before the first backward pass, so that a step can be cut into micro-batches at will.
  virtual std::map<std::string, double> loss_counts(const std::vector<Batch>& step) const;

  // An empty state for `batch_size` sequences of at most `max_tokens` tokens.
  virtual std::unique_ptr<DecodeState> start_decoding(int64_t batch_size, int64_t max_tokens) const = 0;

  // The next n >= 1 tokens x [B, n, C] (a prompt, or one token) -> y [B, n, C]. Token by token, in pieces, or
  // at once gives what forward gives. Throws UserError when max_tokens is exceeded. No gradient is recorded.
  virtual at::Tensor decode(const at::Tensor& x, DecodeState& state) = 0;

  // Floating-point operations (2 a multiply-add) of forward per token in sequences of seq_len tokens,
  // projections included: what the algorithm needs, masked pairs not counted.
  virtual double flops_per_token(int64_t seq_len) const = 0;
};

// Throws when x [batch, n, C] is no piece for a decode state of `batch` sequences that holds `used` of at
// most `limit` tokens: ShapeError for the shape, UserError when the piece does not fit.
void expect_decode_input(const at::Tensor& x, int64_t batch, int64_t used, int64_t limit);

}  // namespace longreach
