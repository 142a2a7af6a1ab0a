#include "layers/ops/recurrence/cuda/plan.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "layers/ops/document.h"

namespace longreach::recurrence_cuda {
namespace {

using cuda::Dim3;
using cuda::Launch;
using cuda::make_launch;

constexpr int64_t kLongestDk = 256, kLongestDv = 512, kGridLimit = 65535, kLongGridLimit = 2147483647;

int32_t padded(int64_t width) { return static_cast<int32_t>(ceil_div(width, 16) * 16); }
int32_t tiles(int64_t width) { return static_cast<int32_t>(ceil_div(width, kChunk)); }

int element_bytes(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }
std::string suffix(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "_fp32";
    case DType::kBFloat16:
      return "_bf16";
    case DType::kFloat16:
      return "_fp16";
  }
  throw DtypeError(text("recurrence: element type ", static_cast<int>(dtype),
                        " is not built for CUDA; built: float32, bfloat16, float16"));
}

void expect_aligned(const void* pointer, size_t bytes, const char* name) {
  check<ShapeError>(pointer != nullptr, "recurrence: ", name, ": no memory");
  check<ShapeError>(reinterpret_cast<uintptr_t>(pointer) % bytes == 0, "recurrence: ", name, ": address ",
                    pointer, " is not a multiple of ", bytes, " bytes");
}
void expect_aligned_or_null(const void* pointer, size_t bytes, const char* name) {
  if (pointer != nullptr) expect_aligned(pointer, bytes, name);
}

void expect_heads(int64_t heads, int64_t key_heads, int64_t value_heads) {
  check<ShapeError>(heads >= 1 && heads <= kGridLimit, "recurrence: ", heads, " heads; built for CUDA: 1 to ",
                    kGridLimit);
  check<ShapeError>(key_heads >= 1 && heads % key_heads == 0, "recurrence: k: ", key_heads,
                    " heads, expected a divisor of the ", heads, " of q");
  check<ShapeError>(value_heads >= 1 && heads % value_heads == 0, "recurrence: v: ", value_heads,
                    " heads, expected a divisor of the ", heads, " of q");
}

void expect_widths(int64_t dk, int64_t dv) {
  check<ShapeError>(dk >= 1 && dk <= kLongestDk, "recurrence: Dk = ", dk, "; built for CUDA: 1 to ",
                    kLongestDk);
  check<ShapeError>(dv >= 1 && dv <= kLongestDv, "recurrence: Dv = ", dv, "; built for CUDA: 1 to ",
                    kLongestDv);
}

void expect_shape(const Shape& shape) {
  suffix(shape.dtype);
  expect_heads(shape.heads, shape.key_heads, shape.value_heads);
  expect_widths(shape.dk, shape.dv);
  check<ShapeError>(shape.chunk == kChunk && shape.segment == kChunk, "recurrence: chunks of ", shape.chunk,
                    " and segments of ", shape.segment, " tokens; built for CUDA: ", kChunk);
  const int64_t largest =
      shape.sequence_count * shape.heads * ceil_div(kLongestDk * kLongestDv, 4 * kThreads);
  check<ShapeError>(std::max(largest, count_chunks(shape) * 32) <= kLongGridLimit,
                    "recurrence: ", shape.sequence_count, " sequences of ", shape.heads,
                    " heads are more blocks than a grid holds, ", kLongGridLimit);
  if (shape.decay != Decay::kNone) expect_aligned(shape.log_decay, 4, "log_decay");
}

// How the kernels see an operand with `heads` heads. Without tokens there need be no memory.
Operand operand(const Strided& view, const Shape& shape, int64_t heads, const char* name) {
  if (count_chunks(shape) == 0) return {};
  const int64_t bytes = element_bytes(shape.dtype), per_vector = 16 / bytes;
  expect_aligned(view.data, static_cast<size_t>(bytes), name);
  bool rows = false;
  for (int64_t n = 0; n < shape.sequence_count; ++n) rows = rows || shape.sequences[n].row > 0;
  const bool vectors = reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.token % per_vector == 0 &&
                       (heads == 1 || view.head % per_vector == 0) && (!rows || view.batch % per_vector == 0);
  return {view.data,      view.batch, view.token, view.head, static_cast<int32_t>(shape.heads / heads),
          vectors ? 1 : 0};
}

bool dense_vectors(int64_t dv, std::initializer_list<const void*> pointers) {
  return dv % 4 == 0 && std::all_of(pointers.begin(), pointers.end(), [](const void* pointer) {
           return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
         });
}

// Pieces of one allocation, 256-byte aligned; without memory it counts.
class Arena {
 public:
  explicit Arena(void* data) : data_(static_cast<std::byte*>(data)) {}
  float* floats(int64_t count) {
    const size_t at = used_;
    used_ += (static_cast<size_t>(count) * sizeof(float) + 255) / 256 * 256;
    return data_ == nullptr ? nullptr : reinterpret_cast<float*>(data_ + at);
  }
  size_t used() const { return used_; }

