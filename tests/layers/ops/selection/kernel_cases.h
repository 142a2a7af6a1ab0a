// Small launches of selection for the mutation gate and counts of traffic, against plain float64 formulas: no
// torch.
#pragma once
#include <algorithm>
#include <limits>
#include <numeric>

#include "layers/ops/document.h"
#include "layers/ops/selection/cuda/plan.h"
#include "tests/layers/ops/cuda/kernel_cases.h"

namespace longreach::test {

inline std::string selection_file_of(const std::string& kernel) {
  if (kernel.starts_with("attention_rows")) return "attention_rows";
  if (kernel.starts_with("interval_attention_rows")) return "interval_attention_rows";
  if (kernel.starts_with("selection_select_")) return kernel.substr(0, kernel.rfind('_'));
  return kernel.starts_with("selection_pool") ? "selection_pool" : "selection_choose";
}

struct SelectionProblem {
  int64_t tokens = 200, heads = 4, key_heads = 1, lists = 1, size = 64;
  int64_t query_block = 1, key_block = 16, width = 8, stride = 4;
  bool softmax = true;
  selection::VoteKind vote = selection::VoteKind::sum;
  selection::CudaVisible visible = selection::CudaVisible::complete;
  int64_t top_k = 4, first = 1, latest = 1;  // top_k 0: no limit
  double mass = 0;                           // 0: none
  double threshold = -1;                     // below 0: none
  DType dtype = DType::kBFloat16;
  uint64_t schedule = 0;

