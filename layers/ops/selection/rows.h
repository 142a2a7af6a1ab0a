// The rule of selection, row by row: what each row of the lists may and must keep. Not a public header.
#pragma once
#include <optional>
#include <vector>

#include "layers/ops/common/packed_documents.h"
#include "layers/ops/selection/kernels.h"
#include "layers/ops/selection/selection.h"

namespace longreach::selection {

// Throws ConfigError for a rule that contradicts itself, ShapeError for geometry that does.
void check_rule(const SelectionRule& rule, const BlockGeometry& geometry);

// Shapes, dtypes and rule of select_blocks; logits need windows equal to blocks and no mass (ConfigError).
void check_select(const at::Tensor& q, const at::Tensor& k, int64_t lists, const BlockScores& how,
                  const BlockGeometry& geometry, const SelectionRule& rule);

// Documents of one batch entry, for `rows` rows in all (checked); with the windows that are scored.
std::vector<PackedDocument> documents(const BlockGeometry& geometry, int64_t rows);
std::vector<PackedDocument> documents(const BlockGeometry& geometry, const BlockScores& how, int64_t rows);

// How many blocks a row of a document of so many may keep.
int64_t row_budget(const SelectionRule& rule, int64_t blocks);

// The last and the first query position of a row within its document.
int64_t first_query(const BlockGeometry& geometry, int64_t row);
int64_t last_query(const BlockGeometry& geometry, const PackedDocument& document, int64_t row);

// How many of its document's windows a row scores: always the first ones.
int64_t seen_windows(const BlockScores& how, const BlockGeometry& geometry, const PackedDocument& document,
                     int64_t row);

// The rows of one batch entry; windows are left at 0.
std::vector<Row> rows(const std::vector<PackedDocument>& documents, const BlockGeometry& geometry,
                      const SelectionRule& rule);
Limits limits(const SelectionRule& rule);

// S of the lists where it follows from the rule; else it is the longest row's count.
std::optional<int64_t> list_size(const std::vector<PackedDocument>& documents, const BlockGeometry& geometry,
                                 const SelectionRule& rule);

// Throws DataError when a candidate's score is NaN.
void check_scores(bool nan);

// int32 [B, groups, N, S] on the CPU, S as select_blocks says; B is that of `like`. Throws DataError when a
// score was NaN.
at::Tensor list_tensor(const Lists& lists, const std::vector<PackedDocument>& documents,
                       const BlockGeometry& geometry, const SelectionRule& rule, const at::Tensor& like,
                       int64_t groups);

}  // namespace longreach::selection
