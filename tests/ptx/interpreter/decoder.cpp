#include "tests/ptx/interpreter/decoder.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "core/error.h"

namespace longreach::ptx {
namespace {

const DecodeTable& table() {
  static const DecodeTable all = [] {
    DecodeTable t;
    add_integer(t);
    add_bits(t);
    add_floating(t);
    add_convert(t);
    add_compare(t);
    add_warp(t);
    add_load_store(t);
    add_atomic(t);
    add_tensor_core(t);
    add_control(t);
    add_register_pool(t);
    add_barriers(t);
    t["cp"] = decode_cp;
    t["mbarrier"] = decode_mbarrier;
    t["wgmma"] = decode_wgmma;
    return t;
  }();
  return all;
}

// The bits of a literal as `type` holds it; false when the text is none.
bool literal(std::string_view text, Type type, uint64_t& bits) {
  if (text.size() > 2 && text[0] == '0' &&
      (text[1] == 'f' || text[1] == 'F' || text[1] == 'd' || text[1] == 'D')) {
    const auto [end, error] = std::from_chars(text.data() + 2, text.data() + text.size(), bits, 16);
    if (error != std::errc() || end != text.data() + text.size()) return false;
    const bool is_double = text[1] == 'd' || text[1] == 'D';
    if (is_double && type == Type::f32)
      bits = std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(bits)));
    if (!is_double && type == Type::f64)
      bits = std::bit_cast<uint64_t>(static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(bits))));
    return true;
  }
  std::string plain(text);
  if (!plain.empty() && (plain.back() == 'U' || plain.back() == 'u')) plain.pop_back();
  if (plain.empty() || !(std::isdigit(static_cast<unsigned char>(plain[0])) || plain[0] == '-')) return false;
  char* end = nullptr;
  bits = plain[0] == '-' ? static_cast<uint64_t>(std::strtoll(plain.c_str(), &end, 0))
                         : std::strtoull(plain.c_str(), &end, 0);
  if (*end) return false;
  if (size_of(type) && size_of(type) < 8) bits &= (1ull << (8 * size_of(type))) - 1;
  return true;
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::vector<std::string> split_outside(std::string_view text, char separator) {
  std::vector<std::string> parts;
  int depth = 0;
  size_t start = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : separator;
    if (c == '{' || c == '[' || c == '(') ++depth;
    if (c == '}' || c == ']' || c == ')') --depth;
    if (c == separator && (depth == 0 || i == text.size())) {
      parts.emplace_back(trimmed(text.substr(start, i - start)));
      start = i + 1;
    }
  }
  if (parts.size() == 1 && parts[0].empty()) parts.clear();
  return parts;
}

Decoder::Decoder(Names& names, Kernel& kernel, std::string_view statement,
                 const std::function<uint32_t(std::string_view)>& label)
    : names_(names), kernel_(kernel), label_(label), statement_(trimmed(statement)) {
  std::string_view rest = statement_;
  if (rest.starts_with('@')) {
    const auto end = rest.find_first_of(" \t\n");
    guard_ = rest.substr(1, end - 1);
    rest = trimmed(rest.substr(end));
  }
  const auto end = rest.find_first_of(" \t\n");
  opcode_ = rest.substr(0, end);
  // `::` joins the parts of one modifier, as in .shared::cta
  parts_ = split_outside(opcode_, '.');
  base_ = parts_.empty() ? "" : parts_[0];
  if (!parts_.empty()) parts_.erase(parts_.begin());
  if (end != std::string_view::npos) operands_ = split_outside(rest.substr(end), ',');
}

void Decoder::fail(std::string_view why) const {
  throw UserError(text("`", statement_.substr(0, 200), "`: ", why));
}

Instruction Decoder::decode() {
  Instruction i;
  if (!guard_.empty()) {
    const Operand p = predicate(guard_);
    i.guard = static_cast<int32_t>(p.offset);
    i.guard_negated = p.negated;
  }
  const auto found = table().find(base_);
  if (found == table().end()) fail(text("opcode ", opcode_, " is not supported"));
  found->second(*this, i);
  for (const std::string& part : parts_) {
    if (!part.empty()) fail(text("modifier .", part, " of ", opcode_, " is not supported"));
  }
  if (!i.handler && !i.branch) fail(text("opcode ", opcode_, " is not supported with these types"));
  return i;
}

bool Decoder::has(std::string_view modifier) {
  const auto found = std::find(parts_.begin(), parts_.end(), modifier);
  if (found == parts_.end()) return false;
  found->clear();
  return true;
}

