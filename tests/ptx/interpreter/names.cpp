// Names of a kernel while it is parsed: registers get their place in a warp's register file when they are
// first used.
#include <algorithm>

#include "core/error.h"
#include "tests/ptx/interpreter/decoder.h"

namespace longreach::ptx {

void Names::declare(std::string_view type, std::string_view names) {
  const Type t = type_named(type.substr(1));
  check<UserError>(t != Type::none, "registers of type ", type, " are not supported");
  for (const std::string& name : split_outside(names, ',')) {
    const auto bracket = name.find('<');
    if (bracket == std::string::npos) {
      scopes_.back().registers[name] = make_register(t);
    } else {
      scopes_.back().ranges[name.substr(0, bracket)] = {
          t, static_cast<unsigned>(std::stoul(name.substr(bracket + 1)))};
    }
  }
}

Operand Names::make_register(Type type) {
  Operand o{.present = true};
  if (type == Type::pred) {
    o.kind = Operand::kPredicate;
    o.offset = static_cast<uint32_t>(kernel_.predicates.size());
    kernel_.predicates.push_back(0);
    return o;
  }
  o.wide = is_wide(type);
  o.offset = static_cast<uint32_t>(kernel_.register_bytes);
  kernel_.register_bytes += o.wide ? 256 : 128;
  return o;
}

bool Names::find_register(std::string_view name, Operand& found) {
  const std::string key(name);
  const auto digits = key.find_last_not_of("0123456789") + 1;
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto known = scope->registers.find(key);
    if (known != scope->registers.end()) {
      found = known->second;
      return true;
    }
    if (digits == key.size()) continue;
    const auto range = scope->ranges.find(key.substr(0, digits));
    if (range != scope->ranges.end() && std::stoul(key.substr(digits)) < range->second.count) {
      found = scope->registers[key] = make_register(range->second.type);
      return true;
    }
  }
  return false;
}

const Symbol* Names::find_symbol(std::string_view name) const {
  const auto found = symbols_.find(std::string(name));
  return found == symbols_.end() ? nullptr : &found->second;
}

Operand Names::constant(uint64_t bits, bool wide) {
  const auto [place, fresh] = constants_.try_emplace({bits, wide});
  if (fresh) {
    place->second = {.kind = Operand::kConstant,
                     .wide = wide,
                     .present = true,
                     .offset = static_cast<uint32_t>(kernel_.constants.size() * 8)};
    const uint64_t pair = wide ? bits : (bits & 0xffffffff) | bits << 32;
    kernel_.constants.insert(kernel_.constants.end(), wide ? 32 : 16, pair);
  }
  return place->second;
}

Operand Names::constant_predicate(bool value) {
  const Operand o = make_register(Type::pred);
  kernel_.predicates.back() = value ? ~0u : 0u;
  return o;
}

Operand Names::special(std::string_view name) {
  const auto known = specials_.find(name);
  if (known != specials_.end()) return known->second;
  static const std::vector<std::string> kKnown{"%tid.x",
                                               "%tid.y",
                                               "%tid.z",
                                               "%ctaid.x",
                                               "%ctaid.y",
                                               "%ctaid.z",
                                               "%ntid.x",
                                               "%ntid.y",
                                               "%ntid.z",
                                               "%nctaid.x",
                                               "%nctaid.y",
                                               "%nctaid.z",
                                               "%laneid",
                                               "%warpid",
                                               "%nwarpid",
                                               "%lanemask_eq",
                                               "%lanemask_lt",
                                               "%lanemask_le",
                                               "%lanemask_gt",
                                               "%lanemask_ge",
                                               "%cluster_ctarank",
                                               "%cluster_nctarank",
                                               "%dynamic_smem_size",
                                               "%total_smem_size"};
  check<UserError>(std::find(kKnown.begin(), kKnown.end(), name) != kKnown.end(), "register ", name,
                   " is not supported");
  const Operand o = make_register(Type::u32);
  kernel_.special_registers.emplace_back(o, name);
  return specials_[std::string(name)] = o;
}

Operand Names::scratch(bool wide) {
  Operand o = make_register(wide ? Type::b64 : Type::b32);
  o.present = true;
  return o;
}

}  // namespace longreach::ptx
