#include "safetensors/header.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_set>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::safetensors {
namespace {

using nlohmann::json;

struct Named {
  Type type;
  unsigned bits;
  std::string_view name;
};
// In the order of the enumeration.
constexpr std::array<Named, 20> types = {
    {{Type::boolean, 8, "BOOL"},    {Type::f4, 4, "F4"},           {Type::f6_e2m3, 6, "F6_E2M3"},
     {Type::f6_e3m2, 6, "F6_E3M2"}, {Type::u8, 8, "U8"},           {Type::i8, 8, "I8"},
     {Type::f8_e5m2, 8, "F8_E5M2"}, {Type::f8_e4m3, 8, "F8_E4M3"}, {Type::f8_e8m0, 8, "F8_E8M0"},
     {Type::i16, 16, "I16"},        {Type::u16, 16, "U16"},        {Type::f16, 16, "F16"},
     {Type::bf16, 16, "BF16"},      {Type::i32, 32, "I32"},        {Type::u32, 32, "U32"},
     {Type::f32, 32, "F32"},        {Type::c64, 64, "C64"},        {Type::f64, 64, "F64"},
     {Type::i64, 64, "I64"},        {Type::u64, 64, "U64"}}};

const Named& named(Type type) { return types[static_cast<std::size_t>(type)]; }

/// Bytes of a tensor; false if they cannot be counted or end within a byte.
bool count_bytes(const std::vector<std::uint64_t>& shape, Type type, std::uint64_t& bytes) {
  std::uint64_t bits = bits_of(type);
  // A dimension of 0 makes the product 0, but not one that does not fit acceptable in another order.
  bool empty = false;
  for (const std::uint64_t n : shape) {
    if (n == 0) empty = true;
    if (__builtin_mul_overflow(bits, n == 0 ? 1 : n, &bits)) return false;
  }
  bytes = empty ? 0 : bits / 8;
  return empty || bits % 8 == 0;
}

/// Receives the header's JSON word by word, so that nothing is kept that is not wanted: keys that stand there twice are
/// seen, and depth is bounded by what is expected at each place.
class Words {
 public:
  Words(const std::string& place, Header& header) : place_(place), header_(header) {}

  // Values.
  bool null() { return no_value("null"); }
  bool boolean(bool) { return no_value("a truth value"); }
  bool number_integer(std::int64_t) { return no_value("a number below 0"); }
  bool number_float(double, const std::string&) { return no_value("a number that is not whole or too large"); }
  bool number_unsigned(std::uint64_t value) {
    if (where_ == Where::shape) {
      if (tensor_.shape.size() == most_dimensions) refuse("{} has more than {} dimensions", label(), most_dimensions);
      tensor_.shape.push_back(value);
    } else if (where_ == Where::offsets) {
      if (offsets_ == 2) refuse("data_offsets of {} has more than two numbers", label());
      (offsets_ == 0 ? tensor_.begin : tensor_.end) = value;
      ++offsets_;
    } else {
      return no_value("a number");
    }
    return true;
  }
  bool string(std::string& value) {
    if (where_ == Where::metadata) {
      header_.metadata[key_] = std::move(value);
      return true;
    }
    if (where_ != Where::tensor || field_ != Field::dtype) return no_value("a text");
    const auto found = std::find_if(types.begin(), types.end(), [&](const Named& n) { return n.name == value; });
    if (found == types.end()) refuse("{} has the unknown dtype {}", label(), printable(value));
    tensor_.type = found->type;
    field_ = Field::none;
    return true;
  }
  bool binary(json::binary_t&) { return no_value("binary data"); }

  // Brackets.
  bool start_object(std::size_t) {
    if (where_ == Where::outside) {
      where_ = Where::header;
    } else if (where_ == Where::header) {
      where_ = key_ == "__metadata__" ? Where::metadata : Where::tensor;
      tensor_ = {};
      tensor_.name = key_;
      offsets_ = 0;
      seen_ = 0;
      field_ = Field::none;
    } else {
      return no_value("an object");
    }
    return true;
  }
  bool key(std::string& text) {
    if (where_ == Where::header) {
      if (text.size() > longest_name) refuse("has a name of {} bytes; {} are allowed", text.size(), longest_name);
      if (names_.size() > most_tensors) refuse("has more than {} tensors", most_tensors);
      if (!names_.insert(text).second) refuse("has {} twice", printable(text));
      key_ = std::move(text);
    } else if (where_ == Where::metadata) {
      if (header_.metadata.contains(text)) refuse("has {} twice in __metadata__", printable(text));
      key_ = std::move(text);
    } else {
      field_ = text == "dtype"          ? Field::dtype
               : text == "shape"        ? Field::shape
               : text == "data_offsets" ? Field::offsets
                                        : Field::none;
      if (field_ == Field::none) refuse("{} has a field {}, which the format does not know", label(), printable(text));
      const unsigned bit = 1U << static_cast<unsigned>(field_);
      if ((seen_ & bit) != 0) refuse("{} has {} twice", label(), text);
      seen_ |= bit;
    }
    return true;
  }
  bool end_object() {
    if (where_ == Where::tensor) {
      if (seen_ != 0b1110U) refuse("{} needs dtype, shape and data_offsets", label());
      if (offsets_ != 2) refuse("data_offsets of {} needs two numbers", label());
      header_.tensors.push_back(std::move(tensor_));
    }
    where_ = where_ == Where::header ? Where::outside : Where::header;
    return true;
  }
  bool start_array(std::size_t) {
    if (where_ != Where::tensor || (field_ != Field::shape && field_ != Field::offsets)) return no_value("a list");
    where_ = field_ == Field::shape ? Where::shape : Where::offsets;
    return true;
  }
  bool end_array() {
    where_ = Where::tensor;
    field_ = Field::none;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const json::exception&) {
    refuse("its header is no JSON: it breaks off or goes wrong at byte {}", position);
  }

  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::checkpoint, "{}: is no safetensors file, or a damaged one: {}", printable(place_),
         fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  enum class Where { outside, header, metadata, tensor, shape, offsets };
  enum class Field : unsigned { none, dtype, shape, offsets };

