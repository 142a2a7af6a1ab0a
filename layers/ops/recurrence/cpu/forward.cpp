// Forward pass of the recurrence on CPUs, chunk by chunk (Lightning attention 2, arXiv 2401.04658, algorithm
// 1):
//
//   O = [(scale Q K^T) .* M] V + diag(before) (scale Q) S,     S <- total S + (diag(after) K)^T V
//
// M, before, after and total are the products of decays of chunk-inl.h. Tiles are copied to fp32 scratch,
// which takes care of dtype, strides, odd sizes and padding; strips of 16 rows skip the upper triangle. Work
// split: one task a sequence and head; where those are few, one a segment, in three phases: sums of each
// segment from a zero state, a scan over them, outputs. Each task writes places of its own and runs in a
// fixed order: bits do not depend on the threads. Traffic: q, k, v read once (k, v twice in the split form),
// o written once, one state a segment. Sequences of a few tokens (decoding) take the plain recurrence
// instead, without tiles.
#include <cstring>

#include "layers/ops/recurrence/cpu/schedule.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/recurrence/cpu/forward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/recurrence/cpu/chunk-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::recurrence_kernels::HWY_NAMESPACE {

template <class T>
class ForwardTask {
 public:
  explicit ForwardTask(const Forward& params)
      : p_(params), s_(params.shape), dk_(pad(s_.dk)), dv_(pad(s_.dv)) {
    static thread_local simd::Scratch<float> scratch;
    Arena count(nullptr);
    carve(count);
    Arena arena(scratch.get(count.used()));
    carve(arena);
  }

  // All segments of a sequence, one after another; the heads of a block take turns at each, so that rows of
  // neighbouring heads are read together. States lie in final_state between segments.
  void whole(int64_t sequence, Heads block) {
    const int64_t size = s_.dk * s_.dv, segments = segment_count(s_, s_.sequences[sequence]);
    for (int64_t index = 0; index < segments; ++index) {
      for (int64_t head = block.begin; head < block.end; ++head) {
        begin(sequence, head);
        const int64_t offset = (sequence * s_.heads + head) * size;
        const float* start = p_.initial_state == nullptr ? nullptr : p_.initial_state + offset;
        load_state(index == 0 ? start : p_.final_state + offset);
        if (p_.checkpoints != nullptr)
          store_state(p_.checkpoints + ((sequence_->segment + index) * s_.heads + head) * size);
        run(index * s_.segment);
        store_state(p_.final_state + offset);
      }
    }
  }

  // Phase 1 of the split form: the state that a segment adds, kept where the next segment starts.
  void sum(int64_t sequence, int64_t head, int64_t index) {
    begin(sequence, head);
    load_state(nullptr);
    const float total = pass(index * s_.segment);
    const int64_t next = sequence_->segment + index + 1;
    store_state(p_.checkpoints + (next * s_.heads + head) * s_.dk * s_.dv);
    p_.segment_decays[(next - 1) * s_.heads + head] = total;
  }

  // Phase 3: outputs of a segment from the state at its start; without outputs, the last state.
  void segment(int64_t sequence, int64_t head, int64_t index) {
    begin(sequence, head);
    const bool last = (index + 1) * s_.segment >= sequence_->tokens;
    if (!last && !p_.outputs) return;
    load_state(p_.checkpoints + ((sequence_->segment + index) * s_.heads + head) * s_.dk * s_.dv);
    run(index * s_.segment);
    if (last) store_state(p_.final_state + (sequence * s_.heads + head) * s_.dk * s_.dv);
  }

 private:
  void carve(Arena& arena) {
    q_ = arena.take(s_.chunk * dk_), k_ = arena.take(s_.chunk * dk_), kt_ = arena.take(dk_ * s_.chunk);
    v_ = arena.take(s_.chunk * dv_), o_ = arena.take(s_.chunk * dv_);
    scores_ = arena.take(s_.chunk * s_.chunk), state_ = arena.take(dk_ * dv_);
    decays_.carve(arena, s_);
  }

  void begin(int64_t sequence, int64_t head) {
    sequence_ = s_.sequences + sequence, head_ = head;
    decays_.begin_head(s_, head);
  }

  template <class F>
  void for_chunks(int64_t first, const F& body) {
    const int64_t end = std::min(first + s_.segment, sequence_->tokens);
    for (int64_t token = first; token < end; token += s_.chunk) body(token, std::min(s_.chunk, end - token));
  }

  void load_state(const float* from) {
    if (from == nullptr)
      std::memset(state_, 0, static_cast<size_t>(dk_ * dv_) * sizeof(float));
    else
      kernel::pad_tile(from, s_.dv, s_.dk, s_.dv, state_, dv_, dk_, dv_);
  }
  void store_state(float* to) const { store_tile(state_, dv_, s_.dk, s_.dv, to, s_.dv); }

