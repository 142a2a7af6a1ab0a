// Work is counted as the mathematics needs it: visible pairs alone, each operand moved once. Passes over small tables have
// none. What a kernel computes twice (scores in the backward pass) is its own affair, but for the products that it cannot
// do without: dQ needs three, dK and dV four.
#include "layers/ops/cuda/named_launches.h"

#include <functional>
#include <set>

#include "core/error.h"
#include "layers/ops/block_attention/cuda/plan.h"
#include "layers/ops/interval_attention/cuda/plan.h"
#include "layers/ops/merge/cuda/plan.h"
#include "layers/ops/recurrence/cuda/plan.h"
#include "layers/ops/rows/cuda/plan.h"
#include "layers/ops/selection/cuda/plan.h"

namespace longreach::cuda {
namespace {

constexpr int64_t kTokens = 8192, kHeads = 16, kColumns = 4096, kLogits = 32768, kState = 128;
constexpr DType kDtypes[] = {DType::kBFloat16, DType::kFloat16, DType::kFloat32};

// Plans look at alignment and at null alone.
template <class T = void>
T* nowhere() {
  return reinterpret_cast<T*>(uintptr_t{256});
}

double bytes_of(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }
Arithmetic arithmetic_of(DType dtype) {
  return dtype == DType::kFloat32 ? Arithmetic::kTf32x3 : Arithmetic::kHalf;
}

using WorkOf = std::function<Work(const std::string& kernel)>;

class Collector {
 public:
  void add(const std::string& problem, const std::vector<Launch>& launches, const WorkOf& work) {
    for (const Launch& launch : launches)
      if (seen_.insert(launch.kernel).second) all_.push_back({launch, problem, work(launch.kernel)});
  }
  std::vector<NamedLaunch> take() { return std::move(all_); }

