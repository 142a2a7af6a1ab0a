#include "checkpoints/formats/pickle.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <set>
#include <unordered_map>

#include "core/error.h"
#include "core/utf8.h"

namespace longreach {
namespace {

constexpr size_t kMaxProgram = 100'000'000, kMaxTensors = 200'000, kMaxDimensions = 32;
// Values on the stack, in tuples, in dicts and in the memo; dicts; marks: a dict of kMaxTensors needs fewer.
constexpr size_t kMaxValues = 4'000'000, kMaxDicts = 1'000'000, kMaxMarks = 1'000;

enum class Global { ordered_dict, rebuild_tensor, rebuild_parameter, storage };

struct KnownGlobal {
  std::string_view module, name;
  Global what;
  std::string_view dtype;  // of a storage
};
constexpr std::array<KnownGlobal, 13> kGlobals = {
    {{"collections", "OrderedDict", Global::ordered_dict, ""},
     {"torch._utils", "_rebuild_tensor_v2", Global::rebuild_tensor, ""},
     {"torch._utils", "_rebuild_parameter", Global::rebuild_parameter, ""},
     {"torch", "DoubleStorage", Global::storage, "F64"},
     {"torch", "FloatStorage", Global::storage, "F32"},
     {"torch", "HalfStorage", Global::storage, "F16"},
     {"torch", "BFloat16Storage", Global::storage, "BF16"},
     {"torch", "LongStorage", Global::storage, "I64"},
     {"torch", "IntStorage", Global::storage, "I32"},
     {"torch", "ShortStorage", Global::storage, "I16"},
     {"torch", "CharStorage", Global::storage, "I8"},
     {"torch", "ByteStorage", Global::storage, "U8"},
     {"torch", "BoolStorage", Global::storage, "BOOL"}}};

enum class Kind : uint8_t { none, boolean, integer, real, text, tuple, dict, global, storage, tensor };

std::string_view kind_name(Kind kind) {
  constexpr std::array<std::string_view, 10> names = {
      "None",    "True or False", "an integer",          "a number",  "a string",
      "a tuple", "a dict",        "a class or function", "a storage", "a tensor"};
  return names.at(static_cast<size_t>(kind));
}

// What number and extra are: integer: the number. text: begin and bytes in the program. tuple: begin and
// count in items_. global, storage, tensor, dict: the place in kGlobals, storages_, tensors_, dicts_.
struct Value {
  Kind kind = Kind::none;
  uint32_t extra = 0;
  int64_t number = 0;
};

struct Storage {
  std::string_view dtype, key;
  int64_t elements;
};

struct Dict {
  bool ordered;
  std::vector<std::pair<Value, Value>> items;
};

class Machine {
 public:
  Machine(std::string_view program, const std::string& who) : program_(program), who_(who) {}

  std::vector<PickledTensor> run() {
    expect(program_.size() <= kMaxProgram, "the pickle has ", program_.size(), " bytes; at most ",
           kMaxProgram, " are read");
    while (step()) {
    }
    expect(stack_.size() == 1 && marks_.empty(), "the pickle ends with ", stack_.size(),
           " values; one belongs there");
    return named_tensors(stack_.back());
  }

 private:
  template <class... Parts>
  void expect(bool condition, const Parts&... parts) const {
    if (!condition) throw CheckpointError(one_line(text(who_, ": ", parts...)));
  }

  // The program.
  std::string_view take(size_t bytes) {
    expect(bytes <= program_.size() - at_, "the pickle is cut short at byte ", at_);
    at_ += bytes;
    return program_.substr(at_ - bytes, bytes);
  }
  template <class Number>
  Number number() {
    Number number = 0;
    std::memcpy(&number, take(sizeof number).data(), sizeof number);  // little-endian, as this machine
    return number;
  }
  std::string_view line() {
    const size_t end = program_.find('\n', at_);
    expect(end != std::string_view::npos, "the pickle is cut short at byte ", at_);
    const std::string_view whole = take(end - at_);
    take(1);
    return whole;
  }
  std::string_view text_of(const Value& value) const {
    return program_.substr(static_cast<size_t>(value.number), value.extra);
  }

  // The stack.
  void push(Kind kind, int64_t number = 0, size_t extra = 0) {
    expect(stack_.size() < kMaxValues, "the pickle puts more than ", kMaxValues, " values on its stack");
    stack_.push_back({kind, static_cast<uint32_t>(extra), number});
  }
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Value pop() {
    expect(stack_.size() > floor(), "the pickle takes a value that is not there, at byte ", at_);
    const Value value = stack_.back();
    stack_.pop_back();
    return value;
  }
  const Value& top() const {
    expect(stack_.size() > floor(), "the pickle takes a value that is not there, at byte ", at_);
    return stack_.back();
  }
  size_t pop_mark() {
    expect(!marks_.empty(), "the pickle takes a mark that is not there, at byte ", at_);
    const size_t mark = marks_.back();
    marks_.pop_back();
    return mark;
  }

