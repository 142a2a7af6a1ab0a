// temporary first version
#include "tests/ptx/decoder.h"

namespace longreach::ptx {
void decode_bulk(Decoder& d, Instruction&) { d.fail("is not supported"); }
void decode_wgmma(Decoder& d, Instruction&) { d.fail("is not supported"); }
}  // namespace longreach::ptx
