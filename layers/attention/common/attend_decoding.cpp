#include "layers/attention/common/attend_decoding.h"

#include "layers/ops/decode_attention/decode_attention.h"

namespace longreach {

at::Tensor attend_decoding(const Heads& heads, const IntervalMask& mask, Implementation implementation) {
  if (implementation == Implementation::reference) return attend(heads, mask, implementation);
  return decode_attention(heads.q, heads.k, heads.v, mask);
}

}  // namespace longreach