  void push_text(size_t bytes) {
    const std::string_view value = take(bytes);
    expect(is_utf8(value), "the pickle holds a string that is not UTF-8, at byte ", at_);
    push(Kind::text, value.data() - program_.data(), bytes);
  }
  void push_long(size_t bytes) {
    const std::string_view digits = take(bytes);
    expect(bytes <= 8, "the pickle holds a number of more than 64 bits, at byte ", at_);
    const bool negative = bytes > 0 && static_cast<signed char>(digits.back()) < 0;
    int64_t value = negative ? -1 : 0;
    std::memcpy(&value, digits.data(), bytes);
    push(Kind::integer, value);
  }
  void push_tuple(size_t begin) {
    const size_t count = stack_.size() - begin;
    expect(items_.size() + count <= kMaxValues, "the pickle puts more than ", kMaxValues,
           " values into tuples");
    const size_t place = items_.size();
    items_.insert(items_.end(), stack_.begin() + static_cast<std::ptrdiff_t>(begin), stack_.end());
    stack_.resize(begin);
    push(Kind::tuple, static_cast<int64_t>(place), count);
  }
  void push_last(size_t count) {
    expect(stack_.size() - floor() >= count, "the pickle takes a value that is not there, at byte ", at_);
    push_tuple(stack_.size() - count);
  }
  void push_dict(bool ordered) {
    expect(dicts_.size() < kMaxDicts, "the pickle makes more than ", kMaxDicts, " dicts");
    dicts_.push_back({ordered, {}});
    push(Kind::dict, static_cast<int64_t>(dicts_.size() - 1));
  }
  void push_global(std::string_view module, std::string_view name) {
    const auto* known = std::find_if(kGlobals.begin(), kGlobals.end(), [&](const KnownGlobal& global) {
      return global.module == module && global.name == name;
    });
    expect(known != kGlobals.end(), "the pickle names `", one_line(module, 100), ".", one_line(name, 100),
           "`, which is no part of a dict of tensors; nothing of it is run");
    push(Kind::global, known - kGlobals.begin());
  }

  void remember(size_t place) {
    expect(memo_.size() < kMaxValues, "the pickle remembers more than ", kMaxValues, " values");
    memo_[place] = top();
  }
  void recall(size_t place) {
    const auto found = memo_.find(place);
    expect(found != memo_.end(), "the pickle recalls value ", place, ", which it has not remembered");
    push(found->second.kind, found->second.number, found->second.extra);
  }

  // What values are made of.
  std::vector<Value> items_of(const Value& tuple) const {
    const auto begin = items_.begin() + tuple.number;
    return {begin, begin + tuple.extra};
  }
  std::vector<int64_t> sizes_of(const Value& tuple) const {
    expect(tuple.kind == Kind::tuple && tuple.extra <= kMaxDimensions,
           "a tensor's shape and strides must be tuples of at most ", kMaxDimensions, " numbers");
    std::vector<int64_t> sizes;
    for (const Value& item : items_of(tuple)) {
      expect(item.kind == Kind::integer && item.number >= 0,
             "a tensor's shape and strides must be numbers from 0 on");
      sizes.push_back(item.number);
    }
    return sizes;
  }
  const KnownGlobal& global_of(const Value& value, std::string_view wanted) const {
    expect(value.kind == Kind::global, "the pickle has ", kind_name(value.kind), " where ", wanted,
           " belongs");
    return kGlobals.at(static_cast<size_t>(value.number));
  }

  void push_storage() {
    const Value id = pop();
    expect(id.kind == Kind::tuple && id.extra == 5, "a storage's id must be a tuple of five");
    const std::vector<Value> parts = items_of(id);
    expect(parts[0].kind == Kind::text && text_of(parts[0]) == "storage" && parts[2].kind == Kind::text &&
               parts[4].kind == Kind::integer && parts[4].number >= 0,
           "a storage's id must be (\"storage\", its class, key, place, elements)");
    const KnownGlobal& type = global_of(parts[1], "a storage's class");
    expect(type.what == Global::storage, "`", type.name, "` is no class of storages");
    expect(storages_.size() < kMaxTensors, "the pickle has more than ", kMaxTensors, " storages");
    storages_.push_back({type.dtype, text_of(parts[2]), parts[4].number});
    push(Kind::storage, static_cast<int64_t>(storages_.size() - 1));
  }