 private:
  std::byte* data_;
  size_t used_ = 0;
};

struct Sizes {
  int64_t chunks, heads, state;
  int32_t rows, columns;
  explicit Sizes(const Shape& shape)
      : chunks(count_chunks(shape)),
        heads(shape.heads),
        state(static_cast<int64_t>(padded(shape.dk)) * padded(shape.dv)),
        rows(padded(shape.dk)),
        columns(padded(shape.dv)) {}
  int64_t places() const { return chunks * heads; }
};

struct ForwardMemory {
  float *tables, *states;
  size_t bytes;
  ForwardMemory(const Forward& params, void* workspace) {
    const Sizes sizes(params.shape);
    Arena arena(workspace);
    tables = arena.floats(sizes.places() * kTableRows * kChunk);
    states = params.checkpoints ? params.checkpoints : arena.floats(sizes.places() * sizes.state);
    bytes = arena.used();
  }
};

struct BackwardMemory {
  bool decay;
  float *tables, *grads, *states, *query_dots = nullptr, *key_dots = nullptr, *crossings = nullptr,
                                  *borders = nullptr;
  size_t bytes;
  BackwardMemory(const Backward& params, void* workspace)
      : decay(params.d_log_decay != nullptr || params.d_head_decay != nullptr) {
    const Sizes sizes(params.shape);
    Arena arena(workspace);
    tables = arena.floats(sizes.places() * kTableRows * kChunk);
    grads = arena.floats(sizes.places() * sizes.state);
    states = params.checkpoints || !params.inputs ? nullptr : arena.floats(sizes.places() * sizes.state);
    if (decay) {
      const int64_t dots = sizes.places() * tiles(params.shape.dk) * kChunk;
      query_dots = arena.floats(dots), key_dots = arena.floats(dots), crossings = arena.floats(dots);
      borders = arena.floats(sizes.places() * (sizes.state / 128));
    }
    bytes = arena.used();
  }
};

// Launches of one pass over a shape.
class Planner {
 public:
  Planner(const Shape& shape, const DeviceMemory& memory, float* tables)
      : shape_(shape), sizes_(shape), tables_(tables) {
    if (shape.sequence_count > 0) expect_aligned(memory.lists, 16, "lists");
    if (sizes_.chunks > 0) expect_aligned(memory.workspace, 16, "workspace");
    chunks_ = static_cast<const Chunk*>(memory.lists);
    ranges_ = reinterpret_cast<const ChunkRange*>(chunks_ + sizes_.chunks);
  }

  void decay_tables() {
    const bool per_token = shape_.decay == Decay::kToken;
    add("recurrence_decay_tables", sizes_.chunks, ceil_div(sizes_.heads, 8), 256, 0,
        TableParams{chunks_, shape_.decay == Decay::kNone ? nullptr : shape_.log_decay, shape_.decay_row,
                    shape_.decay_token, shape_.decay_head, static_cast<int32_t>(sizes_.heads),
                    per_token ? 1 : 0, tables_});
  }

  void sums(const Operand& x, const Operand& z, Table factor, float scale, float* out) {
    const int bytes = element_bytes(shape_.dtype);
    add("recurrence_sums" + suffix(shape_.dtype), sizes_.chunks * tiles(shape_.dk) * tiles(shape_.dv),
        sizes_.heads, kThreads, kChunk * 4 + 2 * tile_bytes(bytes),
        SumParams{chunks_, x, z, tables_, out, static_cast<int32_t>(shape_.dk),
                  static_cast<int32_t>(shape_.dv), sizes_.rows, sizes_.columns,
                  static_cast<int32_t>(sizes_.heads), factor, scale});
  }

  void scan(float* sums, const float* start, float* end, const float* states, float* borders, bool reverse) {
    expect_aligned_or_null(start, 4, reverse ? "grad of final_state" : "initial_state");
    expect_aligned_or_null(end, 4, reverse ? "grad of initial_state" : "final_state");
    const bool vectors = dense_vectors(shape_.dv, {start, end});
    add("recurrence_scan", shape_.sequence_count * sizes_.heads * ceil_div(sizes_.state, 4 * kThreads), 1,
        kThreads, 0,
        ScanParams{ranges_, tables_, sums, start, end, states, borders, shape_.sequence_count,
                   static_cast<int32_t>(sizes_.heads), static_cast<int32_t>(shape_.dk),
                   static_cast<int32_t>(shape_.dv), sizes_.rows, sizes_.columns, vectors ? 1 : 0,
                   reverse ? 1 : 0});
  }

