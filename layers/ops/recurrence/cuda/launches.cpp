#include "layers/ops/recurrence/cuda/launches.h"

#include "core/error.h"
#include "layers/ops/recurrence/cuda/plan.h"

namespace longreach::recurrence_cuda {
namespace {

using namespace cuda::problem;

constexpr int64_t kState = 128;

cuda::Work recurrence_work(const std::string& kernel, DType dtype) {
  const auto is = [&](const char* name) { return kernel.starts_with(text("recurrence_", name)); };
  const double rows = static_cast<double>(kHeads * kTokens), bytes = bytes_of(dtype);
  const double states = rows / 64 * kState * kState * 4;  // of all chunks of 64 tokens, fp32
  const double into_state = 2 * rows * kState * kState;
  const double in_chunk = 2 * rows * (64 / 2) * 2 * kState;  // both products, half of the pairs
  const auto work = [&](double flops, double operands, double moved) {
    return cuda::Work{flops, operands * rows * kState * bytes + moved, arithmetic_of(dtype)};
  };
  if (is("sums")) return work(into_state, 2, states);
  if (is("scan")) return work(0, 0, 2 * states);
  if (is("output") || is("grad_value")) return work(into_state + in_chunk, 4, states);
  if (is("grad_")) return work(into_state + in_chunk, 5, states);
  if (is("step")) return {0, 2.0 * kHeads * kState * kState * 4, cuda::Arithmetic::kHalf};
  return {};
}

}  // namespace

void add_launches(cuda::NamedLaunches& all) {
  for (const DType dtype : kDtypes) {
    const Sequence sequence{.tokens = kTokens};
    Shape shape{.heads = kHeads, .key_heads = kHeads, .value_heads = kHeads, .dk = kState, .dv = kState};
    shape.chunk = shape.segment = kChunk;
    shape.sequences = &sequence, shape.sequence_count = 1;
    shape.dtype = dtype;
    shape.decay = Decay::kToken, shape.log_decay = nowhere<const float>();
    shape.decay_token = kHeads, shape.decay_head = 1;
    shape.segment_count = count_chunks(shape);
    const Strided view{nowhere(), 0, kHeads * kState, kState};
    const DeviceMemory memory{nowhere<const void>(), nowhere()};
    Forward forward{.shape = shape, .q = view, .k = view, .v = view, .o = view};
    forward.checkpoints = nowhere<float>();
    Backward backward{
        .shape = shape, .q = view, .k = view, .v = view, .grad_o = view, .dq = view, .dk = view, .dv = view};
    backward.checkpoints = nowhere<const float>();
    backward.d_log_decay = nowhere<float>();
    Step step{.batch = 1, .heads = kHeads, .key_heads = kHeads, .value_heads = kHeads};
    step.dk = step.dv = kState, step.dtype = dtype;
    step.q = step.k = step.v = step.o = view;
    step.state = step.new_state = nowhere<float>();
    const auto work = [&](const std::string& kernel) { return recurrence_work(kernel, dtype); };
    all.add("recurrence", plan_forward(forward, memory), work);
    all.add("recurrence", plan_backward(backward, memory), work);
    all.add("recurrence", plan_step(step), work);
  }
}

}  // namespace longreach::recurrence_cuda