  void rebuild_tensor(const std::vector<Value>& arguments) {
    // The seventh, of newer versions, is about views such as conjugates.
    const bool plain = arguments.size() == 6 || (arguments.size() == 7 && is_nothing(arguments[6]));
    expect(plain && arguments[0].kind == Kind::storage && arguments[1].kind == Kind::integer &&
               arguments[4].kind == Kind::boolean && is_nothing(arguments[5]),
           "_rebuild_tensor_v2 takes (storage, offset, shape, strides, requires_grad, no hooks)");
    expect(tensors_.size() < kMaxTensors, "the pickle makes more than ", kMaxTensors, " tensors");
    const Storage& storage = storages_[static_cast<size_t>(arguments[0].number)];
    tensors_.push_back({.dtype = std::string(storage.dtype),
                        .storage = std::string(storage.key),
                        .storage_elements = storage.elements,
                        .offset = arguments[1].number,
                        .shape = sizes_of(arguments[2]),
                        .strides = sizes_of(arguments[3])});
    push(Kind::tensor, static_cast<int64_t>(tensors_.size() - 1));
  }
  bool is_nothing(const Value& value) const {
    return value.kind == Kind::none ||
           (value.kind == Kind::dict && dicts_[static_cast<size_t>(value.number)].items.empty());
  }

  void reduce() {
    const Value arguments = pop(), function = pop();
    const KnownGlobal& global = global_of(function, "a function");
    expect(arguments.kind == Kind::tuple, "`", global.name, "` is called with no tuple");
    const std::vector<Value> values = items_of(arguments);
    switch (global.what) {
      case Global::ordered_dict:
        expect(values.empty(), "OrderedDict takes no arguments here");
        return push_dict(true);
      case Global::rebuild_tensor:
        return rebuild_tensor(values);
      case Global::rebuild_parameter:
        expect(values.size() == 3 && values[0].kind == Kind::tensor && values[1].kind == Kind::boolean &&
                   is_nothing(values[2]),
               "_rebuild_parameter takes (tensor, requires_grad, no hooks)");
        return push(Kind::tensor, values[0].number);
      case Global::storage:
        break;
    }
    expect(false, "the pickle calls `", global.name, "`, which is no function");
  }

  // Attributes of a state_dict (its _metadata) are not kept.
  void build() {
    const Value state = pop();
    const Value& object = top();
    expect(object.kind == Kind::dict && dicts_[static_cast<size_t>(object.number)].ordered &&
               state.kind == Kind::dict,
           "the pickle sets attributes of ", kind_name(object.kind), "; only an OrderedDict has some here");
  }

  void set_items(size_t begin) {
    expect((stack_.size() - begin) % 2 == 0, "the pickle has a key without a value, at byte ", at_);
    expect(begin > floor() && stack_[begin - 1].kind == Kind::dict,
           "the pickle sets an item of what is no dict");
    auto& items = dicts_[static_cast<size_t>(stack_[begin - 1].number)].items;
    items_set_ += (stack_.size() - begin) / 2;
    expect(items_set_ <= kMaxValues, "the pickle puts more than ", kMaxValues, " values into dicts");
    for (size_t i = begin; i < stack_.size(); i += 2) items.emplace_back(stack_[i], stack_[i + 1]);
    stack_.resize(begin);
  }

  // One opcode; false after the last.
  bool step() {
    const auto opcode = static_cast<unsigned char>(take(1)[0]);
    if (constant(opcode)) return true;
    switch (opcode) {
      case '.':
        return false;
      case '(':
        expect(marks_.size() < kMaxMarks, "the pickle is nested deeper than ", kMaxMarks);
        marks_.push_back(stack_.size());
        return true;
      case 't':
        push_tuple(pop_mark());
        return true;
      case 0x85:
      case 0x86:
      case 0x87:
        push_last(opcode - 0x84U);
        return true;
      case 0x93: {
        const Value name = pop(), module = pop();
        expect(name.kind == Kind::text && module.kind == Kind::text, "a class is named by two strings");
        push_global(text_of(module), text_of(name));
        return true;
      }
      case 'Q':
        push_storage();
        return true;
      case 'R':
        reduce();
        return true;
      case 'b':
        build();
        return true;
      case 's':
        expect(stack_.size() - floor() >= 3, "the pickle takes a value that is not there, at byte ", at_);
        set_items(stack_.size() - 2);
        return true;
      case 'u':
        set_items(pop_mark());
        return true;
      default:
        return memo(opcode);
    }
  }

