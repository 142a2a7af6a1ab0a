// The Python of which an exported model's modeling_longreach.py is made.
#pragma once
#include <map>
#include <string>

namespace longreach {

// Kind of attention -> its part; "" -> the decoder, which comes first. A kind without one is not there. Made
// when the program is built, of checkpoints/formats/modeling_longreach.py and each
// layers/attention/NAME/modeling.py.
const std::map<std::string, std::string>& modeling_sources();

}  // namespace longreach
