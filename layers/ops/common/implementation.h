// Which code computes a mechanism: the fused operator, or the plain formula it is checked against.
#pragma once

namespace longreach {

// `reference` takes any floating dtype (float64 for verification) and memory of T x T; `fused` takes float32
// and bfloat16.
enum class Implementation { fused, reference };

}  // namespace longreach
