// repr, str and json.dumps.
#include "data/chat_template/written.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "data/chat_template/characters.h"
#include "data/tokenizers/unicode_classes.h"

namespace longreach::data::jinja {
namespace {

std::string hex(char32_t code, int digits) {
  std::string out(digits, '0');
  for (int i = digits; i-- > 0; code >>= 4) out[i] = "0123456789abcdef"[code & 15];
  return out;
}

// Python's repr of a float: the fewest digits that read back as the same number.
std::string written_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 40> buffer;
  const auto print = [&](std::chars_format format) {
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format).ptr;
    return std::string(buffer.data(), end);
  };
  std::string scientific = print(std::chars_format::scientific);
  const int exponent = std::stoi(scientific.substr(scientific.find('e') + 1));
  if (exponent < -4 || exponent >= 16) return scientific;
  const std::string fixed = print(std::chars_format::fixed);
  return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
}

std::string quoted(const std::string& text) {
  const bool single = text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = single ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const DecodedChar c = decode_char(text, at);
    if (c.code == static_cast<char32_t>(quote) || c.code == '\\') {
      out += {'\\', static_cast<char>(c.code)};
    } else if (c.code == '\n' || c.code == '\r' || c.code == '\t') {
      out += c.code == '\n' ? "\\n" : c.code == '\r' ? "\\r" : "\\t";
    } else if (!is_printable(c.code)) {
      out += c.code < 0x100     ? "\\x" + hex(c.code, 2)
             : c.code < 0x10000 ? "\\u" + hex(c.code, 4)
                                : "\\U" + hex(c.code, 8);
    } else {
      out.append(text, at, c.length);
    }
    at += c.length;
  }
  return out + quote;
}

// Parts are spent as they are written, so that shared values do not grow beyond the limit.
void write_repr(Work& work, const Value& value, std::string& out);

void write_items(Work& work, const Sequence& list, std::string& out) {
  const bool tuple = list.form == Sequence::Form::tuple;
  out += tuple ? '(' : '[';
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out += ", ";
    write_repr(work, list.items[i], out);
  }
  if (tuple && list.items.size() == 1) out += ',';
  out += tuple ? ')' : ']';
}

void write_repr(Work& work, const Value& value, std::string& out) {
  work.spend(32);
  if (const auto* text = value.text()) {
    out += quoted(*text);
    work.spend(text->size());
  } else if (const auto* mapping = value.mapping()) {
    out += '{';
    for (size_t i = 0; i < mapping->items.size(); ++i) {
      const auto& [key, item] = mapping->items[i];
      out += (i > 0 ? ", " : "") + quoted(key) + ": ";
      work.spend(key.size());
      write_repr(work, item, out);
    }
    out += '}';
  } else if (const auto* list = value.sequence(); list && list->form <= Sequence::Form::tuple) {
    write_items(work, *list, out);
  } else {
    check<Fault>(!value.undefined(), "printing ", kind_of(value), " inside of another value");
    out += written(work, value);
  }
}

std::string json_text(const std::string& text, bool ascii) {
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const DecodedChar c = decode_char(text, at);
    const auto escape = std::string_view("\"\\\n\r\t\b\f").find(static_cast<char>(c.code));
    if (c.code < 0x80 && escape != std::string_view::npos) {
      out += {'\\', "\"\\nrtbf"[escape]};
    } else if (c.code < 0x20 || (ascii && c.code >= 0x7F && c.code < 0x10000)) {
      out += "\\u" + hex(c.code, 4);
    } else if (ascii && c.code >= 0x10000) {
      const char32_t rest = c.code - 0x10000;
      out += "\\u" + hex(0xD800 + (rest >> 10), 4) + "\\u" + hex(0xDC00 + (rest & 0x3FF), 4);
    } else {
      out.append(text, at, c.length);
    }
    at += c.length;
  }
  return out + '"';
}

class JsonWriter {
 public:
  JsonWriter(Work& work, const JsonStyle& style) : work_(work), style_(style) {}

  void write(const Value& value) {
    work_.spend(32);
    if (const auto* text = value.text()) {
      put(json_text(*text, style_.ascii));
    } else if (value.none()) {
      put("null");
    } else if (const auto* flag = value.get<bool>()) {
      put(*flag ? "true" : "false");
    } else if (const auto* real = value.get<double>(); real && !std::isfinite(*real)) {
      put(std::isnan(*real) ? "NaN" : *real < 0 ? "-Infinity" : "Infinity");
    } else if (const auto* mapping = value.mapping()) {
      write_mapping(*mapping);
    } else if (const auto* list = value.sequence(); list && list->form <= Sequence::Form::tuple) {
      nest('[', ']', list->items.size(), [&](size_t i) { write(list->items[i]); });
    } else {
      check<Fault>(value.get<int64_t>() || value.get<double>(), "tojson of ", kind_of(value),
                   " is not possible");
      put(written(work_, value));
    }
  }
  std::string take() { return std::move(out_); }

 private:
  void write_mapping(const Mapping& mapping) {
    auto items = mapping.items;
    if (style_.sorted)
      std::stable_sort(items.begin(), items.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
    nest('{', '}', items.size(), [&](size_t i) {
      put(json_text(items[i].first, style_.ascii) + style_.behind_key);
      write(items[i].second);
    });
  }
  template <class Item>
  void nest(char open, char close, size_t count, const Item& item) {
    put(std::string(1, open));
    ++level_;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) put(style_.between_items);
      line();
      item(i);
    }
    --level_;
    if (count > 0) line();
    put(std::string(1, close));
  }
  void line() {
    if (!style_.indent) return;
    put("\n");
    for (int i = 0; i < level_; ++i) put(*style_.indent);
  }
  void put(const std::string& text) {
    work_.spend(text.size());
    out_ += text;
  }

  Work& work_;
  const JsonStyle& style_;
  std::string out_;
  int level_ = 0;
};

}  // namespace

std::string written(Work& work, const Value& value) {
  if (const auto* text = value.text()) {
    work.spend(text->size());
    return *text;
  }
  if (value.undefined()) return "";
  if (value.none()) return "None";
  if (const auto* flag = value.get<bool>()) return *flag ? "True" : "False";
  if (const auto* number = value.get<int64_t>()) return std::to_string(*number);
  if (const auto* real = value.get<double>()) return written_real(*real);
  const bool prints =
      value.mapping() || (value.sequence() && value.sequence()->form <= Sequence::Form::tuple);
  check<Fault>(prints, "printing ", kind_of(value), " is not supported");
  std::string out;
  write_repr(work, value, out);
  return out;
}

std::string written_json(Work& work, const Value& value, const JsonStyle& style) {
  JsonWriter writer(work, style);
  writer.write(value);
  return writer.take();
}

}  // namespace longreach::data::jinja
