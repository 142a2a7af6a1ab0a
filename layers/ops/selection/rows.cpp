// The rule of selection, row by row.
#include "layers/ops/selection/rows.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "layers/ops/common/check.h"
#include "layers/ops/selection/windows.h"

namespace longreach::selection {
void check_rule(const SelectionRule& rule, const BlockGeometry& geometry) {
  check<ConfigError>(rule.top_k >= 0, "top_k: ", rule.top_k, ", expected 0 (no limit) or more");
  check<ConfigError>(rule.first >= 0 && rule.latest >= 0, "first, latest: ", rule.first, " and ", rule.latest,
                     ", expected 0 or more forced blocks");
  check<ConfigError>(rule.density >= 0 && rule.density <= 1, "density: ", rule.density, ", expected 0 to 1");
  check<ConfigError>(rule.density == 0 || rule.top_k == 0, "density and top_k: both given, expected one");
  check<ConfigError>(rule.top_k == 0 || rule.first + rule.latest <= rule.top_k, "top_k: ", rule.top_k,
                     ", expected at least the ", rule.first + rule.latest, " forced blocks");
  check<ConfigError>(!rule.threshold || !std::isnan(*rule.threshold), "threshold: NaN, expected a number");
  check<ConfigError>(!rule.mass || (*rule.mass > 0 && *rule.mass <= 1), "mass: ", rule.mass.value_or(0),
                     ", expected more than 0 and at most 1");
  check<ShapeError>(geometry.query_block >= 1, "query_block: ", geometry.query_block, ", expected 1 or more");
  check<ShapeError>(geometry.key_block >= 1, "key_block: ", geometry.key_block, ", expected 1 or more");
  check<ShapeError>(geometry.offset >= 0 && (geometry.offset == 0 || !geometry.cu_seqlens.defined()),
                    "offset: ", geometry.offset, ", expected 0 or more, and 0 with cu_seqlens");
}

void check_select(const at::Tensor& q, const at::Tensor& k, int64_t lists, const BlockScores& how,
                  const BlockGeometry& geometry, const SelectionRule& rule) {
  check_rule(rule, geometry);
  expect_shape(q, "q", {-1, -1, -1, -1});
  check<ShapeError>(q.size(0) == 1 || !geometry.cu_seqlens.defined(), "q: ", q.size(0),
                    " batch entries, expected 1 with cu_seqlens");
  const int64_t heads = q.size(2);
  const PoolWindows windows{how.width, how.stride, how.partial, geometry.cu_seqlens};
  expect_shape(k, "k", {q.size(0), window_count(windows, geometry.tokens), -1, q.size(3)});
  expect_dtype(k, "k", {q.scalar_type()});
  expect_same_device(k, "k", q, "q");
  check<ShapeError>(k.size(2) >= 1 && heads % k.size(2) == 0, "k: ", k.size(2),
                    " heads, expected a divisor of ", heads);
  check<ShapeError>(lists >= 1 && heads % lists == 0, "lists: ", lists, ", expected a divisor of ", heads,
                    " heads");
  check<ConfigError>(how.softmax || (how.width == geometry.key_block && how.stride == geometry.key_block),
                     "softmax: false, expected true where windows (", how.width, " tokens, stride ",
                     how.stride, ") are not the blocks of ", geometry.key_block);
  check<ConfigError>(how.softmax || !rule.mass, "mass: ", rule.mass.value_or(0),
                     ", expected none with softmax = false: logits have no share");
}

std::vector<PackedDocument> documents(const BlockGeometry& geometry, int64_t rows) {
  if (geometry.cu_seqlens.defined()) {
    check_documents(geometry.cu_seqlens);
    const auto all = packed_documents(geometry.cu_seqlens, geometry.cu_seqlens, 0, 0, geometry.query_block);
    check<ShapeError>(row_count(all) == rows, "q: ", rows, " rows, expected ", row_count(all),
                      " of the documents in cu_seqlens");
    return all;
  }
  const int64_t queries = geometry.tokens - geometry.offset;
  check<ShapeError>(queries >= 0 && ceil_div(queries, geometry.query_block) == rows, "q: ", rows, " rows of ",
                    geometry.query_block, " queries, expected those of tokens ", geometry.offset, " to ",
                    geometry.tokens);
  return {{0, queries, 0, geometry.tokens, 0, rows}};
}

std::vector<PackedDocument> documents(const BlockGeometry& geometry, const BlockScores& how, int64_t rows) {
  auto all = documents(geometry, rows);
  place_windows(all, {how.width, how.stride, how.partial, geometry.cu_seqlens});
  return all;
}

// Of the document whose first ones are `here`.
static int64_t whole_blocks(const BlockGeometry& geometry, int64_t here) {
  return geometry.whole == 0 ? here : ceil_div(geometry.whole, geometry.key_block);
}

int64_t row_budget(const SelectionRule& rule, int64_t blocks) {
  if (rule.density > 0)
    return std::max<int64_t>(
        1, static_cast<int64_t>((1.0 - std::sqrt(1.0 - rule.density)) * static_cast<double>(blocks)));
  return rule.top_k > 0 ? rule.top_k : blocks;
}

int64_t first_query(const BlockGeometry& geometry, int64_t row) {
  return geometry.offset + row * geometry.query_block;
}

int64_t last_query(const BlockGeometry& geometry, const PackedDocument& document, int64_t row) {
  return std::min(first_query(geometry, row) + geometry.query_block, document.keys) - 1;
}

int64_t seen_windows(const BlockScores& how, const BlockGeometry& geometry, const PackedDocument& document,
                     int64_t row) {
  const int64_t first = first_query(geometry, row), windows = document.windows;
  int64_t end = 0;  // windows that end no later are seen
  switch (how.visible) {
    case BlockScores::Visible::all:
      return windows;
    case BlockScores::Visible::started:
      return std::min(windows, last_query(geometry, document, row) / how.stride + 1);
    case BlockScores::Visible::complete:
      end = first + 1;
      break;
    case BlockScores::Visible::past:
      end = first / geometry.key_block * geometry.key_block;
      break;
  }
  return end < how.width ? 0 : std::min(windows, (end - how.width) / how.stride + 1);
}

std::vector<Row> rows(const std::vector<PackedDocument>& documents, const BlockGeometry& geometry,
                      const SelectionRule& rule) {
  std::vector<Row> all;
  all.reserve(static_cast<size_t>(row_count(documents)));
  for (const PackedDocument& document : documents) {
    const int64_t blocks = document.blocks(geometry.key_block),
                  budget = row_budget(rule, whole_blocks(geometry, blocks));
    for (int64_t r = 0; r < document.rows; ++r) {
      const int64_t candidates =
          rule.causal ? last_query(geometry, document, r) / geometry.key_block + 1 : blocks;
      all.push_back({candidates, rule.first, rule.latest, budget, 0});
    }
  }
  return all;
}

Limits limits(const SelectionRule& rule) {
  return {rule.threshold.has_value(), rule.mass.has_value(), rule.threshold.value_or(0),
          rule.mass.value_or(0)};
}

std::optional<int64_t> list_size(const std::vector<PackedDocument>& documents, const BlockGeometry& geometry,
                                 const SelectionRule& rule) {
  if (rule.top_k == 0 && rule.density == 0) return std::nullopt;
  return std::max(rule.first + rule.latest,
                  row_budget(rule, whole_blocks(geometry, most_blocks(documents, geometry.key_block))));
}

void check_scores(bool nan) { check<DataError>(!nan, "scores: NaN for a candidate block, expected numbers"); }

at::Tensor list_tensor(const Lists& lists, const std::vector<PackedDocument>& documents,
                       const BlockGeometry& geometry, const SelectionRule& rule, const at::Tensor& like,
                       int64_t groups) {
  check_scores(lists.nan);
  const int64_t size = list_size(documents, geometry, rule).value_or(lists.longest());
  const at::Tensor indices =
      at::empty({like.size(0), groups, row_count(documents), size}, at::TensorOptions().dtype(at::kInt));
  write_cpu(lists, size, indices.mutable_data_ptr<int32_t>());
  return indices;
}

}  // namespace longreach::selection
