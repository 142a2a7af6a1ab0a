// From tensors to kernels: checks, parameters, and the door to autograd.
#include <ATen/ops/empty.h>

#include <cmath>
#include <utility>

#include "layers/ops/block_attention/checks.h"
#include "layers/ops/block_attention/cuda/op.h"
#include "layers/ops/block_attention/kernels.h"
#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/common/packed_documents.h"
#include "layers/ops/common/softmax_tensors.h"

namespace longreach {
namespace {

using block::Gradients;
using block::Params;

class BlockAttention final : public FusedOp {
 public:
  BlockAttention(BlockLists lists, std::vector<PackedDocument> documents, BlockStatistics statistics,
                 double scale)
      : lists_(std::move(lists)), documents_(std::move(documents)), statistics_(statistics), scale_(scale) {
    lists_.indices = at::Tensor();  // an input
  }

  // o, lse and, where asked for, the two statistics.
  std::string name() const override { return "block_attention"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor q = dense_rows(inputs[0]), k = dense_rows(inputs[1]), v = dense_rows(inputs[2]);
    const at::Tensor o = at::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
    const at::Tensor lse = at::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(at::kFloat));
    const at::Tensor indices = inputs[3].contiguous();
    Params p = params(q, k, v, o, lse, indices);
    Tensors outputs{o, lse};
    if (statistics_ != BlockStatistics::none) {
      p.per_list = statistics_ == BlockStatistics::per_list;
      const int64_t heads = p.per_list ? p.list_heads : p.heads;
      for (float** statistic : {&p.block_max, &p.block_sum}) {
        outputs.push_back(at::empty({p.batches, heads, p.rows, p.slots}, lse.options()));
        *statistic = outputs.back().data_ptr<float>();
      }
    }
    runs_on_cuda(q) ? block::forward_cuda(p, q) : block::forward_cpu(p);
    saved = {q, k, v, o, lse, indices};
    return outputs;
  }

  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    Tensors result = gradients(saved, grads, saved[1].scalar_type());
    result.resize(4);  // of the lists: none
    return result;
  }

  // dq, dk, dv from what forward saved.
  Tensors gradients(const Tensors& saved, const Tensors& grads, at::ScalarType key_dtype) const {
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &o = saved[3], &lse = saved[4];
    return softmax_tile::gradients_by(q, k, v, o, grads, key_dtype, [&](const Gradients& gradients) {
      const Params p = params(q, k, v, o, lse, saved[5]);
      runs_on_cuda(q) ? block::backward_cuda(p, gradients, q) : block::backward_cpu(p, gradients);
    });
  }

 private:
  Params params(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& o,
                const at::Tensor& lse, const at::Tensor& indices) const {
    Params p{};
    softmax_tile::set_tensors(p, q, k, v, o, lse);
    p.scale = static_cast<float>(scale_);
    p.causal = lists_.causal;
    p.query_block = lists_.query_block, p.key_block = lists_.key_block;
    p.indices = indices.const_data_ptr<int32_t>();
    p.list_batches = indices.size(0), p.list_heads = indices.size(1);
    p.rows = indices.size(2), p.slots = indices.size(3);
    p.documents = documents_.data();
    p.document_count = static_cast<int64_t>(documents_.size());
    return p;
  }

  BlockLists lists_;
  std::vector<PackedDocument> documents_;
  BlockStatistics statistics_;
  double scale_;
};

// Checks the arguments.
std::shared_ptr<const BlockAttention> checked_op(const at::Tensor& q, const at::Tensor& k,
                                                 const at::Tensor& v, const BlockLists& lists,
                                                 const BlockAttentionOptions& options) {
  check_block_attention(q, k, v, lists);
  check<DtypeError>(q.scalar_type() != at::kDouble,
                    "q: dtype Double, expected Float or BFloat16; block_attention_reference takes Double");
  expect_kernel_input(q, "q");
  auto documents =
      packed_documents(lists.cu_seqlens_q, lists.cu_seqlens_k, q.size(1), k.size(1), lists.query_block);
  if (q.is_cpu()) check_block_entries(lists, documents);
  const double scale = options.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
  return std::make_shared<BlockAttention>(lists, std::move(documents), options.statistics, scale);
}

// Without a tape; the backward pass gets keys and values anew.
class BlockOperator final : public SoftmaxOperator {
 public:
  BlockOperator(const BlockLists& lists, const BlockAttentionOptions& options)
      : lists_(lists), options_(options) {}

  Output forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const override {
    Tensors saved;
    const Tensors out = checked_op(q, k, v, lists_, options_)->forward({q, k, v, lists_.indices}, saved);
    return {out[0], out[1], out.size() > 2 ? out[2] : at::Tensor()};
  }

  SoftmaxOperator::Gradients backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const Output& out, const at::Tensor& d_o) const override {
    const Tensors saved{dense_rows(q), dense_rows(k), dense_rows(v),
                        out.o,         out.lse,       lists_.indices.contiguous()};
    const Tensors found =
        checked_op(q, k, v, lists_, options_)->gradients(saved, {d_o, at::Tensor()}, at::kFloat);
    return {found[0], found[1], found[2]};
  }

 private:
  BlockLists lists_;
  BlockAttentionOptions options_;
};

}  // namespace

BlockAttentionOutput block_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const BlockLists& lists, const BlockAttentionOptions& options) {
  auto outputs = differentiable(checked_op(q, k, v, lists, options), {q, k, v, lists.indices});
  BlockAttentionOutput result{outputs[0], outputs[1], {}, {}};
  if (outputs.size() > 2) result.block_max = outputs[2].detach(), result.block_sum = outputs[3].detach();
  return result;
}

BlockAttentionOutput block_attention_by(Implementation implementation, const at::Tensor& q,
                                        const at::Tensor& k, const at::Tensor& v, const BlockLists& lists,
                                        const BlockAttentionOptions& options) {
  const bool fused = implementation == Implementation::fused;
  return (fused ? block_attention : block_attention_reference)(q, k, v, lists, options);
}

std::shared_ptr<const SoftmaxOperator> block_operator(Implementation implementation, const BlockLists& lists,
                                                      const BlockAttentionOptions& options) {
  if (implementation == Implementation::fused) return std::make_shared<BlockOperator>(lists, options);
  return softmax_operator([lists, options](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    const BlockAttentionOutput out = block_attention_reference(q, k, v, lists, options);
    return SoftmaxOperator::Output{out.o, out.lse, out.block_max};
  });
}

}  // namespace longreach
