// Backward pass of the recurrence on CPUs, chunks from last to first. With A = (scale Q K^T) .* M and P = dO
// V^T .* M:
//
//   dQ = scale [P K + diag(before) dO S^T]                     S: state at the start of the chunk
//   dK = P^T (scale Q) + diag(after) V dS^T                    dS: gradient of the state at its end
//   dV = A^T dO + diag(after) K dS
//   dS <- total dS + (scale Q)^T diag(before) dO
//
// d(log decay) of token t is the sum of everything that crosses t: pairs j < t <= r of A .* dO V^T; the rows
// r >= t of the state part of q . dq; the rows j < t of the state part of k . dk; and total <S, dS>. Each
// term carries the decay of t itself, and nothing is subtracted: the shorter identity (a suffix sum of q.dq -
// k.dk) loses every digit when the decay is strong.
//
// S is rebuilt within a segment from the state kept at its start. Work split as in the forward pass, with the
// heads that share a key or value head in one task, in order, so that dk and dv need no atomics; in the split
// form the gradients of the states at segment ends come from a reverse scan. Traffic: q, k, v, dO read once
// (k, v twice).
#include <cstring>
#include <numeric>

#include "layers/ops/recurrence/cpu/schedule.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/recurrence/cpu/backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/recurrence/cpu/chunk-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::recurrence_kernels::HWY_NAMESPACE {

// d(log decay) of the m tokens of a chunk. weights [m, m] lower triangular: A .* dO V^T; query[r], key[j]:
// the state parts of q . dq and k . dk; border: total <S, dS>. `column` is scratch of a chunk.
HWY_INLINE void decay_gradient(const float* weights, int64_t chunk, const float* query, const float* key,
                               double border, int64_t m, float* column, double* out) {
  const FloatTag d;
  std::memset(column, 0, static_cast<size_t>(pad(m)) * sizeof(float));
  double later = 0;
  for (int64_t t = m - 1; t >= 0; --t) {  // column[j] = sum of weights[r, j] over r >= t
    auto crossing = hn::Zero(d);
    const auto limit = hn::Set(d, static_cast<float>(t));
    for (int64_t j = 0; j <= t; j += kLanes) {
      const auto sum = hn::Add(hn::LoadU(d, column + j), hn::LoadU(d, weights + t * chunk + j));
      hn::StoreU(sum, d, column + j);
      crossing =
          hn::Add(crossing, hn::IfThenElseZero(hn::Lt(hn::Iota(d, static_cast<float>(j)), limit), sum));
    }
    later += query[t];
    out[t] = hn::GetLane(hn::SumOfLanes(d, crossing)) + later + border;
  }
  double earlier = 0;
  for (int64_t t = 0; t < m; ++t) {
    out[t] += earlier;
    earlier += key[t];
  }
}

template <class T>
class BackwardTask {
 public:
  explicit BackwardTask(const Backward& params)
      : p_(params),
        s_(params.shape),
        dk_(pad(s_.dk)),
        dv_(pad(s_.dv)),
        key_group_(s_.heads / s_.key_heads),
        value_group_(s_.heads / s_.value_heads),
        wants_decay_(params.d_log_decay != nullptr || params.d_head_decay != nullptr) {
    static thread_local simd::Scratch<float> scratch;
    Arena count(nullptr);
    carve(count);
    Arena arena(scratch.get(count.used()));
    carve(arena);
  }

  // All segments of a sequence, from the last; the heads of a block take turns at each. The gradients of the
  // states lie in grad_initial_state between segments.
  void whole(int64_t sequence, Heads block) {
    sequence_ = s_.sequences + sequence;
    const int64_t size = s_.dk * s_.dv, first = (sequence * s_.heads + block.begin) * size;
    float* carried = p_.grad_initial_state + first;
    const size_t bytes = static_cast<size_t>((block.end - block.begin) * size) * sizeof(float);
    if (p_.grad_final_state == nullptr)
      std::memset(carried, 0, bytes);
    else
      std::memcpy(carried, p_.grad_final_state + first, bytes);
    for (int64_t index = segment_count(s_, *sequence_) - 1; index >= 0; --index) {
      for (int64_t head = block.begin; head < block.end; ++head) {
        float* state = carried + (head - block.begin) * size;
        run(index, head, state, state);
      }
    }
  }

