// The rule of selection, row by row: what each row of the lists may and must keep. Not a public header.
#pragma once
#include <vector>

#include "layers/ops/document_rows.h"
#include "layers/ops/selection/kernels.h"
#include "layers/ops/selection/selection.h"

namespace longreach::selection {

// Throws ConfigError for a rule that contradicts itself, ShapeError for geometry that does.
void check_rule(const SelectionRule& rule, const BlockGeometry& geometry);

// Shapes and dtypes of select_blocks; logits need windows equal to blocks (ConfigError).
void check_scores(const at::Tensor& q, const at::Tensor& k, int64_t lists, const BlockScores& how,
                  const BlockGeometry& geometry);

// Documents of one batch entry, for `rows` rows in all (checked).
std::vector<DocumentRows> documents(const BlockGeometry& geometry, int64_t rows);

// Blocks of the longest document.
int64_t most_blocks(const std::vector<DocumentRows>& documents, int64_t key_block);

// The last and the first query position of a row within its document.
int64_t first_query(const BlockGeometry& geometry, int64_t row);
int64_t last_query(const BlockGeometry& geometry, const DocumentRows& document, int64_t row);

std::vector<Row> rows(const std::vector<DocumentRows>& documents, const BlockGeometry& geometry,
                      const SelectionRule& rule);

// S: what the rule allows in the longest document, or 0 when only the choice itself tells.
int64_t list_size(const std::vector<DocumentRows>& documents, const BlockGeometry& geometry,
                  const SelectionRule& rule);

}  // namespace longreach::selection
