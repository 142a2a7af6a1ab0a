// Prefixes, replacements and Unicode forms, one step after the other.
#include "data/tokenizers/normalizer.h"

#include "core/error.h"

namespace longreach::data {
namespace {

void check_growth(size_t size, size_t limit) {
  check<DataError>(size <= limit, "the normalizer makes more than ", limit,
                   " bytes of a text, 16 times its own");
}

std::string replace_regex(std::string_view text, const SplitRegex& pattern, std::string_view content,
                          size_t limit) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = pattern.match(text, at);
    if (end != SplitRegex::kNoMatch && end > at) {
      out += content;
      check_growth(out.size(), limit);
      at = end;
    } else {
      const size_t length = decode_char(text, at).length;
      out += text.substr(at, length);
      at += length;
    }
  }
  return out;
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content,
                        size_t limit) {
  std::string out;
  size_t at = 0;
  for (size_t found; (found = text.find(pattern, at)) != std::string_view::npos;
       at = found + pattern.size()) {
    out += text.substr(at, found - at);
    out += content;
    check_growth(out.size(), limit);
  }
  out += text.substr(at);
  return out;
}

void Normalizer::add_prepend(std::string prefix) {
  steps_.push_back({.content = std::move(prefix), .prepend = true});
}

void Normalizer::add_replace(std::string pattern, std::string content) {
  steps_.push_back({.pattern = std::move(pattern), .content = std::move(content)});
}

void Normalizer::add_replace_regex(SplitRegex pattern, std::string content) {
  steps_.push_back({.content = std::move(content), .regex = std::move(pattern)});
}

void Normalizer::add_form(UnicodeForm form) { steps_.push_back({.form = form}); }

std::string Normalizer::apply(std::string_view text, bool inside) const {
  std::string current(text);
  const size_t limit = 16 * text.size() + (size_t{1} << 20);
  for (const Step& step : steps_) {
    if (step.prepend)
      current = current.empty() || inside ? current : step.content + current;
    else if (step.form)
      current = to_unicode_form(current, *step.form);
    else
      current = step.regex ? replace_regex(current, *step.regex, step.content, limit)
                           : replace_all(current, step.pattern, step.content, limit);
  }
  return current;
}

}  // namespace longreach::data