  // Phase 1 of the split form: what a segment adds to the gradient of the state at its start, kept at the end
  // of the segment before it.
  void sum(int64_t sequence, int64_t head, int64_t index) {
    sequence_ = s_.sequences + sequence;
    begin_head(head);
    std::memset(grad_state_, 0, static_cast<size_t>(dk_ * dv_) * sizeof(float));
    const float total = pass(index);
    const int64_t number = sequence_->segment + index;
    store_tile(grad_state_, dv_, s_.dk, s_.dv,
               p_.segment_grads + ((number - 1) * s_.heads + head) * s_.dk * s_.dv, s_.dv);
    p_.segment_decays[number * s_.heads + head] = total;
  }

  // Phase 3: gradients of a segment from that of the state at its end; without inputs, of the first state.
  void segment(int64_t sequence, Heads group, int64_t index) {
    if (index > 0 && !p_.inputs) return;
    sequence_ = s_.sequences + sequence;
    const int64_t size = s_.dk * s_.dv;
    for (int64_t head = group.begin; head < group.end; ++head) {
      float* to = index == 0 ? p_.grad_initial_state + (sequence * s_.heads + head) * size : nullptr;
      run(index, head, p_.segment_grads + ((sequence_->segment + index) * s_.heads + head) * size, to);
    }
  }

 private:
  void carve(Arena& arena) {
    const int64_t chunk = s_.chunk, keys = chunk * dk_, values = chunk * dv_;
    q_ = arena.take(keys), k_ = arena.take(keys), transposed_ = arena.take(std::max(dk_, dv_) * chunk);
    v_ = arena.take(values), grad_o_ = arena.take(values), decayed_ = arena.take(std::max(keys, values));
    grad_qk_ = arena.take(keys), grad_v_ = arena.take(values);
    scores_ = arena.take(chunk * chunk), grad_scores_ = arena.take(chunk * chunk);
    if (wants_decay_) weights_ = arena.take(chunk * chunk);
    query_ = arena.take(chunk), key_ = arena.take(chunk), column_ = arena.take(chunk);
    grad_state_ = arena.take(dk_ * dv_), grad_state_t_ = arena.take(dk_ * dv_);
    states_t_ = arena.take(s_.segment / chunk * dk_ * dv_);
    if (key_group_ > 1) sum_k_ = arena.take(s_.segment * dk_);
    if (value_group_ > 1) sum_v_ = arena.take(s_.segment * dv_);
    decays_.carve(arena, s_);
  }

  int64_t chunks(int64_t index) const {
    const int64_t tokens = std::min(s_.segment, sequence_->tokens - index * s_.segment);
    return (tokens + s_.chunk - 1) / s_.chunk;
  }

  void begin_head(int64_t head) {
    head_ = head;
    decays_.begin_head(s_, head);
  }

  void load_keys(int64_t token, int64_t m) {
    const int64_t row = sequence_->row, first = sequence_->first + token;
    kernel::pad_tile(at<T>(p_.k, row, first, head_ / key_group_), p_.k.token, m, s_.dk, k_, dk_, pad(m), dk_);
    kernel::pad_tile(at<T>(p_.v, row, first, head_ / value_group_), p_.v.token, m, s_.dv, v_, dv_, pad(m),
                     dv_);
  }
  void load_queries(int64_t token, int64_t m) {
    const int64_t row = sequence_->row, first = sequence_->first + token;
    kernel::pad_tile(at<T>(p_.q, row, first, head_), p_.q.token, m, s_.dk, q_, dk_, pad(m), dk_);
    scale_row(q_, s_.scale, m * dk_, q_);
    kernel::pad_tile(at<T>(p_.grad_o, row, first, head_), p_.grad_o.token, m, s_.dv, grad_o_, dv_, pad(m),
                     dv_);
  }

  // diag(before) dO
  void decayed_grads(const ChunkDecay& decay, int64_t m) {
    scale_rows(grad_o_, decay.before, m, dv_, decayed_);
  }

  // dS <- total dS + (scale Q)^T diag(before) dO
  void advance(const ChunkDecay& decay, int64_t m) {
    scale_row(grad_state_, decay.total, dk_ * dv_, grad_state_);
    kernel::gemm(s_.dk, dv_, m, {q_, 1, dk_}, decayed_, dv_, grad_state_, dv_, true);
  }

  // A segment, the gradient of its state alone; returns what that at its end has decayed to.
  float pass(int64_t index) {
    float total = 1;
    for (int64_t c = chunks(index) - 1; c >= 0; --c) {
      const int64_t token = index * s_.segment + c * s_.chunk,
                    m = std::min(s_.chunk, sequence_->tokens - token);
      const ChunkDecay decay = decays_.chunk(sequence_->row, sequence_->first + token, m, false);
      load_queries(token, m);
      decayed_grads(decay, m);
      advance(decay, m);
      total *= decay.total;
    }
    return total;
  }