  // Fills in what follows from the shape; transposed: the inner index runs over the columns of the states.
  void outputs(const std::string& name, OutputParams params, bool transposed, int64_t y_heads) {
    const int bytes = element_bytes(shape_.dtype);
    params.chunks = chunks_, params.tables = tables_;
    params.inner = static_cast<int32_t>(transposed ? shape_.dv : shape_.dk);
    params.outer = static_cast<int32_t>(transposed ? shape_.dk : shape_.dv);
    params.rows = sizes_.rows, params.columns = sizes_.columns;
    params.heads = static_cast<int32_t>(sizes_.heads);
    params.group = static_cast<int32_t>(sizes_.heads / y_heads), params.tiles = tiles(params.outer);
    params.y.share = 1;  // blocks count heads of y
    const int buffers = std::min(slice_buffers(bytes), static_cast<int>(tiles(params.inner)));
    add(name + suffix(shape_.dtype), sizes_.chunks * params.tiles, y_heads, kThreads,
        kTableBytes + tile_bytes(bytes) + buffers * slice_bytes(bytes), params);
  }

  void decay_gradient(const BackwardMemory& work, const Backward& params) {
    expect_aligned_or_null(params.d_log_decay, 4, "grad of log_decay");
    expect_aligned_or_null(params.d_head_decay, 8, "grad of log_decay");
    add("recurrence_decay_gradient", sizes_.chunks, ceil_div(sizes_.heads, 8), 256, 0,
        DecayGradientParams{chunks_, tables_, work.query_dots, work.key_dots, work.crossings, work.borders,
                            static_cast<int32_t>(sizes_.heads), tiles(shape_.dk),
                            static_cast<int32_t>(sizes_.state / 128), params.d_decay_row, params.d_log_decay,
                            params.d_head_decay});
  }

  std::vector<Launch> take() { return std::move(launches_); }

 private:
  template <class Params>
  void add(const std::string& kernel, int64_t x, int64_t y, uint32_t threads, int shared,
           const Params& params) {
    if (x == 0) return;  // no tokens
    launches_.push_back(make_launch(kernel, Dim3{static_cast<uint32_t>(x), static_cast<uint32_t>(y), 1},
                                    Dim3{threads, 1, 1}, static_cast<uint32_t>(shared), params));
  }

  const Shape& shape_;
  Sizes sizes_;
  float* tables_;
  const Chunk* chunks_;
  const ChunkRange* ranges_;
  std::vector<Launch> launches_;
};

}  // namespace

int64_t count_chunks(const Shape& shape) {
  int64_t count = 0;
  for (int64_t n = 0; n < shape.sequence_count; ++n) count += ceil_div(shape.sequences[n].tokens, kChunk);
  return count;
}

std::vector<std::byte> make_lists(const Shape& shape) {
  std::vector<Chunk> chunks;
  std::vector<ChunkRange> ranges;
  for (int64_t n = 0; n < shape.sequence_count; ++n) {
    const Sequence& s = shape.sequences[n];
    ranges.push_back({static_cast<int64_t>(chunks.size()), ceil_div(s.tokens, kChunk)});
    for (int64_t t = 0; t < s.tokens; t += kChunk)
      chunks.push_back(
          {s.row, s.first + t, static_cast<int32_t>(std::min<int64_t>(s.tokens - t, kChunk)), 0});
  }
  const size_t chunk_bytes = chunks.size() * sizeof(Chunk), range_bytes = ranges.size() * sizeof(ChunkRange);
  std::vector<std::byte> lists(std::max<size_t>(chunk_bytes + range_bytes, 1));
  if (chunk_bytes > 0) std::memcpy(lists.data(), chunks.data(), chunk_bytes);
  if (range_bytes > 0) std::memcpy(lists.data() + chunk_bytes, ranges.data(), range_bytes);
  return lists;
}

size_t checkpoint_bytes(const Shape& shape) {
  const Sizes sizes(shape);
  return static_cast<size_t>(sizes.places() * sizes.state) * sizeof(float);
}
size_t forward_workspace_bytes(const Forward& params) { return ForwardMemory(params, nullptr).bytes; }
size_t backward_workspace_bytes(const Backward& params) { return BackwardMemory(params, nullptr).bytes; }

std::vector<Launch> plan_forward(const Forward& params, const DeviceMemory& memory) {
  const Shape& shape = params.shape;
  expect_shape(shape);
  expect_aligned_or_null(params.checkpoints, 16, "checkpoints");
  const ForwardMemory work(params, memory.workspace);
  const Operand k = operand(params.k, shape, shape.key_heads, "k"),
                v = operand(params.v, shape, shape.value_heads, "v");
  Planner plan(shape, memory, work.tables);
  plan.decay_tables();
  plan.sums(k, v, kAfter, 1.0f, work.states);
  plan.scan(work.states, params.initial_state, params.final_state, nullptr, nullptr, false);
  if (!params.outputs) return plan.take();
  plan.outputs("recurrence_output",
               {.x1 = operand(params.q, shape, shape.heads, "q"),
                .x2 = k,
                .x3 = v,
                .y = operand(params.o, shape, shape.heads, "o"),
                .states = work.states,
                .intra_scale = shape.scale,
                .state_scale = shape.scale},
               false, shape.heads);
  return plan.take();
}

