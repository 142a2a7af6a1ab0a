// One row of the matrix mechanism x what a model must do, through the program itself: a mechanism alone or
// beside dense attention trains on real text, stops and resumes, is evaluated, generates, is saved and
// loaded, runs in bfloat16, with packed documents, under activation checkpointing, and on two ranks that
// share its rows. What a config says it cannot do (layers/attention/limitation.h) is expected to be refused
// with its reason instead.
#pragma once
#include "layers/attention/mechanisms.h"

namespace longreach::test {

enum class Mix { alone, with_dense };

void expect_row_of_matrix(const AttentionConfig& config, Mix mix);

}  // namespace longreach::test