  void load(int64_t token, int64_t m, bool with_queries) {
    const int64_t row = sequence_->row, first = sequence_->first + token;
    const Strided &q = p_.q, &k = p_.k, &v = p_.v;
    kernel::pad_tile(at<T>(k, row, first, head_ * s_.key_heads / s_.heads), k.token, m, s_.dk, k_, dk_,
                     pad(m), dk_);
    kernel::pad_tile(at<T>(v, row, first, head_ * s_.value_heads / s_.heads), v.token, m, s_.dv, v_, dv_,
                     pad(m), dv_);
    if (!with_queries) return;
    kernel::pad_tile(at<T>(q, row, first, head_), q.token, m, s_.dk, q_, dk_, pad(m), dk_);
    for (int64_t r = 0; r < m; ++r) scale_row(q_ + r * dk_, s_.scale, dk_, q_ + r * dk_);
    kernel::transpose(k_, dk_, pad(m), s_.dk, kt_, s_.chunk);
  }

  // S <- total S + (diag(after) K)^T V; leaves diag(after) K in k_.
  void advance(const ChunkDecay& decay, int64_t m) {
    if (s_.decay != Decay::kNone) {
      scale_rows(k_, decay.after, m, dk_, k_);
      scale_row(state_, decay.total, dk_ * dv_, state_);
    }
    kernel::gemm(s_.dk, dv_, m, {k_, 1, dk_}, v_, dv_, state_, dv_, true);
  }

  // A segment, its state alone; returns what the state at its start has decayed to.
  float pass(int64_t first) {
    float total = 1;
    for_chunks(first, [&](int64_t token, int64_t m) {
      load(token, m, false);
      const ChunkDecay decay = decays_.chunk(sequence_->row, sequence_->first + token, m, false);
      advance(decay, m);
      total *= decay.total;
    });
    return total;
  }

  void run(int64_t first) {
    if (p_.outputs)
      outputs(first);
    else
      pass(first);
  }

  // Foresees this chunk's output rows and the rows of the next chunk.
  void expect(int64_t token, int64_t m) {
    const int64_t row = sequence_->row, here = sequence_->first + token, then = here + m;
    const int64_t count = std::min(s_.chunk, sequence_->tokens - token - m);
    next_.clear();
    next_.add(at<T>(p_.o, row, here, head_), p_.o.token, m, s_.dv);
    next_.add(at<T>(p_.q, row, then, head_), p_.q.token, count, s_.dk);
    next_.add(at<T>(p_.k, row, then, head_ * s_.key_heads / s_.heads), p_.k.token, count, s_.dk);
    next_.add(at<T>(p_.v, row, then, head_ * s_.value_heads / s_.heads), p_.v.token, count, s_.dv);
  }
  // Rows a strip when `rows` rows of strips are to foresee four tiles.
  int64_t rows_ahead(int64_t rows) const { return (4 * s_.chunk * kStrip + rows - 1) / rows; }

  void outputs(int64_t first) {
    for_chunks(first, [&](int64_t token, int64_t m) {
      const int64_t rows = pad(m);
      load(token, m, true);
      const ChunkDecay decay = decays_.chunk(sequence_->row, sequence_->first + token, m, true);
      expect(token, m);
      const int64_t ahead = rows_ahead(2 * rows);
      lower_scores(q_, dk_, kt_, s_.dk, rows, s_.chunk, scores_, next_, ahead);
      multiply_lower(decay.pair, rows, s_.chunk, scores_);
      lower_times(scores_, s_.chunk, v_, dv_, rows, o_, false, next_, ahead);
      if (s_.decay != Decay::kNone) scale_rows(q_, decay.before, m, dk_, q_);
      kernel::gemm(m, dv_, s_.dk, {q_, dk_, 1}, state_, dv_, o_, dv_, true);
      store_tile(o_, dv_, m, s_.dv, mutable_at<T>(p_.o, sequence_->row, sequence_->first + token, head_),
                 p_.o.token);
      advance(decay, m);
    });
  }

  const Forward& p_;
  const Shape& s_;
  const int64_t dk_, dv_;  // padded
  const Sequence* sequence_ = nullptr;
  int64_t head_ = 0;
  float *q_, *k_, *kt_, *v_, *o_, *scores_, *state_;
  DecayTable decays_;
  Prefetch next_;
};