std::vector<Launch> plan_backward(const Backward& params, const DeviceMemory& memory,
                                  const float* initial_state) {
  const Shape& shape = params.shape;
  expect_shape(shape);
  expect_aligned_or_null(params.checkpoints, 16, "checkpoints");
  const BackwardMemory work(params, memory.workspace);
  const int64_t heads = shape.heads;
  const Operand q = operand(params.q, shape, heads, "q"),
                grad = operand(params.grad_o, shape, heads, "grad of o");
  const float scale = shape.scale;
  Planner plan(shape, memory, work.tables);
  plan.decay_tables();
  if (!params.inputs) {
    plan.sums(q, grad, kBefore, scale, work.grads);
    plan.scan(work.grads, params.grad_final_state, params.grad_initial_state, nullptr, nullptr, true);
    return plan.take();
  }
  const Operand k = operand(params.k, shape, shape.key_heads, "k"),
                v = operand(params.v, shape, shape.value_heads, "v"),
                dq = operand(params.dq, shape, heads, "grad of q"),
                dk = operand(params.dk, shape, shape.key_heads, "grad of k"),
                dv = operand(params.dv, shape, shape.value_heads, "grad of v");
  const float* states = params.checkpoints ? params.checkpoints : work.states;
  if (params.checkpoints == nullptr && count_chunks(shape) > 0) {
    plan.sums(k, v, kAfter, 1.0f, work.states);
    plan.scan(work.states, initial_state, nullptr, nullptr, nullptr, false);
  }
  plan.sums(q, grad, kBefore, scale, work.grads);
  plan.scan(work.grads, params.grad_final_state, params.grad_initial_state, states, work.borders, true);
  plan.outputs("recurrence_grad_query",
               {.x1 = grad,
                .x2 = v,
                .x3 = k,
                .y = dq,
                .x4 = q,
                .states = states,
                .row_dots = work.query_dots,
                .crossings = work.crossings,
                .intra_scale = scale,
                .state_scale = scale},
               true, heads);
  plan.outputs("recurrence_grad_key",
               {.x1 = v,
                .x2 = grad,
                .x3 = q,
                .y = dk,
                .x4 = k,
                .states = work.grads,
                .row_dots = work.key_dots,
                .intra_scale = scale,
                .state_scale = 1.0f},
               true, shape.key_heads);
  plan.outputs("recurrence_grad_value",
               {.x1 = k,
                .x2 = q,
                .x3 = grad,
                .y = dv,
                .states = work.grads,
                .intra_scale = scale,
                .state_scale = 1.0f},
               false, shape.value_heads);
  if (work.decay) plan.decay_gradient(work, params);
  return plan.take();
}

std::vector<Launch> plan_step(const Step& p) {
  expect_heads(p.heads, p.key_heads, p.value_heads);
  expect_widths(p.dk, p.dv);
  check<ShapeError>(p.batch >= 0 && p.batch <= kGridLimit, "recurrence: a batch of ", p.batch,
                    "; built for CUDA: up to ", kGridLimit);
  const std::string name = "recurrence_step" + suffix(p.dtype);
  const auto view = [&](const Strided& x, int64_t heads, const char* what) {
    expect_aligned(x.data, static_cast<size_t>(element_bytes(p.dtype)), what);
    return Operand{x.data, x.batch, x.token, x.head, static_cast<int32_t>(p.heads / heads), 0};
  };
  const Operand q = view(p.q, p.heads, "q"), k = view(p.k, p.key_heads, "k"),
                v = view(p.v, p.value_heads, "v"), o = view(p.o, p.heads, "o");
  expect_aligned_or_null(p.log_decay, 4, "log_decay");
  expect_aligned(p.state, 4, "state");
  expect_aligned(p.new_state, 4, "new_state");
  if (p.batch == 0) return {};
  const Dim3 grid{static_cast<uint32_t>(tiles(p.dv)), static_cast<uint32_t>(p.heads),
                  static_cast<uint32_t>(p.batch)};
  return {make_launch(
      name, grid, Dim3{kThreads, 1, 1}, 0,
      StepParams{q, k, v, o, p.log_decay, p.decay_row, p.decay_head, p.state, p.new_state,
                 static_cast<int32_t>(p.heads), static_cast<int32_t>(p.dk), static_cast<int32_t>(p.dv),
                 dense_vectors(p.dv, {p.state, p.new_state}) ? 1 : 0, p.scale})};
}

}  // namespace longreach::recurrence_cuda
