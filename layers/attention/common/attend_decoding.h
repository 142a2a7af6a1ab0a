// Attention of tokens that are being decoded.
#pragma once
#include "layers/attention/common/softmax_attention.h"

namespace longreach {

// What attend(heads, mask, implementation) gives, by the operator for few queries, without a gradient.
at::Tensor attend_decoding(const Heads& heads, const IntervalMask& mask, Implementation implementation);

}  // namespace longreach
