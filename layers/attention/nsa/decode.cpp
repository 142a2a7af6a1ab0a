// Decoding: all keys and values, which any later query may select; compressed keys and values, each added
// when its window completes; and the tokens of windows that have begun, as phi reads them. A query reads T /
// d compressed keys, the selected blocks and the window, whatever T is.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/error.h"
#include "layers/attention/common/kv_cache.h"
#include "layers/attention/nsa/module.h"

namespace longreach::nsa {
namespace {

// The tokens from the first window that is not complete on, before phi.
struct Tail {
  at::Tensor tokens;  // [B, n, HK, D]; undefined at first

  // Adds tokens; `lead` zeros come before the first.
  void append(const at::Tensor& x, int64_t lead) {
    if (!tokens.defined()) tokens = at::zeros({x.size(0), lead, x.size(2), x.size(3)}, x.options());
    tokens = at::cat({tokens, x}, 1);
  }
  void forget(int64_t count) {
    const int64_t gone = std::min(count, tokens.size(1));
    tokens = tokens.narrow(1, gone, tokens.size(1) - gone).clone();
  }
  int64_t bytes() const { return tokens.defined() ? static_cast<int64_t>(tokens.nbytes()) : 0; }
};

struct SparseCache : DecodeState {
  SparseCache(int64_t batch_size, int64_t max_tokens, int64_t stride)
      : all(batch_size, max_tokens), windows(batch_size, max_tokens / stride + 1) {}
  int64_t bytes() const override {
    return all.bytes() + windows.bytes() + key_tail.bytes() + value_tail.bytes();
  }
  int64_t tokens() const override { return all.tokens(); }

  KvCache all;      // positions applied
  KvCache windows;  // complete ones, compressed
  Tail key_tail, value_tail;
};

}  // namespace

std::unique_ptr<DecodeState> NsaAttention::start_decoding(int64_t batch_size, int64_t max_tokens) const {
  return std::make_unique<SparseCache>(batch_size, max_tokens, options_.compress_stride);
}

at::Tensor NsaAttention::decode(const at::Tensor& x, DecodeState& state) {
  const at::NoGradGuard no_grad;
  auto& cache = dynamic_cast<SparseCache&>(state);
  const int64_t seen = cache.tokens();
  expect_decode_input(x, cache.all.batch, seen, cache.all.limit);
  const int64_t length = seen + x.size(1);
  const auto [plain, turned] = tokens(x, next_positions(x, seen), length);
  cache.all.append(turned.k, turned.v);

  // Windows of the tail alone: those of the paper's form, as zeros stand before lucidrains' first.
  NsaOptions tail = options_;
  tail.form = NsaForm::paper;
  const int64_t block = options_.compress_block, stride = options_.compress_stride;
  const int64_t lead = options_.form == NsaForm::lucidrains ? block - stride : 0;
  cache.key_tail.append(compress_turned_ ? turned.k : plain.k, lead);
  cache.value_tail.append(plain.v, lead);
  const int64_t first = cache.windows.tokens();
  const int64_t complete = window_count(nsa_windows(tail), cache.key_tail.tokens.size(1));
  const at::Tensor places = (at::arange(first, first + complete, at::kLong) * stride).unsqueeze(0);
  const at::Tensor k_cmp = place(nsa_compress(cache.key_tail.tokens, key_phi(), tail), places, length);
  const at::Tensor v_cmp = nsa_compress(cache.value_tail.tokens, value_phi(), tail);
  if (complete > 0) cache.windows.append(k_cmp, v_cmp);
  cache.key_tail.forget(complete * stride);
  cache.value_tail.forget(complete * stride);

  NsaInput in{.q = turned.q, .k = cache.all.filled_keys(), .v = cache.all.filled_values()};
  if (options_.form == NsaForm::lucidrains) in.q_cmp = plain.q;
  in.k_cmp = first + complete > 0 ? cache.windows.filled_keys() : k_cmp;
  in.v_cmp = first + complete > 0 ? cache.windows.filled_values() : v_cmp;
  return finish(x, in, kAllBranches).y;
}

}  // namespace longreach::nsa