  int64_t rows() const { return ceil_div(tokens, query_block); }
  int64_t blocks() const { return ceil_div(tokens, key_block); }
  bool partial() const { return width == stride; }
  int64_t windows() const {
    if (partial()) return ceil_div(tokens, stride);
    return tokens < width ? 0 : (tokens - width) / stride + 1;
  }
  int64_t candidates(int64_t row) const {
    return (std::min((row + 1) * query_block, tokens) - 1) / key_block + 1;
  }
  bool sees(int64_t row, int64_t window) const {
    const int64_t query = row * query_block, last = std::min(query + query_block, tokens) - 1;
    return visible == selection::CudaVisible::complete ? window * stride + width - 1 <= query
                                                       : window * stride <= last;
  }
};

// The kept blocks of one row of scores, ascending: a stable sort and the rules in turn.
inline std::vector<int32_t> choose_by_sorting(const SelectionProblem& c, int64_t candidates,
                                              const double* scores) {
  const int64_t begin = std::min(c.first, candidates),
                end = candidates - std::min(c.latest, candidates - begin),
                budget = c.top_k > 0 ? c.top_k : candidates;
  std::vector<int32_t> order(static_cast<size_t>(end - begin)), kept;
  std::iota(order.begin(), order.end(), static_cast<int32_t>(begin));
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  double reached = 0;
  for (int64_t block = 0; block < candidates; ++block)
    if (block < begin || block >= end) {
      kept.push_back(static_cast<int32_t>(block));
      reached += scores[block];
    }
  const double wanted = c.mass * std::accumulate(scores, scores + candidates, 0.0);
  int64_t spare = std::max<int64_t>(budget - static_cast<int64_t>(kept.size()), 0);
  for (const int32_t block : order) {
    if (spare-- == 0 || (c.mass > 0 && !(reached < wanted && scores[block] > 0))) break;
    reached += scores[block];
    if (c.threshold < 0 || scores[block] > c.threshold) kept.push_back(block);
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

inline selection::RuleParams rule_params(const SelectionProblem& c) {
  selection::RuleParams p{.rows = c.rows(),
                          .blocks = c.blocks(),
                          .query_block = c.query_block,
                          .key_block = c.key_block,
                          .first = c.first,
                          .latest = c.latest};
  p.documents = {{.keys = c.tokens, .rows = c.rows(), .windows = c.windows()}};
  p.budgets = {c.top_k > 0 ? c.top_k : c.blocks()};
  p.limits = {c.threshold >= 0, c.mass > 0, c.threshold, c.mass};
  p.size = c.top_k > 0 ? c.top_k : c.blocks();
  return p;
}

// Any entry that differs is an error of 1.
inline void compare_lists(Outcome& outcome, const ptx::Memory& memory, const int32_t* indices,
                          const std::vector<int32_t>& exact) {
  try {
    if (memory.download(indices, exact.size()) != exact) outcome.error = std::max(outcome.error, 1.0);
  } catch (const DataError& error) {
    outcome.errors.push_back(error.what());
  }
}

template <class Plan>
void launch_selection(Outcome& outcome, const Kernels& kernels, ptx::Memory& memory, uint64_t schedule,
                      Plan plan) {
  const auto sizes = plan(nullptr);
  auto* space = static_cast<std::byte*>(memory.allocate("workspace", sizes.workspace_bytes));
  std::copy(sizes.upload.begin(), sizes.upload.end(), space);
  memory.mark_written(space, sizes.upload.size());
  for (const cuda::Launch& launch : plan(space).launches)
    outcome.add(
        ptx::run(kernels.module_of(launch.kernel), launch, memory, {.schedule = schedule, .profile = true}));
}

// Lists from given scores with many ties.
class ChooseLaunch {
 public:
  explicit ChooseLaunch(const SelectionProblem& c) : c_(c) {
    std::mt19937 random(5);
    for (int64_t list = 0; list < c.lists; ++list)
      for (int64_t row = 0; row < c.rows(); ++row) {
        std::vector<double> scores;
        for (int64_t block = 0; block < c.blocks(); ++block) {
          scores.push_back(static_cast<double>(random() % 16) / 16);
          scores_.push_back(static_cast<float>(scores.back()));
        }
        auto kept = choose_by_sorting(c, c.candidates(row), scores.data());
        kept.resize(static_cast<size_t>(rule_params(c).size), -1);
        lists_.insert(lists_.end(), kept.begin(), kept.end());
      }
  }

  Outcome run(const Kernels& kernels) const {
    Outcome outcome;
    ptx::Memory memory;
    selection::ChooseParams p{.rule = rule_params(c_), .lists = c_.lists};
    p.scores = memory.upload("scores", scores_);
    p.rule.indices = memory.allocate_array<int32_t>("indices", lists_.size());
    p.rule.status = memory.upload("status", std::vector<int32_t>{0, 0});
    launch_selection(outcome, kernels, memory, c_.schedule,
                     [&](void* space) { return selection::plan_choose(p, space); });
    compare_lists(outcome, memory, p.rule.indices, lists_);
    return outcome;
  }

 private:
  SelectionProblem c_;
  std::vector<float> scores_;
  std::vector<int32_t> lists_;
};

// Lists and scores from queries and pooled keys.
class SelectLaunch {
 public:
  explicit SelectLaunch(const SelectionProblem& c)
      : c_(c), q_(c.rows(), c.heads, c.size, 1, c.dtype), k_(c.windows(), c.key_heads, c.size, 2, c.dtype) {
    for (int64_t list = 0; list < c.lists; ++list)
      for (int64_t row = 0; row < c.rows(); ++row) solve(list, row);
  }

  Outcome run(const Kernels& kernels) const {
    Outcome outcome;
    ptx::Memory memory;
    const auto rows = [](void* data, const Rows& like) {
      return Strided{data, like.tokens * like.heads * like.size, like.heads * like.size, like.size};
    };
    selection::SelectParams p{.rule = rule_params(c_), .dtype = c_.dtype, .batches = 1};
    p.key_count = c_.windows(), p.heads = c_.heads, p.key_heads = c_.key_heads, p.lists = c_.lists;
    p.size = c_.size, p.width = c_.width, p.stride = c_.stride, p.softmax = c_.softmax, p.vote = c_.vote;
    p.visible = c_.visible, p.scale = kScale;
    p.q = rows(memory.upload("q", q_.bytes), q_), p.k = rows(memory.upload("k", k_.bytes), k_);
    p.scores = memory.allocate_array<float>("scores", scores_.size());
    p.rule.indices = memory.allocate_array<int32_t>("indices", lists_.size());
    p.rule.status = memory.upload("status", std::vector<int32_t>{0, 0});
    launch_selection(outcome, kernels, memory, c_.schedule,
                     [&](void* space) { return selection::plan_select(p, space); });
    compare_lists(outcome, memory, p.rule.indices, lists_);
    compare(
        outcome,
        [&] {
          std::vector<float> found = memory.download(p.scores, scores_.size());
          for (float& x : found) x = x == -std::numeric_limits<float>::infinity() ? 0.0f : x;
          return found;
        },
        scores_);
    return outcome;
  }

 private:
  static constexpr float kScale = 0.25f;

  std::vector<double> weights_of(int64_t head, int64_t row) const {
    std::vector<double> weights;
    double sum = 0;
    for (int64_t window = 0; window < c_.windows(); ++window) {
      const double logit = c_.sees(row, window)
                               ? kScale * dot(q_, row, head, k_, window, head * c_.key_heads / c_.heads)
                               : -std::numeric_limits<double>::infinity();
      weights.push_back(c_.softmax ? std::exp(logit) : logit);
      sum += weights.back();
    }
    if (c_.softmax)
      for (double& weight : weights) weight = sum > 0 ? weight / sum : 0;
    return weights;
  }

  void solve(int64_t list, int64_t row) {
    const int64_t group = c_.heads / c_.lists;
    std::vector<double> votes = weights_of(list * group, row);
    for (int64_t head = 1; head < group; ++head) {
      const std::vector<double> more = weights_of(list * group + head, row);
      for (size_t i = 0; i < votes.size(); ++i)
        votes[i] = c_.vote == selection::VoteKind::max ? std::max(votes[i], more[i]) : votes[i] + more[i];
    }
    if (c_.vote == selection::VoteKind::mean)
      for (double& x : votes) x /= static_cast<double>(group);
    std::vector<double> scores(static_cast<size_t>(c_.blocks()));
    for (int64_t block = 0; block < c_.blocks(); ++block)
      for (int64_t window = 0; window < c_.windows(); ++window) {
        const int64_t overlap = std::min(window * c_.stride + c_.width, (block + 1) * c_.key_block) -
                                std::max(window * c_.stride, block * c_.key_block);
        if (overlap > 0)
          scores[static_cast<size_t>(block)] += static_cast<double>(overlap) /
                                                static_cast<double>(c_.stride) *
                                                votes[static_cast<size_t>(window)];
      }
    const int64_t candidates = c_.candidates(row);
    auto kept = choose_by_sorting(c_, candidates, scores.data());
    kept.resize(static_cast<size_t>(rule_params(c_).size), -1);
    lists_.insert(lists_.end(), kept.begin(), kept.end());
    for (int64_t block = 0; block < c_.blocks(); ++block) {
      const double score = scores[static_cast<size_t>(block)];
      scores_.push_back(block < candidates && std::isfinite(score) ? score : 0);
    }
  }

  SelectionProblem c_;
  Rows q_, k_;
  std::vector<double> scores_;
  std::vector<int32_t> lists_;
};

// All three pools of windows, and their gradient.
class PoolLaunch {
 public:
  PoolLaunch(int64_t tokens, int64_t heads, int64_t size, int64_t width, int64_t stride,
             DType dtype = DType::kBFloat16)
      : width_(width),
        stride_(stride),
        document_{.keys = tokens, .windows = tokens < width ? 0 : (tokens - width) / stride + 1},
        x_(tokens, heads, size, 1, dtype),
        grad_(document_.windows, heads, kPools * size, 2, dtype),
        pooled_(grad_),
        dx_(x_),
        picked_(static_cast<size_t>(document_.windows * heads * 2 * size)) {
    std::fill(dx_.values.begin(), dx_.values.end(), 0.0);
    for (int64_t window = 0; window < document_.windows; ++window)
      for (int64_t head = 0; head < heads; ++head)
        for (int64_t c = 0; c < size; ++c) solve(window, head, c);
  }

  Outcome run(const Kernels& kernels) const {
    Outcome outcome;
    ptx::Memory memory;
    selection::Pooling p{.dtype = x_.dtype, .batches = 1, .heads = x_.heads, .size = x_.size};
    p.width = width_, p.stride = stride_, p.documents = &document_, p.document_count = 1;
    p.tokens = x_.tokens, p.windows = document_.windows;
    const selection::PoolKind pools[] = {selection::PoolKind::max, selection::PoolKind::min,
                                         selection::PoolKind::mean};
    p.pools = pools, p.pool_count = kPools, p.picking = 2;
    const auto rows = [](void* data, const Rows& like) {
      return Strided{data, like.tokens * like.heads * like.size, like.heads * like.size, like.size};
    };
    p.x = rows(memory.upload("x", x_.bytes), x_);
    p.pooled = rows(memory.allocate("pooled", grad_.bytes.size()), grad_);
    p.picked = memory.allocate_array<int32_t>("picked", picked_.size());
    launch_selection(outcome, kernels, memory, 0,
                     [&](void* space) { return selection::plan_pool(p, space); });
    compare(outcome, memory, p.pooled.data, x_.dtype, pooled_.values);
    compare_lists(outcome, memory, p.picked, picked_);
    p.picked = memory.upload("exact places", picked_);
    p.pooled = rows(memory.upload("grad", grad_.bytes), grad_);
    p.x = rows(memory.allocate("dx", x_.bytes.size()), x_);
    launch_selection(outcome, kernels, memory, 0,
                     [&](void* space) { return selection::plan_pool_backward(p, space); });
    compare(outcome, memory, p.x.data, x_.dtype, dx_.values);
    return outcome;
  }

 private:
  static constexpr int64_t kPools = 3;

  void solve(int64_t window, int64_t head, int64_t c) {
    const int64_t first = window * stride_, size = x_.size;
    int64_t most = 0, least = 0;
    double sum = 0;
    for (int64_t t = 0; t < width_; ++t) {
      const double x = x_(first + t, head, c);
      if (x > x_(first + most, head, c)) most = t;
      if (x < x_(first + least, head, c)) least = t;
      sum += x;
    }
    double* pooled = pooled_.row(window, head) + c;
    const auto count = static_cast<double>(width_);
    pooled[0] = x_(first + most, head, c), pooled[size] = x_(first + least, head, c);
    pooled[2 * size] = sum / count;
    int32_t* picked = picked_.data() + (window * x_.heads + head) * 2 * size + c;
    picked[0] = static_cast<int32_t>(most), picked[size] = static_cast<int32_t>(least);
    dx_.row(first + most, head)[c] += grad_(window, head, c);
    dx_.row(first + least, head)[c] += grad_(window, head, size + c);
    for (int64_t t = 0; t < width_; ++t)
      dx_.row(first + t, head)[c] += grad_(window, head, 2 * size + c) / count;
  }

  int64_t width_, stride_;
  PackedDocument document_;
  Rows x_, grad_;
  Exact pooled_, dx_;
  std::vector<int32_t> picked_;
};

}  // namespace longreach::test
