// InfLLM-V2's layer: projections, rotary embedding, the choice of blocks, one call of block_attention; and
// one of interval_attention for queries that still read every key.
#include "layers/attention/infllm/infllm.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "layers/attention/infllm/module.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/common/packed_documents.h"
#include "layers/ops/selection/selection.h"

namespace longreach {
namespace infllm {
namespace {

// Queries that read every key (early ones of their documents), the keys of those, and queries that choose:
// places in the row, and bounds of the documents among them.
struct Division {
  std::vector<int64_t> early, early_keys, late;
  std::vector<int32_t> early_bounds{0}, early_key_bounds{0}, late_bounds{0};
};

int64_t early_queries(const InfllmConfig& config, const PackedDocument& document) {
  return std::clamp<int64_t>(config.dense_len - 1 - document.position(0), 0, document.queries);
}

Division divide(const InfllmConfig& config, const std::vector<PackedDocument>& documents) {
  Division division;
  const auto add = [](std::vector<int64_t>& places, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i) places.push_back(first + i);
  };
  for (const PackedDocument& document : documents) {
    const int64_t early = early_queries(config, document);
    add(division.early, document.query, early);
    add(division.early_keys, document.key, early > 0 ? document.position(early - 1) + 1 : 0);
    add(division.late, document.query + early, document.queries - early);
    division.early_bounds.push_back(static_cast<int32_t>(division.early.size()));
    division.early_key_bounds.push_back(static_cast<int32_t>(division.early_keys.size()));
    division.late_bounds.push_back(static_cast<int32_t>(division.late.size()));
  }
  return division;
}

at::Tensor at_places(const at::Tensor& x, const std::vector<int64_t>& places) {
  if (static_cast<int64_t>(places.size()) == x.size(1)) return x;
  return x.index_select(1, at::tensor(places, at::kLong).to(x.device()));
}

at::Tensor bounds_of(const at::Tensor& cu_seqlens, const std::vector<int32_t>& bounds) {
  return cu_seqlens.defined() ? at::tensor(bounds, at::kInt) : at::Tensor();
}

// What was computed for `first` and then `second` places, in the order of the row.
at::Tensor joined(const at::Tensor& x, const std::vector<int64_t>& first,
                  const std::vector<int64_t>& second) {
  std::vector<int64_t> inverse(first.size() + second.size());
  int64_t next = 0;
  for (const auto* places : {&first, &second})
    for (const int64_t place : *places) inverse[static_cast<size_t>(place)] = next++;
  return x.index_select(1, at::tensor(inverse, at::kLong).to(x.device()));
}

}  // namespace

std::vector<PackedDocument> documents_of(const InfllmConfig& config, const at::Tensor& cu_seqlens,
                                         int64_t queries, int64_t keys) {
  auto documents = packed_documents(cu_seqlens, cu_seqlens, queries, keys, 1);
  place_windows(documents, {config.kernel_stride, config.kernel_stride, /*partial=*/false, cu_seqlens});
  return documents;
}

at::Tensor lists_of(const at::Tensor& q, const at::Tensor& means, const InfllmConfig& config,
                    const std::vector<PackedDocument>& documents) {
  std::vector<at::Tensor> lists{infllm_choose(q.narrow(1, 0, 0), means, config, 0)};
  for (const PackedDocument& document : documents) {
    const int64_t early = early_queries(config, document);
    lists.push_back(infllm_choose(q.narrow(1, document.query + early, document.queries - early),
                                  means.narrow(1, document.window, document.windows), config, document.keys));
  }
  return at::cat(lists, 2);
}

InfllmAttention::InfllmAttention(const InfllmConfig& config, const LayerSite& site)
    : SoftmaxAttention(site, config.rope, config.output_gate), config_(config) {}

at::Tensor InfllmAttention::attend_chosen(const Heads& heads, const at::Tensor& means,
                                          const at::Tensor& cu_seqlens, Dense dense) const {
  const auto documents = documents_of(config_, cu_seqlens, heads.q.size(1), heads.k.size(1));
  const Division division = divide(config_, documents);
  std::vector<at::Tensor> outputs;
  if (!division.early.empty())
    outputs.push_back(dense({at_places(heads.q, division.early), at_places(heads.k, division.early_keys),
                             at_places(heads.v, division.early_keys)},
                            {.cu_seqlens_q = bounds_of(cu_seqlens, division.early_bounds),
                             .cu_seqlens_k = bounds_of(cu_seqlens, division.early_key_bounds)},
                            site_.implementation));
  if (!division.late.empty() || division.early.empty())
    outputs.push_back(block_attention_by(site_.implementation, at_places(heads.q, division.late), heads.k,
                                         heads.v,
                                         {.indices = lists_of(heads.q, means, config_, documents),
                                          .query_block = 1,
                                          .key_block = config_.block_size,
                                          .cu_seqlens_q = bounds_of(cu_seqlens, division.late_bounds),
                                          .cu_seqlens_k = cu_seqlens})
                          .o);
  return outputs.size() == 1 ? outputs[0] : joined(at::cat(outputs, 1), division.early, division.late);
}

AttentionOutput InfllmAttention::forward(const at::Tensor& x, const Batch& batch) {
  const Heads heads = project(x, batch);
  if (batch.context) return {finish(x, attend_context(heads, batch.context)), {}};
  if (site_.implementation == Implementation::reference)
    return {finish(x, infllm_attention_reference(heads.q, heads.k, heads.v, config_, batch.cu_seqlens)), {}};
  const at::Tensor means = infllm_stride_means(heads.k, config_, batch.cu_seqlens);
  return {finish(x, attend_chosen(heads, means, batch.cu_seqlens, attend)), {}};
}

double InfllmAttention::flops_per_token(int64_t seq_len) const {
  const int64_t tokens = std::max<int64_t>(seq_len, 1);
  const auto most = static_cast<double>(config_.kept_blocks() * config_.block_size);
  // A score is half of what a key costs that is read: fine windows and, a quarter of them, coarse ones.
  const double windows = 1.25 / static_cast<double>(config_.kernel_stride);
  double keys = 0;
  for (int64_t seen = 1; seen <= tokens; ++seen) {
    const auto all = static_cast<double>(seen);
    keys += seen < config_.dense_len ? all : std::min(all, most) + all * windows / 2.0;
  }
  return flops(keys / static_cast<double>(tokens));
}

}  // namespace infllm

std::shared_ptr<Attention> make_attention(const InfllmConfig& config, const LayerSite& site) {
  return std::make_shared<infllm::InfllmAttention>(config, site);
}

}  // namespace longreach
