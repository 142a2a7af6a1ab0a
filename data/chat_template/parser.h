// Jinja's grammar, as far as chat templates use it.
#pragma once
#include <string_view>

#include "data/chat_template/syntax.h"

namespace longreach::data::jinja {

// Throws DataError ("line 12: ...") for what is no Jinja, and for tags, filters and tests that are not known.
Block parse_template(std::string_view source);

}  // namespace longreach::data::jinja
