// A model in its weights alone.
#pragma once
#include "models/transformer.h"

namespace longreach {

// Every adapter goes into the weight it belongs to, W + scale B A, and is zeros from then on. Nothing happens
// to a model without adapters.
void merge_adapters(Transformer& model);

}  // namespace longreach