 private:
  std::vector<NamedLaunch> all_;
  std::set<std::string> seen_;
};

interval::Params attention(DType dtype, const interval::HeadDims& dims, int64_t queries) {
  interval::Params p{};
  p.dtype = dtype;
  p.batches = 1, p.queries = queries, p.keys = kTokens;
  p.heads = p.key_heads = p.value_heads = kHeads;
  p.qk_size = dims.qk, p.v_size = dims.v;
  p.scale = 1.0f;
  p.causal = true;
  p.documents = 1;
  const auto rows = [](int64_t tokens, int64_t size) {
    return Strided{nowhere(), tokens * kHeads * size, kHeads * size, size};
  };
  p.q = rows(queries, dims.qk), p.k = rows(kTokens, dims.qk), p.v = rows(kTokens, dims.v);
  p.o = rows(queries, dims.v);
  return p;
}

interval::Gradients gradients(const interval::Params& p) { return {p.o, nullptr, p.q, p.k, p.v}; }

Work attention_work(const std::string& kernel, DType dtype, const interval::HeadDims& dims, int64_t queries) {
  const auto is = [&](const char* name) {
    return kernel.starts_with(text("interval_attention_", name)) ||
           kernel.starts_with(text("interval_attention_dense_", name));
  };
  const double pairs = queries == 1 ? kHeads * kTokens : kHeads * 0.5 * kTokens * kTokens;
  const double qk = dims.qk, v = dims.v, bytes = bytes_of(dtype);
  const double query_rows = static_cast<double>(kHeads * queries), key_rows = kHeads * kTokens;
  const double inputs = query_rows * qk + key_rows * (qk + v);  // elements of q, k, v
  const auto work = [&](double products, double elements, double floats) {
    return Work{2 * pairs * products, elements * bytes + query_rows * floats * 4, arithmetic_of(dtype)};
  };
  if (is("forward") || is("decode")) return work(qk + v, inputs + query_rows * v, 1);
  if (is("query_gradient")) return work(2 * qk + v, inputs + query_rows * (v + qk), 2);
  if (is("key_gradient_k")) return work(2 * qk + v, inputs + query_rows * v + key_rows * qk, 2);
  if (is("key_gradient_v")) return work(qk + v, query_rows * (qk + v) + key_rows * (qk + v), 2);
  if (is("key_gradient")) return work(2 * qk + 2 * v, inputs + query_rows * v + key_rows * (qk + v), 2);
  if (kernel.starts_with("attention_rows_row_terms")) return work(0, 2 * query_rows * v, 3);
  return {};
}

void add_attention(Collector& all) {
  for (const DType dtype : kDtypes) {
    for (const interval::HeadDims& dims : interval::built_head_dims(dtype)) {
      const interval::Params full = attention(dtype, dims, kTokens), one = attention(dtype, dims, 1);
      const auto work_of = [&](int64_t queries) {
        return
            [&, queries](const std::string& kernel) { return attention_work(kernel, dtype, dims, queries); };
      };
      all.add("attention",
              interval::plan_forward(full, nullptr, {.path = interval::ForwardPath::kTiles}).launches,
              work_of(kTokens));
      all.add("attention", interval::plan_backward(full, gradients(full), nullptr).launches,
              work_of(kTokens));
      all.add("decode",
              interval::plan_forward(one, nullptr, {.path = interval::ForwardPath::kDecode}).launches,
              work_of(1));
    }
    for (const interval::HeadDims& dims : {interval::HeadDims{64, 64}, interval::HeadDims{128, 128}}) {
      const interval::Params full = attention(dtype, dims, kTokens);
      const auto work = [&](const std::string& kernel) {
        return attention_work(kernel, dtype, dims, kTokens);
      };
      all.add("sm_90", interval::plan_forward(full, nullptr, {.architecture = 90}).launches, work);
      all.add("sm_90", interval::plan_backward(full, gradients(full), nullptr, {.architecture = 90}).launches,
              work);
    }
    const auto uncounted = [](const std::string&) { return Work{}; };
    interval::Params shared = attention(dtype, {64, 64}, kTokens);
    shared.key_heads = 8;
    shared.lo = shared.hi = nowhere<const int32_t>();
    shared.mask_batches = shared.mask_heads = 1;
    all.add("shared", interval::plan_backward(shared, gradients(shared), nullptr).launches, uncounted);
    interval::Params misaligned = attention(dtype, {64, 64}, kTokens);
    misaligned.q.token += 1;
    all.add("misaligned", interval::plan_forward(misaligned, nullptr).launches, uncounted);
  }
}

constexpr int64_t kListed = 16;

// Rows of `query_block` queries, each with kListed blocks of keys; one list and one key head for all heads, or one a head.
struct BlockProblem {
  DocumentRows document;
  block::Params params{};
  block::Gradients gradients{};

