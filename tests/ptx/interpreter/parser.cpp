// Parses the PTX of one module: variables, kernels, source locations. The text is what nvcc writes, so errors
// here mean "the interpreter does not know this" and name file, line and opcode.
#include <algorithm>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/interpreter.h"

namespace longreach::ptx {
namespace {

// `.align 16 .b8 name[128] = {1, 2}` or `.f32 name`, after the space's own word.
struct Declaration {
  std::string name;
  Type type = Type::none;
  size_t align = 1, bytes = 0;
  std::vector<std::string> values;
};

Declaration parse_declaration(std::string_view text) {
  Declaration d;
  const auto equals = text.find('=');
  std::istringstream in{std::string(text.substr(0, equals))};
  std::string word;
  while (in >> word) {
    if (word == ".align") {
      in >> d.align;
    } else if (word.starts_with('.')) {
      if (const Type t = type_named(word.substr(1)); t != Type::none) d.type = t;
    } else {
      d.name += word;
    }
  }
  size_t count = 1;
  if (const auto bracket = d.name.find('['); bracket != std::string::npos) {
    const std::string inside = d.name.substr(bracket + 1, d.name.find(']') - bracket - 1);
    count = inside.empty() ? 0 : std::stoull(inside);
    d.name.resize(bracket);
  }
  d.align = std::max<size_t>(d.align, size_of(d.type));
  d.bytes = count * size_of(d.type);
  if (equals != std::string_view::npos) {
    std::string_view list = trimmed(text.substr(equals + 1));
    if (list.starts_with('{')) list = list.substr(1, list.size() - 2);
    d.values = split_outside(list, ',');
  }
  return d;
}

size_t aligned(size_t offset, size_t align) { return (offset + align - 1) / align * align; }

class Parser {
 public:
  Parser(std::string_view text, ModuleData& module) : text_(text), module_(module) {
    strip_comments();
    find_files();
  }

  void parse() {
    while (skip_space()) {
      const std::string word = peek_word();
      if (word == ".section") {
        skip_braces();
      } else if (word == ".file" || word == ".version" || word == ".target" || word == ".address_size") {
        line_end();
      } else {
        parse_top_level();
      }
    }
  }

 private:
  // Comments become blanks, so that places in the text keep their line.
  void strip_comments() {
    for (size_t i = 0; i + 1 < text_.size(); ++i) {
      if (text_[i] == '/' && text_[i + 1] == '/') {
        while (i < text_.size() && text_[i] != '\n') text_[i++] = ' ';
      } else if (text_[i] == '/' && text_[i + 1] == '*') {
        const size_t end = std::min(text_.find("*/", i), text_.size() - 2) + 2;
        for (; i < end; ++i) {
          if (text_[i] != '\n') text_[i] = ' ';
        }
      }
    }
  }

  bool skip_space() {
    at_ = text_.find_first_not_of(" \t\r\n", at_);
    return at_ != std::string::npos;
  }
  std::string peek_word() const { return text_.substr(at_, text_.find_first_of(" \t\r\n;({", at_) - at_); }
  std::string line_end() { return until('\n'); }
  std::string until(char stop) {
    const size_t end = std::min(text_.find(stop, at_), text_.size());
    std::string found = text_.substr(at_, end - at_);
    at_ = std::min(end + 1, text_.size());
    return found;
  }
  size_t matching_brace(size_t open) const {
    int depth = 0;
    for (size_t i = open; i < text_.size(); ++i) {
      if (text_[i] == '{') ++depth;
      if (text_[i] == '}' && --depth == 0) return i;
    }
    return text_.size();
  }
  void skip_braces() { at_ = matching_brace(text_.find('{', at_)) + 1; }
  [[noreturn]] void fail(size_t place, std::string_view why) const {
    const auto line =
        1 + std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(std::min(place, text_.size())),
                       '\n');
    throw DataError(one_line(text(module_.file, ":", line, ": ", why)));
  }

  // nvcc numbers its files behind the code that names them.
  void find_files() {
    std::istringstream lines(text_);
    for (std::string raw; std::getline(lines, raw);) {
      const std::string_view line = trimmed(raw);
      if (!line.starts_with(".file")) continue;
      const auto open = line.find('"'), close = line.find('"', open + 1);
      std::string name(line.substr(open + 1, close - open - 1));
      if (const auto slash = name.rfind('/'); slash != std::string::npos) name.erase(0, slash + 1);
      files_[std::stoi(std::string(line.substr(5)))] = name;
    }
  }

  void parse_top_level() {
    const size_t start = at_;
    const size_t end = text_.find_first_of(";(", at_);
    const std::string head = text_.substr(at_, end - at_);
    if (head.find(".entry") != std::string::npos) {
      parse_kernel(head);
      return;
    }
    if (head.find(".func") != std::string::npos)
      fail(start, text("functions are not supported: `", head, "`"));
    const std::string statement = until(';');
    parse_variable(statement, start);
  }