Type Decoder::optional_type() {
  for (std::string& part : parts_) {
    const Type t = type_named(part);
    if (t != Type::none) {
      part.clear();
      return t;
    }
  }
  return Type::none;
}

Type Decoder::type() {
  const Type t = optional_type();
  if (t == Type::none) fail("names no type");
  return t;
}

std::string_view Decoder::take() {
  static thread_local std::string taken;
  for (std::string& part : parts_) {
    if (!part.empty()) {
      taken = std::move(part);
      part.clear();
      return taken;
    }
  }
  fail("lacks a modifier");
}

std::string_view Decoder::operand(size_t i) const {
  if (i >= operands_.size()) fail("lacks an operand");
  return operands_[i];
}

Operand Decoder::value(std::string_view text_, Type type) {
  if (type == Type::pred) return predicate(text_);
  const Operand o = loose(text_, type);
  if (o.wide != is_wide(type)) fail(text("operand ", text_, " has another width than the instruction"));
  return o;
}

Operand Decoder::loose(std::string_view text_, Type type) {
  Operand found;
  if (names_.find_register(text_, found)) return found;
  uint64_t bits = 0;
  if (literal(text_, type, bits)) return names_.constant(bits, is_wide(type));
  if (text_.starts_with('%')) return names_.special(text_);
  const auto plus = text_.find('+');
  if (const Symbol* symbol = names_.find_symbol(trimmed(text_.substr(0, plus)))) {
    const int64_t more = plus == std::string_view::npos
                             ? 0
                             : std::strtoll(std::string(text_.substr(plus + 1)).c_str(), nullptr, 0);
    return names_.constant(symbol->address + static_cast<uint64_t>(more), is_wide(type));
  }
  fail(text("operand ", text_, " is neither a register, a number nor a known symbol"));
}

Operand Decoder::target(std::string_view text_, Type type) {
  if (text_ == "_") return names_.scratch(is_wide(type));
  Operand found;
  if (!names_.find_register(text_, found)) fail(text("operand ", text_, " is no register"));
  if ((found.kind == Operand::kPredicate) != (type == Type::pred))
    fail(text("operand ", text_, " is of the wrong kind"));
  if (type != Type::pred && found.wide != is_wide(type))
    fail(text("operand ", text_, " has another width than the instruction"));
  return found;
}

Operand Decoder::predicate(std::string_view text_) {
  Operand found;
  const bool negated = text_.starts_with('!');
  if (negated) text_.remove_prefix(1);
  uint64_t bits = 0;
  if (literal(text_, Type::none, bits)) {
    found = names_.constant_predicate(bits != 0);
  } else if (!names_.find_register(text_, found) || found.kind != Operand::kPredicate) {
    fail(text("operand ", text_, " is no predicate"));
  }
  found.negated = negated;
  return found;
}

std::vector<Operand> Decoder::loose_list(std::string_view text_, Type type) {
  std::vector<Operand> all;
  if (!text_.starts_with('{')) return {text_ == "_" ? names_.scratch(is_wide(type)) : loose(text_, type)};
  for (const std::string& part : split_outside(text_.substr(1, text_.size() - 2), ',')) {
    all.push_back(part == "_" ? names_.scratch(is_wide(type)) : loose(part, type));
  }
  return all;
}

std::vector<Operand> Decoder::list(std::string_view text_, Type type) {
  std::vector<Operand> all = loose_list(text_, type);
  for (const Operand& o : all) {
    if (o.wide != is_wide(type)) fail("a listed operand has another width than the instruction");
  }
  return all;
}

Operand Decoder::address(std::string_view text_, int64_t& offset, Space space) {
  if (!text_.starts_with('[') || !text_.ends_with(']')) fail(text("operand ", text_, " is no address"));
  const std::string inside(trimmed(text_.substr(1, text_.size() - 2)));
  const auto plus = inside.find('+');
  offset = plus == std::string::npos ? 0 : std::strtoll(inside.c_str() + plus + 1, nullptr, 0);
  const std::string_view base = trimmed(std::string_view(inside).substr(0, plus));
  const bool narrow = space == Space::shared || space == Space::local;
  return loose(base, narrow ? Type::u32 : Type::u64);
}

int64_t Decoder::immediate(size_t i) const {
  uint64_t bits = 0;
  if (!literal(operand(i), Type::none, bits)) fail(text("operand ", operand(i), " is no number"));
  return static_cast<int64_t>(bits);
}

}  // namespace longreach::ptx