  BlockProblem(DType dtype, const interval::HeadDims& dims, int64_t query_block, int64_t key_block,
               bool shared)
      : document{0, kTokens, 0, kTokens, 0, kTokens / query_block} {
    const interval::Params like = attention(dtype, dims, kTokens);
    block::Params& p = params;
    p.dtype = dtype;
    p.batches = 1, p.queries = p.keys = kTokens, p.heads = kHeads;
    p.key_heads = p.value_heads = p.list_heads = shared ? 1 : kHeads;
    p.qk_size = dims.qk, p.v_size = dims.v, p.scale = 1.0f;
    p.q = like.q, p.k = like.k, p.v = like.v, p.o = like.o;
    p.causal = true;
    p.query_block = query_block, p.key_block = key_block;
    p.indices = nowhere<const int32_t>();
    p.list_batches = 1, p.rows = document.rows, p.slots = kListed;
    p.documents = &document, p.document_count = 1;
    p.block_max = p.block_sum = nowhere<float>();
    gradients = {p.o, nullptr, p.q, p.k, p.v};
  }
};

Work block_work(const std::string& kernel, const block::Params& p) {
  const auto is = [&](const char* name) { return kernel.starts_with(text("block_attention_", name)); };
  const double qk = static_cast<double>(p.qk_size), v = static_cast<double>(p.v_size),
               bytes = bytes_of(p.dtype);
  const double pairs = kHeads * kTokens * static_cast<double>(kListed * p.key_block);
  const double query_rows = kHeads * kTokens, key_rows = static_cast<double>(p.key_heads * kTokens);
  const double lists = static_cast<double>(p.list_heads * p.rows * kListed) * 4;
  const auto work = [&](double products, double queries, double keys, double floats) {
    return Work{2 * pairs * products,
                (query_rows * queries + key_rows * keys) * bytes + query_rows * floats * 4 + lists,
                arithmetic_of(p.dtype)};
  };
  if (is("forward")) return work(qk + v, qk + v, qk + v, 1);
  if (is("query_gradient")) return work(2 * qk + v, 2 * qk + v, qk + v, 2);
  if (is("key_gradient_k_")) return work(2 * qk + v, qk + v, 2 * qk + v, 2);
  if (is("key_gradient_v_")) return work(qk + v, qk + v, qk + v, 2);
  if (is("key_gradient")) return work(2 * qk + 2 * v, qk + v, 2 * (qk + v), 2);
  if (is("statistics")) return work(qk, qk, qk, 1);
  return {};
}

void add_block_attention(Collector& all) {
  for (const DType dtype : kDtypes)
    for (const interval::HeadDims& dims : block::built_head_dims(dtype))
      for (const int64_t query_block : {1, 64, 128}) {
        const BlockProblem x(dtype, dims, query_block, query_block == 128 ? 32 : 64, query_block == 1);
        const auto work = [&](const std::string& kernel) { return block_work(kernel, x.params); };
        all.add("blocks", block::plan_forward(x.params, nullptr).launches, work);
        all.add("blocks", block::plan_backward(x.params, x.gradients, nullptr).launches, work);
      }
}

// `moved`: bytes a launch, but for the kernels that add up its small results.
WorkOf traffic(double moved) {
  return [moved](const std::string& kernel) {
    return kernel == "column_sums" || kernel == "loss_sum" ? Work{} : Work{0, moved, Arithmetic::kHalf};
  };
}

// NSA's choice for one group of heads: windows of 32 in strides of 16, 16 blocks of 64 a token; and pools of 64 tokens.
void add_selection(Collector& all) {
  namespace sel = selection;
  const int64_t windows = (kTokens - 32) / 16 + 1, blocks = kTokens / 64;
  sel::RuleParams rule{.documents = {{0, kTokens, kTokens, 0, windows, blocks, kListed}},
                       .rows = kTokens,
                       .blocks = blocks,
                       .size = kListed};
  rule.indices = rule.status = nowhere<int32_t>();
  const double lists = static_cast<double>(kTokens * kListed) * 4,
               scores = static_cast<double>(kTokens * blocks) / 2 * 4;
  all.add("selection",
          sel::plan_choose({.rule = rule, .lists = 1, .scores = nowhere<const float>()}, nullptr).launches,
          traffic(scores + lists));
  for (const DType dtype : kDtypes) {
    for (const int64_t size : {64, 128}) {
      sel::SelectParams p{.rule = rule, .dtype = dtype, .batches = 1, .key_count = windows, .heads = kHeads};
      p.key_heads = p.lists = 1, p.size = size, p.width = 32, p.stride = 16;
      p.visible = sel::CudaVisible::complete;
      p.q = {nowhere(), kTokens * kHeads * size, kHeads * size, size};
      p.k = {nowhere(), windows * size, size, size};
      const double elements = static_cast<double>((kTokens * kHeads + windows) * size);
      const Work work{static_cast<double>(kTokens * kHeads * windows * size),
                      elements * bytes_of(dtype) + lists, arithmetic_of(dtype)};
      all.add("selection", sel::plan_select(p, nullptr).launches, [=](const std::string&) { return work; });
    }
    const sel::Span span{0, kTokens, 0, blocks};
    const sel::PoolKind pools[] = {sel::PoolKind::max, sel::PoolKind::min, sel::PoolKind::mean};
    sel::Pooling pool{.dtype = dtype, .batches = 1, .heads = kHeads, .size = 128, .width = 64, .stride = 64};
    pool.spans = &span, pool.span_count = 1, pool.tokens = kTokens, pool.windows = blocks;
    pool.pools = pools, pool.pool_count = 3, pool.picking = 2;
    pool.x = {nowhere(), kTokens * kHeads * 128, kHeads * 128, 128};
    pool.pooled = {nowhere(), blocks * kHeads * 384, kHeads * 384, 384};
    pool.picked = nowhere<int32_t>();
    const double moved =
        static_cast<double>(kHeads * 128) *
        (static_cast<double>(kTokens + 3 * blocks) * bytes_of(dtype) + static_cast<double>(2 * blocks) * 4);
    all.add("selection", sel::plan_pool(pool, nullptr).launches, traffic(moved));
    all.add("selection", sel::plan_pool_backward(pool, nullptr).launches, traffic(moved));
  }
}

// Sixteen parts of 128 elements a row: NSA's blocks of a size that block attention is not built for.
void add_merge(Collector& all) {
  constexpr int64_t kParts = 16, kSize = 128;
  for (const DType dtype : kDtypes) {
    const merge_kernels::Part part{nowhere(),        kTokens * kHeads * kSize, kHeads * kSize, kSize,
                                   nowhere<float>(), kHeads * kTokens,         kTokens,        1};
    const std::vector<merge_kernels::Part> parts(kParts, part);
    merge_kernels::Merge merge{.batch = 1, .tokens = kTokens, .heads = kHeads, .dim = kSize, .dtype = dtype};
    merge.parts = parts.data(), merge.part_count = kParts, merge.result = part;
    const double row = static_cast<double>(kTokens * kHeads) * (kSize * bytes_of(dtype) + 4);
    all.add("merge", merge_kernels::plan_forward(merge, nullptr).launches, traffic((kParts + 1) * row));
    all.add("merge", merge_kernels::plan_backward({merge, part, parts.data()}, nullptr).launches,
            traffic((2 * kParts + 1) * row));
  }
}

Work recurrence_work(const std::string& kernel, DType dtype) {
  const auto is = [&](const char* name) { return kernel.starts_with(text("recurrence_", name)); };
  const double rows = static_cast<double>(kHeads * kTokens), bytes = bytes_of(dtype);
  const double states = rows / 64 * kState * kState * 4;  // of all chunks of 64 tokens, fp32
  const double into_state = 2 * rows * kState * kState;
  const double in_chunk = 2 * rows * (64 / 2) * 2 * kState;  // both products, half of the pairs
  const auto work = [&](double flops, double operands, double moved) {
    return Work{flops, operands * rows * kState * bytes + moved, arithmetic_of(dtype)};
  };
  if (is("sums")) return work(into_state, 2, states);
  if (is("scan")) return work(0, 0, 2 * states);
  if (is("output") || is("grad_value")) return work(into_state + in_chunk, 4, states);
  if (is("grad_")) return work(into_state + in_chunk, 5, states);
  if (is("step")) return {0, 2.0 * kHeads * kState * kState * 4, Arithmetic::kHalf};
  return {};
}

void add_recurrence(Collector& all) {
  namespace rc = recurrence_cuda;
  for (const DType dtype : kDtypes) {
    const rc::Sequence sequence{.tokens = kTokens};
    rc::Shape shape{.heads = kHeads, .key_heads = kHeads, .value_heads = kHeads, .dk = kState, .dv = kState};
    shape.chunk = shape.segment = rc::kChunk;
    shape.sequences = &sequence, shape.sequence_count = 1;
    shape.dtype = dtype;
    shape.decay = rc::Decay::kToken, shape.log_decay = nowhere<const float>();
    shape.decay_token = kHeads, shape.decay_head = 1;
    shape.segment_count = rc::count_chunks(shape);
    const rc::View view{nowhere(), 0, kHeads * kState, kState};
    const rc::DeviceMemory memory{nowhere<const void>(), nowhere()};
    rc::Forward forward{.shape = shape, .q = view, .k = view, .v = view, .o = view};
    forward.checkpoints = nowhere<float>();
    rc::Backward backward{
        .shape = shape, .q = view, .k = view, .v = view, .grad_o = view, .dq = view, .dk = view, .dv = view};
    backward.checkpoints = nowhere<const float>();
    backward.d_log_decay = nowhere<float>();
    rc::Step step{.batch = 1, .heads = kHeads, .key_heads = kHeads, .value_heads = kHeads};
    step.dk = step.dv = kState, step.dtype = dtype;
    step.q = step.k = step.v = step.o = view;
    step.state = step.new_state = nowhere<float>();
    const auto work = [&](const std::string& kernel) { return recurrence_work(kernel, dtype); };
    all.add("recurrence", rc::plan_forward(forward, memory), work);
    all.add("recurrence", rc::plan_backward(backward, memory), work);
    all.add("recurrence", rc::plan_step(step), work);
  }
}

void add_norms(Collector& all) {
  const Matrix rows{nowhere(), kColumns};
  const double elements = static_cast<double>(kTokens * kColumns);
  for (const DType x : kDtypes)
    for (const DType y : kDtypes) {
      if (x != y && x != DType::kFloat32) continue;
      RmsNorm norm{.rows = kTokens, .columns = kColumns, .x_dtype = x, .y_dtype = y, .x = rows, .y = rows};
      norm.weight = norm.rstd = nowhere<float>();
      all.add("rows", plan_rms_norm(norm), traffic(elements * (bytes_of(x) + bytes_of(y))));
      RmsNormGrad grad{.rows = kTokens, .columns = kColumns, .x_dtype = x, .y_dtype = y};
      grad.x = grad.dy = grad.dx = rows;
      grad.weight = grad.rstd = grad.dweight = grad.workspace = nowhere<float>();
      all.add("rows", plan_rms_norm_grad(grad), traffic(elements * (2 * bytes_of(x) + bytes_of(y))));
    }
}

void add_rows(Collector& all) {
  add_norms(all);
  const Matrix rows{nowhere(), kColumns};
  const double elements = static_cast<double>(kTokens * kColumns);
  for (const DType dtype : kDtypes) {
    const double bytes = bytes_of(dtype);
    Rotary rotary{
        .tokens = kTokens, .heads = kHeads, .half = 64, .dtype = dtype, .x = nowhere(), .y = nowhere()};
    rotary.x_token = rotary.y_token = kHeads * 128, rotary.x_head = rotary.y_head = 128;
    rotary.cos = rotary.sin = nowhere<const float>();
    for (const bool neighbours : {false, true}) {
      rotary.neighbours = neighbours;
      all.add("rows", plan_rotary(rotary), traffic(2.0 * kTokens * kHeads * 128 * bytes));
    }
    SiluProduct product{
        .rows = kTokens, .columns = kColumns, .dtype = dtype, .gate = rows, .up = rows, .y = rows};
    all.add("rows", plan_silu_product(product), traffic(3 * elements * bytes));
    product.dy = product.dgate = product.dup = rows;
    all.add("rows", plan_silu_product(product), traffic(5 * elements * bytes));
    CrossEntropy loss{.rows = kTokens, .columns = kLogits, .dtype = dtype, .logits = {nowhere(), kLogits}};
    loss.labels = nowhere<const int64_t>();
    loss.nll = loss.lse = nowhere<float>(), loss.loss = nowhere<double>();
    loss.gradient = true;
    all.add("rows", plan_cross_entropy(loss), traffic(2.0 * kTokens * kLogits * bytes));
  }
}

}  // namespace

std::vector<NamedLaunch> named_launches() {
  Collector all;
  add_attention(all);
  add_block_attention(all);
  add_selection(all);
  add_merge(all);
  add_recurrence(all);
  add_rows(all);
  return all.take();
}

}  // namespace longreach::cuda