  void parse_variable(const std::string& statement, size_t start) {
    const bool shared = statement.find(".shared") != std::string::npos;
    const bool global =
        statement.find(".global") != std::string::npos || statement.find(".const") != std::string::npos;
    if (shared) {
      (statement.find(".extern") != std::string::npos ? extern_shared_ : shared_)
          .push_back(parse_declaration(statement));
    } else if (global) {
      make_variable(parse_declaration(statement), start);
    } else if (!statement.starts_with(".pragma")) {
      fail(start, text("`", statement, "` is not supported"));
    }
  }

  void make_variable(const Declaration& d, size_t place) {
    GlobalVariable v{.name = d.name, .bytes = d.bytes};
    v.storage = std::make_unique<std::byte[]>(d.bytes + d.align);
    v.data = reinterpret_cast<std::byte*>(aligned(reinterpret_cast<uint64_t>(v.storage.get()), d.align));
    const size_t size = size_of(d.type);
    for (size_t i = 0; i < d.values.size(); ++i) {
      uint64_t bits = 0;
      const std::string& value = d.values[i];
      if (value.starts_with("0f") || value.starts_with("0d")) {
        bits = std::stoull(value.substr(2), nullptr, 16);
      } else if (std::isdigit(static_cast<unsigned char>(value[0])) || value[0] == '-') {
        bits = value[0] == '-' ? static_cast<uint64_t>(std::stoll(value)) : std::stoull(value, nullptr, 0);
      } else {
        fail(place, text("initial value ", value, " is not supported"));
      }
      std::memcpy(v.data + i * size, &bits, size);
    }
    module_.variables.push_back(std::move(v));
  }

  void parse_kernel(const std::string& head) {
    Kernel kernel;
    kernel.name = trimmed(std::string_view(head).substr(head.find(".entry") + 6));
    Names names(kernel);
    at_ += head.size();
    const size_t body = text_.find('{', at_);
    if (at_ < text_.size() && text_[at_] == '(') {
      const size_t close = text_.find(')', at_);
      for (const std::string& p :
           split_outside(std::string_view(text_).substr(at_ + 1, close - at_ - 1), ',')) {
        const Declaration d = parse_declaration(p);
        kernel.parameter_bytes = aligned(kernel.parameter_bytes, d.align);
        kernel.parameters.push_back({d.name, kernel.parameter_bytes, d.bytes});
        names.define(d.name, {Space::parameter, kernel.parameter_bytes});
        kernel.parameter_bytes += d.bytes;
      }
    }
    at_ = body + 1;
    const size_t end = matching_brace(body);
    for (const GlobalVariable& v : module_.variables)
      names.define(v.name, {Space::global, reinterpret_cast<uint64_t>(v.data)});
    place_shared(kernel, names, std::string_view(text_).substr(body, end - body));
    parse_body(kernel, names, end);
    at_ = end + 1;
    module_.kernels[kernel.name] = std::move(kernel);
  }

  // Static shared variables that this kernel names, then the dynamic ones behind them.
  void place_shared(Kernel& kernel, Names& names, std::string_view body) {
    std::vector<Declaration> found;
    for (const Declaration& d : shared_) {
      if (body.find(d.name) != std::string_view::npos) found.push_back(d);
    }
    for (size_t p = body.find(".shared .align"); p != std::string_view::npos;
         p = body.find(".shared .align", p + 1)) {
      found.push_back(parse_declaration(body.substr(p, body.find(';', p) - p)));
    }
    size_t offset = 0;
    for (const Declaration& d : found) {
      offset = aligned(offset, d.align);
      names.define(d.name, {Space::shared, offset});
      offset += d.bytes;
    }
    for (const Declaration& d : extern_shared_) {
      if (body.find(d.name) != std::string_view::npos) offset = aligned(offset, d.align);
    }
    for (const Declaration& d : extern_shared_) names.define(d.name, {Space::shared, offset});
    kernel.static_shared_bytes = static_cast<uint32_t>(offset);
  }

  struct Body {
    std::map<std::string, uint32_t, std::less<>> labels;
    std::map<std::string, std::vector<std::string>, std::less<>> branch_targets;
    std::vector<std::pair<size_t, std::string>> branches;  // instruction, label
    std::vector<std::pair<size_t, std::string>> tables;    // instruction, name of its branch targets
    uint32_t location = 0;
    std::string last_label;
    std::map<std::string, Location> places;  // by "file line column"
    std::map<std::string, uint32_t> opcodes;
  };

