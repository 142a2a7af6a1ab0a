// The normalization forms of Unicode (Standard Annex #15), by utf8proc.
#pragma once
#include <string>
#include <string_view>

namespace longreach::data {

enum class UnicodeForm { nfc, nfd, nfkc, nfkd };

// `text` in that form. Bytes that are no UTF-8 stay where they are.
std::string to_unicode_form(std::string_view text, UnicodeForm form);

}  // namespace longreach::data
