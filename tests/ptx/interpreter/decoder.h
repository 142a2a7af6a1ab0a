// Turns the text of one PTX instruction into an Instruction. Families of instructions (arithmetic, memory,
// barriers, ...) each bring a table of decoders; a decoder takes the modifiers it understands, and whatever
// is left over makes the opcode unsupported, so that no meaning is ever dropped silently.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tests/ptx/interpreter/instruction.h"

namespace longreach::ptx {

// What a name of the kernel stands for besides registers.
struct Symbol {
  Space space = Space::generic;
  uint64_t address = 0;
};

// Registers, constants and symbols of the kernel that is being parsed.
class Names {
 public:
  explicit Names(Kernel& kernel) : kernel_(kernel) { open_scope(); }

  void open_scope() { scopes_.emplace_back(); }
  void close_scope() { scopes_.pop_back(); }
  void declare(std::string_view type, std::string_view names);  // ".b32", "%r<67>, p"
  void define(std::string name, Symbol symbol) { symbols_[std::move(name)] = symbol; }

  bool find_register(std::string_view name, Operand& found);
  const Symbol* find_symbol(std::string_view name) const;
  Operand constant(uint64_t bits, bool wide);
  Operand constant_predicate(bool value);
  Operand special(std::string_view name);  // %tid.x, ...
  Operand scratch(bool wide);              // for `_`
  Operand make_register(Type type);

 private:
  struct Range {
    Type type;
    unsigned count;
  };
  struct Scope {
    std::unordered_map<std::string, Operand> registers;
    std::unordered_map<std::string, Range> ranges;
  };
  Kernel& kernel_;
  std::vector<Scope> scopes_;
  std::unordered_map<std::string, Symbol> symbols_;
  std::map<std::pair<uint64_t, bool>, Operand> constants_;
  std::map<std::string, Operand, std::less<>> specials_;
};

class Decoder {
 public:
  Decoder(Names& names, Kernel& kernel, std::string_view statement,
          const std::function<uint32_t(std::string_view)>& label);

  Instruction decode();  // throws UserError with what is unsupported

  // For the families.
  const std::string& opcode() const { return opcode_; }
  bool has(std::string_view modifier);                     // takes it when present
  void allow(std::initializer_list<std::string_view> all)  // takes those that are present
  {
    for (const auto m : all) has(m);
  }
  Type type();              // takes the next type; fails when there is none
  Type optional_type();     // Type::none when there is none
  std::string_view take();  // the next modifier of any name
  size_t operands() const { return operands_.size(); }
  std::string_view operand(size_t i) const;

  Operand source(size_t i, Type type) { return value(operand(i), type); }
  Operand destination(size_t i, Type type) { return target(operand(i), type); }
  Operand value(std::string_view text, Type type);   // register, constant, symbol
  Operand target(std::string_view text, Type type);  // register or `_`
  Operand predicate(std::string_view text);
  // A register of any width that holds at least `type`, or a constant: ld, st, cvt.
  Operand loose(std::string_view text, Type type);
  std::vector<Operand> list(std::string_view text, Type type);  // "{a, b}" or "a"
  std::vector<Operand> loose_list(std::string_view text, Type type);
  Operand address(std::string_view text, int64_t& offset, Space space);  // "[a+4]"
  int64_t immediate(size_t i) const;
  uint32_t label(std::string_view name) const { return label_(name); }
  Names& names() { return names_; }
  Kernel& kernel() { return kernel_; }
  [[noreturn]] void fail(std::string_view why) const;

 private:
  Names& names_;
  Kernel& kernel_;
  const std::function<uint32_t(std::string_view)>& label_;
  std::string statement_, opcode_, guard_;
  std::vector<std::string> parts_;  // of the opcode, after the first; taken ones are empty
  std::string base_;
  std::vector<std::string> operands_;
};

using Decode = void (*)(Decoder&, Instruction&);
using DecodeTable = std::map<std::string, Decode, std::less<>>;

void add_integer(DecodeTable& table);
void add_bits(DecodeTable& table);
void add_floating(DecodeTable& table);
void add_convert(DecodeTable& table);
void add_compare(DecodeTable& table);
void add_warp(DecodeTable& table);
void add_load_store(DecodeTable& table);
void add_atomic(DecodeTable& table);
void add_tensor_core(DecodeTable& table);
void add_control(DecodeTable& table);
void add_register_pool(DecodeTable& table);
void add_barriers(DecodeTable& table);
// Instructions whose first part names several families.
void decode_cp(Decoder& d, Instruction& i);
void decode_mbarrier(Decoder& d, Instruction& i);
void decode_wgmma(Decoder& d, Instruction& i);

// Splits at `separator` outside of brackets and braces; trims.
std::vector<std::string> split_outside(std::string_view text, char separator);
std::string_view trimmed(std::string_view text);

}  // namespace longreach::ptx