  // Opcodes that put something on the stack, and those that do nothing.
  bool constant(unsigned char opcode) {
    switch (opcode) {
      case 0x80: {
        const int version = number<uint8_t>();
        expect(version >= 2 && version <= 5, "the pickle is of protocol ", version, "; 2 to 5 are read");
        return true;
      }
      case 0x95:
        take(8);
        return true;
      case 'N':
        return push(Kind::none), true;
      case 0x88:
      case 0x89:
        return push(Kind::boolean, opcode == 0x88), true;
      case 'J':
        return push(Kind::integer, number<int32_t>()), true;
      case 'K':
        return push(Kind::integer, number<uint8_t>()), true;
      case 'M':
        return push(Kind::integer, number<uint16_t>()), true;
      case 0x8a:
        return push_long(number<uint8_t>()), true;
      case 'G':
        take(8);
        return push(Kind::real), true;
      case 'X':
        return push_text(number<uint32_t>()), true;
      case 0x8c:
        return push_text(number<uint8_t>()), true;
      case '}':
        return push_dict(false), true;
      case ')':
        return push_tuple(stack_.size()), true;
      case 'c': {
        const std::string_view module = line(), name = line();
        return push_global(module, name), true;
      }
      default:
        return false;
    }
  }

  bool memo(unsigned char opcode) {
    switch (opcode) {
      case 'q':
        return remember(number<uint8_t>()), true;
      case 'r':
        return remember(number<uint32_t>()), true;
      case 0x94:
        return remember(memo_.size()), true;
      case 'h':
        return recall(number<uint8_t>()), true;
      case 'j':
        return recall(number<uint32_t>()), true;
      default:
        expect(false, "the pickle has opcode ", static_cast<int>(opcode),
               std::isprint(opcode) ? text(" (`", static_cast<char>(opcode), "`)") : std::string(),
               " at byte ", at_ - 1, ", which a dict of tensors needs not; nothing of it is run");
        return false;
    }
  }

  std::vector<PickledTensor> named_tensors(const Value& value) const {
    expect(value.kind == Kind::dict, "the pickle is ", kind_name(value.kind), "; a dict of tensors is read");
    const auto& items = dicts_[static_cast<size_t>(value.number)].items;
    expect(items.size() <= kMaxTensors, "the dict holds ", items.size(), " tensors; at most ", kMaxTensors,
           " are read");
    std::vector<PickledTensor> named;
    std::set<std::string_view> names;
    for (const auto& [key, item] : items) {
      expect(key.kind == Kind::text, "a key of the dict is ", kind_name(key.kind),
             "; names of tensors are read");
      const std::string_view name = text_of(key);
      expect(item.kind == Kind::tensor, "`", one_line(name, 200), "`: is ", kind_name(item.kind),
             "; a dict of tensors, and of nothing else, is read");
      expect(names.insert(name).second, "`", one_line(name, 200), "`: name twice");
      PickledTensor tensor = tensors_[static_cast<size_t>(item.number)];
      tensor.name = name;
      expect_within(tensor);
      named.push_back(std::move(tensor));
    }
    return named;
  }

  void expect_within(const PickledTensor& tensor) const {
    const std::string where = "`" + one_line(tensor.name, 200) + "`: ";
    expect(tensor.shape.size() == tensor.strides.size(), where, tensor.shape.size(), " sizes and ",
           tensor.strides.size(), " strides");
    // A size of zero makes an empty tensor, but the product of the others must still be a number: LibTorch's
    // own strides are made of it.
    int64_t elements = 8, last = tensor.offset;
    bool fits = tensor.offset >= 0, empty = false;
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      const int64_t size = std::max<int64_t>(tensor.shape[i], 1);
      int64_t reach = 0;
      empty = empty || tensor.shape[i] == 0;
      fits = !__builtin_mul_overflow(elements, size, &elements) && fits;
      fits = !__builtin_mul_overflow(size - 1, tensor.strides[i], &reach) && fits;
      fits = !__builtin_add_overflow(last, reach, &last) && fits;
    }
    elements /= 8;  // of at most 8 bytes
    expect(fits && (empty || last < tensor.storage_elements), where,
           "its shape and strides reach beyond its storage of ", tensor.storage_elements, " elements");
    expect(empty || elements <= tensor.storage_elements, where, "has ", elements, " elements, its storage ",
           tensor.storage_elements, "; tensors that repeat elements are not read");
  }

  std::string_view program_;
  const std::string& who_;
  size_t at_ = 0, items_set_ = 0;
  std::vector<Value> stack_, items_;
  std::vector<size_t> marks_;
  std::unordered_map<size_t, Value> memo_;
  std::vector<Dict> dicts_;
  std::vector<Storage> storages_;
  std::vector<PickledTensor> tensors_;
};

}  // namespace

std::vector<PickledTensor> read_pickled_tensors(std::string_view program, const std::string& who) {
  return Machine(program, who).run();
}

}  // namespace longreach