  void run(int64_t index, int64_t head, const float* grad_end, float* grad_start) {
    if (p_.inputs) return segment_of_head(index, head, grad_end, grad_start);
    begin_head(head);
    kernel::pad_tile(grad_end, s_.dv, s_.dk, s_.dv, grad_state_, dv_, dk_, dv_);
    pass(index);
    store_tile(grad_state_, dv_, s_.dk, s_.dv, grad_start, s_.dv);
  }

  // The transposed states at the starts of the chunks of a segment.
  void rebuild_states(int64_t index) {
    const float* start = p_.checkpoints + ((sequence_->segment + index) * s_.heads + head_) * s_.dk * s_.dv;
    const int64_t count = chunks(index);
    std::memset(states_t_, 0, static_cast<size_t>(dk_ * dv_) * sizeof(float));
    kernel::transpose(start, s_.dv, s_.dk, s_.dv, states_t_, dk_);
    for (int64_t c = 0; c + 1 < count; ++c) {
      const int64_t token = index * s_.segment + c * s_.chunk;
      load_keys(token, s_.chunk);
      const int64_t then = sequence_->first + token + s_.chunk;
      next_.clear();
      if (c + 2 < count) {
        next_.add(at<T>(p_.k, sequence_->row, then, head_ / key_group_), p_.k.token, s_.chunk, s_.dk);
        next_.add(at<T>(p_.v, sequence_->row, then, head_ / value_group_), p_.v.token, s_.chunk, s_.dv);
      }
      next_.rows(s_.chunk);
      const ChunkDecay decay = decays_.chunk(sequence_->row, sequence_->first + token, s_.chunk, false);
      scale_rows(k_, decay.after, s_.chunk, dk_, k_);
      float *state = states_t_ + c * dk_ * dv_, *next = state + dk_ * dv_;
      scale_row(state, decay.total, dk_ * dv_, next);
      next_.rows(s_.chunk);
      kernel::gemm(s_.dv, dk_, s_.chunk, {v_, 1, dv_}, k_, dk_, next, dk_, true);
    }
  }

  // Foresees this chunk's gradient rows and the rows of the chunk before it.
  void expect(int64_t index, int64_t c, int64_t token, int64_t m) {
    const int64_t row = sequence_->row, here = sequence_->first + token, then = here - s_.chunk;
    const int64_t key_head = head_ / key_group_, value_head = head_ / value_group_;
    next_.clear();
    next_.add(at<T>(p_.dq, row, here, head_), p_.dq.token, m, s_.dk);
    next_.add(at<T>(p_.dk, row, here, key_head), p_.dk.token, m, s_.dk);
    next_.add(at<T>(p_.dv, row, here, value_head), p_.dv.token, m, s_.dv);
    if (index == 0 && c == 0) return;
    next_.add(at<T>(p_.k, row, then, key_head), p_.k.token, s_.chunk, s_.dk);
    next_.add(at<T>(p_.v, row, then, value_head), p_.v.token, s_.chunk, s_.dv);
    next_.add(at<T>(p_.q, row, then, head_), p_.q.token, s_.chunk, s_.dk);
    next_.add(at<T>(p_.grad_o, row, then, head_), p_.grad_o.token, s_.chunk, s_.dv);
  }

  void segment_of_head(int64_t index, int64_t head, const float* grad_end, float* grad_start) {
    begin_head(head);
    rebuild_states(index);
    kernel::pad_tile(grad_end, s_.dv, s_.dk, s_.dv, grad_state_, dv_, dk_, dv_);
    double d_decay = 0;
    for (int64_t c = chunks(index) - 1; c >= 0; --c) {
      const int64_t token = index * s_.segment + c * s_.chunk,
                    m = std::min(s_.chunk, sequence_->tokens - token);
      const ChunkDecay decay = decays_.chunk(sequence_->row, sequence_->first + token, m, true);
      load_keys(token, m);
      load_queries(token, m);
      expect(index, c, token, m);
      const float* state_t = states_t_ + c * dk_ * dv_;
      chunk_scores(decay, m);
      chunk_queries(decay, state_t, token, m);
      chunk_keys(decay, c, token, m);
      chunk_values(decay, c, token, m);
      if (wants_decay_) d_decay += chunk_decays(decay, state_t, token, m);
      advance(decay, m);
    }
    if (grad_start != nullptr) store_tile(grad_state_, dv_, s_.dk, s_.dv, grad_start, s_.dv);
    if (p_.d_head_decay != nullptr) p_.d_head_decay[(sequence_->segment + index) * s_.heads + head] = d_decay;
  }