  [[nodiscard]] std::string label() const { return printable(tensor_.name); }
  bool no_value(const char* what) const {
    if (where_ == Where::outside) refuse("its header is {}; expected an object", what);
    if (where_ == Where::header) refuse("{} is {}; expected an object", printable(key_), what);
    if (where_ == Where::metadata) refuse("{} in __metadata__ is {}; expected a text", printable(key_), what);
    const char* field = field_ == Field::dtype ? "dtype" : field_ == Field::shape ? "shape" : "data_offsets";
    refuse("{} of {} is or holds {}", field, label(), what);
  }

  const std::string& place_;
  Header& header_;
  Where where_ = Where::outside;
  Field field_ = Field::none;
  Tensor tensor_;
  int offsets_ = 0;
  unsigned seen_ = 0;
  std::string key_;
  std::unordered_set<std::string> names_;
};

}  // namespace

unsigned bits_of(Type type) noexcept { return named(type).bits; }
std::string_view to_string(Type type) noexcept { return named(type).name; }

const Tensor* Header::find(std::string_view name) const {
  for (const Tensor& tensor : tensors)
    if (tensor.name == name) return &tensor;
  return nullptr;
}

std::uint64_t header_length(const unsigned char (&first)[8], std::uint64_t file_bytes, const std::string& place) {
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | first[i];
  if (file_bytes < 8 || length > longest_header || length > file_bytes - 8)
    fail(ErrorKind::checkpoint,
         "{}: is no safetensors file, or a damaged one: its header of {} bytes does not lie in the file of {} bytes",
         printable(place), length, file_bytes);
  return length;
}

Header parse_header(std::string_view text, std::uint64_t data_bytes, const std::string& place) {
  Header header;
  header.data_begin = 8 + text.size();
  Words words(place, header);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  if (text.empty() || text.front() != '{' || text.back() != '}')
    words.refuse("its header is no JSON object, or one with something before or behind it");
  // To the parser a NUL is the text's end.
  if (text.find('\0') != std::string_view::npos) words.refuse("its header has a NUL byte");
  json::sax_parse(text, &words);
  std::vector<Tensor>& tensors = header.tensors;
  // An empty tensor stands before one that begins where it does.
  std::sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t end = 0;
  for (const Tensor& tensor : tensors) {
    const std::string label = printable(tensor.name);
    std::uint64_t bytes = 0;
    if (tensor.end < tensor.begin) words.refuse("{} ends before it begins", label);
    if (!count_bytes(tensor.shape, tensor.type, bytes))
      words.refuse("the shape of {} has more bytes than can be counted, or ends within a byte", label);
    if (bytes != tensor.bytes()) words.refuse("{} has {} bytes, its shape {}", label, tensor.bytes(), bytes);
    if (tensor.begin != end)
      words.refuse("{} begins at byte {} of the data, the tensor before it ends at {}", label, tensor.begin, end);
    end = tensor.end;
  }
  if (end != data_bytes) words.refuse("its tensors end at byte {} of the data, the file at {}", end, data_bytes);
  return header;
}

std::string lay_out(std::vector<Tensor>& tensors, const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) {
    const unsigned wide = bits_of(a.type), other = bits_of(b.type);
    return wide != other ? wide > other : a.name < b.name;
  });
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  if (!metadata.empty()) object["__metadata__"] = metadata;
  std::string text = object.dump();
  std::set<std::string_view> names;
  std::uint64_t end = 0;
  // Put together by hand: a lookup of each new key would make many tensors slow.
  text.pop_back();
  for (Tensor& tensor : tensors) {
    std::uint64_t bytes = 0;
    require(tensor.name.size() <= longest_name && tensor.shape.size() <= most_dimensions,
            "safetensors: a name or shape is longer than what is read");
    require(names.insert(tensor.name).second && tensor.name != "__metadata__",
            "safetensors: a name stands there twice");
    require(count_bytes(tensor.shape, tensor.type, bytes), "safetensors: a shape that cannot be counted");
    tensor.begin = end;
    require(!__builtin_add_overflow(end, bytes, &end), "safetensors: more bytes than can be counted");
    tensor.end = end;
    if (text.size() > 1) text += ',';
    text += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", json(tensor.name).dump(),
                        to_string(tensor.type), fmt::join(tensor.shape, ","), tensor.begin, tensor.end);
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  require(text.size() <= longest_header && tensors.size() <= most_tensors, "safetensors: more tensors than are read");
  std::string first(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) first[i] = static_cast<char>(text.size() >> (8 * i) & 0xFFU);
  return first + text;
}

}  // namespace lockstep::safetensors