// The recurrence as defined, for a few tokens: one pass over the state a token, in place in final_state.
template <class T>
void step_by_step(const Forward& p, int64_t index, int64_t head) {
  const Shape& s = p.shape;
  const FloatTag d;
  const Sequence& sequence = s.sequences[index];
  const int64_t size = s.dk * s.dv, offset = (index * s.heads + head) * size;
  float* state = p.final_state + offset;
  if (p.initial_state == nullptr)
    std::memset(state, 0, static_cast<size_t>(size) * sizeof(float));
  else
    std::memcpy(state, p.initial_state + offset, static_cast<size_t>(size) * sizeof(float));
  if (p.checkpoints != nullptr && sequence.tokens > 0)
    std::memcpy(p.checkpoints + (sequence.segment * s.heads + head) * size, state,
                static_cast<size_t>(size) * sizeof(float));
  float q[256], k[256], v[512], o[512];
  const int64_t whole = s.dv / kLanes * kLanes;
  for (int64_t t = 0; t < sequence.tokens; ++t) {
    const int64_t token = sequence.first + t;
    kernel::row_to_float(at<T>(p.q, sequence.row, token, head), s.dk, q);
    kernel::row_to_float(at<T>(p.k, sequence.row, token, head * s.key_heads / s.heads), s.dk, k);
    kernel::row_to_float(at<T>(p.v, sequence.row, token, head * s.value_heads / s.heads), s.dv, v);
    float a = 1;
    if (s.decay == Decay::kHead) a = std::exp(s.log_decay[head * s.decay_head]);
    if (s.decay == Decay::kToken)
      a = std::exp(s.log_decay[sequence.row * s.decay_row + token * s.decay_token + head * s.decay_head]);
    std::fill(o, o + s.dv, 0.0f);
    for (int64_t i = 0; i < s.dk; ++i) {
      float* row = state + i * s.dv;
      const float qi = q[i] * s.scale, ki = k[i];
      for (int64_t j = 0; j < whole; j += kLanes) {
        const auto next =
            hn::MulAdd(hn::Set(d, a), hn::LoadU(d, row + j), hn::Mul(hn::Set(d, ki), hn::LoadU(d, v + j)));
        hn::StoreU(next, d, row + j);
        hn::StoreU(hn::MulAdd(hn::Set(d, qi), next, hn::LoadU(d, o + j)), d, o + j);
      }
      for (int64_t j = whole; j < s.dv; ++j) {
        row[j] = a * row[j] + ki * v[j];
        o[j] += qi * row[j];
      }
    }
    kernel::row_from_float(o, s.dv, mutable_at<T>(p.o, sequence.row, token, head));
  }
}

template <class T>
void whole_sequence(const Forward& p, int64_t index, Heads block) {
  const int64_t few_tokens = p.outputs ? 4 : 0;
  if (p.shape.sequences[index].tokens > few_tokens) return ForwardTask<T>(p).whole(index, block);
  for (int64_t head = block.begin; head < block.end; ++head) step_by_step<T>(p, index, head);
}

// Phase 2 of the split form, for a strip of state rows: checkpoint s + 1 holds the sum of segment s; adds to
// it what the state at the start of s has decayed to.
void scan(const Forward& p, int64_t index, int64_t head, int64_t strip) {
  const Shape& s = p.shape;
  const Sequence& sequence = s.sequences[index];
  const int64_t size = s.dk * s.dv, begin = strip * kStrip * s.dv,
                end = std::min(begin + kStrip * s.dv, size);
  float* state = p.checkpoints + (sequence.segment * s.heads + head) * size;
  const float* start =
      p.initial_state == nullptr ? nullptr : p.initial_state + (index * s.heads + head) * size;
  for (int64_t i = begin; i < end; ++i) state[i] = start == nullptr ? 0.0f : start[i];
  for (int64_t segment = 0; (segment + 1) * s.segment < sequence.tokens; ++segment) {
    const float total = p.segment_decays[(sequence.segment + segment) * s.heads + head];
    float* next = state + s.heads * size;
    for (int64_t i = begin; i < end; ++i) next[i] += total * state[i];
    state = next;
  }
}

void forward_task(const Forward& p, const TaskPlace& place) {
  if (place.phase == Phase::kScan) return scan(p, place.sequence, place.heads.begin, place.index);
  with_element(p.shape.dtype, [&](auto element) {
    using T = decltype(element);
    if (place.phase == Phase::kWhole) whole_sequence<T>(p, place.sequence, place.heads);
    if (place.phase == Phase::kSum) ForwardTask<T>(p).sum(place.sequence, place.heads.begin, place.index);
    if (place.phase == Phase::kSegment)
      ForwardTask<T>(p).segment(place.sequence, place.heads.begin, place.index);
  });
}

}  // namespace longreach::recurrence_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::recurrence_kernels {
HWY_EXPORT(forward_task);

void forward(const Forward& params) {
  const auto task = HWY_DYNAMIC_DISPATCH(forward_task);
  run_phases(params.shape, params.split, 1, Order::kForward,
             [&](const TaskPlace& place) { task(params, place); });
}

}  // namespace longreach::recurrence_kernels
#endif