  // A and P, and A .* dO V^T where the decays want a gradient.
  void chunk_scores(const ChunkDecay& decay, int64_t m) {
    const int64_t rows = pad(m), chunk = s_.chunk;
    kernel::transpose(k_, dk_, rows, s_.dk, transposed_, chunk);
    lower_scores(q_, dk_, transposed_, s_.dk, rows, chunk, scores_, next_, kAhead);
    multiply_lower(decay.pair, rows, chunk, scores_);
    kernel::transpose(v_, dv_, rows, s_.dv, transposed_, chunk);
    lower_scores(grad_o_, dv_, transposed_, s_.dv, rows, chunk, grad_scores_, next_, kAhead);
    if (wants_decay_) {
      for (int64_t s = 0; s < rows; s += kStrip)
        for (int64_t r = s; r < s + kStrip; ++r) {
          std::memcpy(weights_ + r * chunk, scores_ + r * chunk,
                      static_cast<size_t>(s + kStrip) * sizeof(float));
          multiply_row(grad_scores_ + r * chunk, s + kStrip, weights_ + r * chunk);
        }
    }
    multiply_lower(decay.pair, rows, chunk, grad_scores_);
  }

  void chunk_queries(const ChunkDecay& decay, const float* state_t, int64_t token, int64_t m) {
    decayed_grads(decay, m);
    kernel::gemm(m, dk_, s_.dv, {decayed_, dv_, 1}, state_t, dk_, grad_qk_, dk_, false);
    if (wants_decay_)
      for (int64_t r = 0; r < m; ++r) query_[r] = dot_row(q_ + r * dk_, grad_qk_ + r * dk_, dk_);
    lower_times(grad_scores_, s_.chunk, k_, dk_, pad(m), grad_qk_, true, next_, kAhead);
    scale_row(grad_qk_, s_.scale, m * dk_, grad_qk_);
    store_tile(grad_qk_, dk_, m, s_.dk, mutable_at<T>(p_.dq, sequence_->row, sequence_->first + token, head_),
               p_.dq.token);
  }

  void chunk_keys(const ChunkDecay& decay, int64_t c, int64_t token, int64_t m) {
    kernel::transpose(grad_state_, dv_, dk_, s_.dv, grad_state_t_, dk_);
    kernel::gemm(m, dk_, s_.dv, {v_, dv_, 1}, grad_state_t_, dk_, grad_qk_, dk_, false);
    scale_rows(grad_qk_, decay.after, m, dk_, grad_qk_);
    if (wants_decay_)
      for (int64_t j = 0; j < m; ++j) key_[j] = dot_row(k_ + j * dk_, grad_qk_ + j * dk_, dk_);
    add_lower_transposed_times(grad_scores_, s_.chunk, q_, dk_, pad(m), grad_qk_, next_, kAhead);
    add_shared(grad_qk_, dk_, s_.dk, m, key_group_, sum_k_ + c * s_.chunk * dk_,
               mutable_at<T>(p_.dk, sequence_->row, sequence_->first + token, head_ / key_group_),
               p_.dk.token);
  }

  void chunk_values(const ChunkDecay& decay, int64_t c, int64_t token, int64_t m) {
    kernel::gemm(m, dv_, s_.dk, {k_, dk_, 1}, grad_state_, dv_, grad_v_, dv_, false);
    scale_rows(grad_v_, decay.after, m, dv_, grad_v_);
    add_lower_transposed_times(scores_, s_.chunk, grad_o_, dv_, pad(m), grad_v_, next_, kAhead);
    add_shared(grad_v_, dv_, s_.dv, m, value_group_, sum_v_ + c * s_.chunk * dv_,
               mutable_at<T>(p_.dv, sequence_->row, sequence_->first + token, head_ / value_group_),
               p_.dv.token);
  }

  // Sums a gradient over the heads that share it, in fp32 and in order; the last head writes it.
  void add_shared(const float* tile, int64_t width, int64_t columns, int64_t m, int64_t heads, float* sum,
                  T* to, int64_t stride) {
    const int64_t turn = head_ % heads;
    if (heads > 1) {
      if (turn == 0)
        std::memcpy(sum, tile, static_cast<size_t>(m * width) * sizeof(float));
      else
        add_row(tile, m * width, sum);
      tile = sum;
    }
    if (turn == heads - 1) store_tile(tile, width, m, columns, to, stride);
  }

