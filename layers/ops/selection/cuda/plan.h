// Launch plans of selection on CUDA: from shapes and device pointers to kernels, grids and parameters. Plain
// functions without torch or CUDA, used as cuda::Plan says. All pointers are those of device
// memory, but for documents, budgets and pools, which are read here.
#pragma once
#include <vector>

#include "layers/ops/cuda/launch.h"
#include "layers/ops/selection/cuda/params.h"
#include "layers/ops/selection/kernels.h"

namespace longreach::selection {

// Where rows and blocks stand, what is kept, and where lists go: CudaRule.
struct RuleParams {
  std::vector<PackedDocument> documents;  // their rows, keys and windows
  std::vector<int64_t> budgets;           // of each document: how many blocks a row may keep
  int64_t rows = 0, blocks = 0;           // of one list; of the longest document
  int64_t query_block = 1, key_block = 64, offset = 0;
  bool causal = true;
  int64_t first = 0, latest = 0;
  Limits limits{};
  int64_t size = 0;
  int32_t *indices = nullptr, *status = nullptr;
};

struct ChooseParams {
  RuleParams rule;
  int64_t lists = 0;  // of all batch entries
  const float* scores = nullptr;
};

struct SelectParams {
  RuleParams rule;
  DType dtype = DType::kBFloat16;
  int64_t batches = 0, key_count = 0, heads = 0, key_heads = 0, lists = 0, size = 0;
  Strided q{}, k{};
  int64_t width = 0, stride = 0;
  bool softmax = true;
  VoteKind vote = VoteKind::sum;
  CudaVisible visible = CudaVisible::started;
  float scale = 1;
  float* scores = nullptr;
};

// Writes lists, or counts them where indices is null, and status. Throws ShapeError for 2^29 keys or more,
// and for rows of more blocks than a block's shared memory holds (99 KB, which every device has): choose
// 25344; select 6656 for head dims of 128 (fp32) and more for smaller ones, less with many heads a list.
cuda::Plan plan_choose(const ChooseParams& params, void* workspace);

// As plan_choose, and the scores where they are asked for. dtype float32, bfloat16 or float16; any strides
// with a dense last dimension: rows of q and k that are not 16-byte aligned are copied to work space first.
// Throws DtypeError, and ShapeError for head dims above 128.
cuda::Plan plan_select(const SelectParams& params, void* workspace);

// x -> pooled, picked; and pooled, picked -> x. Any strides with a dense last dimension, any number of
// elements a head; at most 16 pools (ShapeError).
cuda::Plan plan_pool(const Pooling& params, void* workspace);
cuda::Plan plan_pool_backward(const Pooling& params, void* workspace);

}  // namespace longreach::selection