  void parse_body(Kernel& kernel, Names& names, size_t end) {
    Body b;
    kernel.locations.push_back({});
    while (skip_space() && at_ < end) {
      const char c = text_[at_];
      if (c == '{' || c == '}') {
        c == '{' ? names.open_scope() : names.close_scope();
        ++at_;
        continue;
      }
      const size_t start = at_;
      try {
        parse_statement(kernel, names, b);
      } catch (const DataError&) {
        throw;
      } catch (const UserError& e) {
        fail(start, e.what());
      }
    }
    Decoder last(names, kernel, "ret", [](std::string_view) { return 0u; });
    add_instruction(kernel, b, last.decode(), "ret");
    link(kernel, b, end);
  }

  void parse_statement(Kernel& kernel, Names& names, Body& b) {
    const std::string word = peek_word();
    if (word == ".loc") {
      parse_location(kernel, b, line_end());
      return;
    }
    const auto colon = word.find(':');
    if (!word.starts_with('.') && colon != std::string::npos && word.substr(colon, 2) != "::") {
      b.last_label = word.substr(0, colon);
      b.labels[b.last_label] = static_cast<uint32_t>(kernel.code.size());
      at_ += colon + 1;
      return;
    }
    const std::string statement = until(';');
    if (word == ".reg") {
      const std::string_view rest = trimmed(std::string_view(statement).substr(4));
      const auto blank = rest.find_first_of(" \t");
      names.declare(rest.substr(0, blank), rest.substr(blank));
    } else if (word == ".local") {
      const Declaration d = parse_declaration(std::string_view(statement).substr(6));
      kernel.local_bytes = static_cast<uint32_t>(aligned(kernel.local_bytes, d.align));
      names.define(d.name, {Space::local, kernel.local_bytes});
      kernel.local_bytes += static_cast<uint32_t>(d.bytes);
    } else if (word == ".branchtargets") {
      b.branch_targets[b.last_label] = split_outside(std::string_view(statement).substr(14), ',');
    } else if (word != ".shared" && word != ".pragma") {
      parse_instruction(kernel, names, b, statement);
    }
  }

  void parse_instruction(Kernel& kernel, Names& names, Body& b, const std::string& statement) {
    std::string opcode;
    const std::function<uint32_t(std::string_view)> label = [&](std::string_view name) {
      b.branches.emplace_back(kernel.code.size(), name);
      return 0u;
    };
    Decoder decoder(names, kernel, statement, label);
    Instruction i = decoder.decode();
    if (decoder.opcode().starts_with("brx.idx")) {
      b.branches.pop_back();
      b.tables.emplace_back(kernel.code.size(), decoder.operand(1));
    }
    add_instruction(kernel, b, std::move(i), decoder.opcode());
  }

  static void add_instruction(Kernel& kernel, Body& b, Instruction i, const std::string& opcode) {
    const auto [place, fresh] = b.opcodes.try_emplace(opcode, static_cast<uint32_t>(kernel.opcodes.size()));
    if (fresh) kernel.opcodes.push_back(opcode);
    i.opcode = place->second;
    i.location = b.location;
    kernel.code.push_back(std::move(i));
  }

  void link(Kernel& kernel, const Body& b, size_t end) const {
    const auto place = [&](std::string_view name) {
      const auto found = b.labels.find(name);
      if (found == b.labels.end()) fail(end, text("label ", name, " is not in kernel ", kernel.name));
      return found->second;
    };
    for (const auto& [at, name] : b.branches) kernel.code[at].target = place(name);
    for (const auto& [at, name] : b.tables) {
      const auto found = b.branch_targets.find(name);
      if (found == b.branch_targets.end())
        fail(end, text("branch targets ", name, " are not in kernel ", kernel.name));
      for (const std::string& target : found->second) kernel.code[at].targets.push_back(place(target));
    }
  }

  // .loc FILE LINE COLUMN[, function_name NAME, inlined_at FILE LINE COLUMN]. Line 0 marks code without a
  // line.
  void parse_location(Kernel& kernel, Body& b, const std::string& line) {
    int file = 0;
    unsigned number = 0, column = 0;
    std::istringstream(line.substr(4)) >> file >> number >> column;
    if (!number) return;
    Location here{{files_[file], number}};
    if (const auto inlined = line.find("inlined_at"); inlined != std::string::npos) {
      const auto outer = b.places.find(std::string(trimmed(std::string_view(line).substr(inlined + 10))));
      if (outer != b.places.end()) here.insert(here.end(), outer->second.begin(), outer->second.end());
    }
    b.places[text(file, " ", number, " ", column)] = here;
    b.location = static_cast<uint32_t>(kernel.locations.size());
    kernel.locations.push_back(std::move(here));
  }

  std::string text_;
  ModuleData& module_;
  size_t at_ = 0;
  std::map<int, std::string> files_;
  std::vector<Declaration> shared_, extern_shared_;
};

}  // namespace

Module Module::parse(std::string_view text, std::string name) {
  auto data = std::make_shared<ModuleData>();
  data->file = std::move(name);
  Parser(text, *data).parse();
  Module module;
  module.data_ = std::move(data);
  return module;
}

}  // namespace longreach::ptx