  // Writes (a token) or returns the sum of (constant) the gradients of the log decays.
  double chunk_decays(const ChunkDecay& decay, const float* state_t, int64_t token, int64_t m) {
    // Rows in fp32, their sum in float64: the state is large, and its terms have either sign.
    double border = 0;
    for (int64_t i = 0; i < s_.dv; ++i) border += dot_row(state_t + i * dk_, grad_state_t_ + i * dk_, dk_);
    border *= decay.total;
    decay_gradient(weights_, s_.chunk, query_, key_, border, m, column_, d_decay_);
    if (p_.d_log_decay != nullptr) {
      float* to =
          p_.d_log_decay + sequence_->row * p_.d_decay_row + (sequence_->first + token) * s_.heads + head_;
      for (int64_t t = 0; t < m; ++t) to[t * s_.heads] = static_cast<float>(d_decay_[t]);
    }
    double sum = 0;
    for (int64_t t = 0; t < m; ++t) sum += d_decay_[t];
    return sum;
  }

  const Backward& p_;
  const Shape& s_;
  const int64_t dk_, dv_;                  // padded
  const int64_t key_group_, value_group_;  // heads that share a key or value head
  const bool wants_decay_;
  const Sequence* sequence_ = nullptr;
  int64_t head_ = 0;
  float *q_, *k_, *transposed_, *v_, *grad_o_, *decayed_, *grad_qk_, *grad_v_, *scores_, *grad_scores_,
      *weights_ = nullptr;
  float *query_, *key_, *column_, *grad_state_, *grad_state_t_, *states_t_, *sum_k_ = nullptr,
                                                                            *sum_v_ = nullptr;
  double d_decay_[kLongestChunk];
  DecayTable decays_;
  Prefetch next_;
  static constexpr int64_t kAhead = 24;  // seven tiles over the strips of five triangular products
};

// Phase 2 of the split form, for a strip of state rows: segment_grads of segment s holds what segment s + 1
// adds; adds to it what the gradient at the end of s + 1 has decayed to.
void scan(const Backward& p, int64_t index, int64_t head, int64_t strip) {
  const Shape& s = p.shape;
  const Sequence& sequence = s.sequences[index];
  const int64_t size = s.dk * s.dv, begin = strip * kStrip * s.dv,
                end = std::min(begin + kStrip * s.dv, size);
  const int64_t last = sequence.segment + segment_count(s, sequence) - 1;
  float* grad = p.segment_grads + (last * s.heads + head) * size;
  const float* from =
      p.grad_final_state == nullptr ? nullptr : p.grad_final_state + (index * s.heads + head) * size;
  for (int64_t i = begin; i < end; ++i) grad[i] = from == nullptr ? 0.0f : from[i];
  for (int64_t segment = last; segment > sequence.segment; --segment) {
    const float total = p.segment_decays[segment * s.heads + head];
    float* before = grad - s.heads * size;
    for (int64_t i = begin; i < end; ++i) before[i] += total * grad[i];
    grad = before;
  }
}

void backward_task(const Backward& p, const TaskPlace& place) {
  if (place.phase == Phase::kScan) return scan(p, place.sequence, place.heads.begin, place.index);
  with_element(p.shape.dtype, [&](auto element) {
    using T = decltype(element);
    if (place.phase == Phase::kWhole) BackwardTask<T>(p).whole(place.sequence, place.heads);
    if (place.phase == Phase::kSum) BackwardTask<T>(p).sum(place.sequence, place.heads.begin, place.index);
    if (place.phase == Phase::kSegment) BackwardTask<T>(p).segment(place.sequence, place.heads, place.index);
  });
}

}  // namespace longreach::recurrence_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::recurrence_kernels {
HWY_EXPORT(backward_task);

int64_t group_heads(const Shape& shape) {
  return std::lcm(shape.heads / shape.key_heads, shape.heads / shape.value_heads);
}

void backward(const Backward& params) {
  const auto task = HWY_DYNAMIC_DISPATCH(backward_task);
  run_phases(params.shape, params.split, group_heads(params.shape), Order::kBackward,
             [&](const TaskPlace& place) { task(params, place); });
}

}  // namespace longreach::recurrence_kernels
#endif
