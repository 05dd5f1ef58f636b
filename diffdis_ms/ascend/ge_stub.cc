// The classes of CANN whose objects MindSpore reads back in a dry run: an operator that keeps its attributes.
// Strings have the form of before C++11, as in MindSpore's plugin. `stubs.py` compiles this.
#include <any>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>
#define API __attribute__((visibility("default")))

namespace ge {
using Str = std::string;
enum DataType : int {};

struct API AscendString {
  AscendString(const char *s);
  const char *GetString() const;
  std::shared_ptr<Str> text;
};
AscendString::AscendString(const char *s) : text(std::make_shared<Str>(s ? s : "")) {}
const char *AscendString::GetString() const { return text ? text->c_str() : ""; }

using Values = std::map<Str, std::any>;

// Each type of attribute: T, and how it is passed.
#define TYPES(X)                                                                                              \
  X(bool, bool) X(float, float) X(int32_t, int32_t) X(uint32_t, uint32_t) X(int64_t, int64_t)                 \
  X(DataType, const DataType &) X(std::vector<DataType>, const std::vector<DataType> &)                       \
  X(std::vector<std::vector<int64_t>>, const std::vector<std::vector<int64_t>> &)                             \
  X(std::vector<float>, const std::vector<float> &) X(std::vector<bool>, const std::vector<bool> &)           \
  X(std::vector<int64_t>, const std::vector<int64_t> &) X(std::vector<int32_t>, const std::vector<int32_t> &) \
  X(std::vector<Str>, const std::vector<Str> &) X(std::vector<AscendString>, const std::vector<AscendString> &) \
  X(Str, const Str &)

#define DECLARE(T, IN)                         \
  Operator &SetAttr(const char *name, IN value); \
  Operator &SetAttr(const Str &name, IN value);  \
  void AttrRegister(const char *name, IN value); \
  unsigned GetAttr(const char *name, T &value) const; \
  unsigned GetAttr(const Str &name, T &value) const;

struct API Operator {
  Operator(const char *name, const char *type);
  Operator(const AscendString &name, const AscendString &type);
  Operator(const Str &name, const Str &type);
  virtual ~Operator() = default;
  // clang-format off
  TYPES(DECLARE)
  // clang-format on
  Operator &SetAttr(const char *name, const char *value);
  void AttrRegister(const char *name, const AscendString &value);

  template <typename T>
  Operator &put(const Str &name, T value) {
    (*values)[name] = value;
    return *this;
  }
  template <typename T>
  unsigned take(const Str &name, T &value) const {
    auto place = values->find(name);
    auto found = place == values->end() ? nullptr : std::any_cast<T>(&place->second);
    if (found) value = *found;
    return found ? 0 : 1;
  }
  std::shared_ptr<Values> values;
};
Operator::Operator(const char *, const char *) : values(std::make_shared<Values>()) {}
Operator::Operator(const AscendString &, const AscendString &) : values(std::make_shared<Values>()) {}
Operator::Operator(const Str &, const Str &) : values(std::make_shared<Values>()) {}

#define DEFINE(T, IN)                                                                           \
  Operator &Operator::SetAttr(const char *name, IN value) { return put<T>(name, value); }       \
  Operator &Operator::SetAttr(const Str &name, IN value) { return put<T>(name, value); }        \
  void Operator::AttrRegister(const char *name, IN value) { put<T>(name, value); }              \
  unsigned Operator::GetAttr(const char *name, T &value) const { return take<T>(name, value); } \
  unsigned Operator::GetAttr(const Str &name, T &value) const { return take<T>(name, value); }
TYPES(DEFINE)
Operator &Operator::SetAttr(const char *name, const char *value) { return put<Str>(name, value); }
void Operator::AttrRegister(const char *name, const AscendString &value) { put<Str>(name, value.GetString()); }

using Maker = std::function<Operator(const AscendString &)>;
static std::map<Str, Maker> &makers() {
  static auto *all = new std::map<Str, Maker>;
  return *all;
}
struct API OperatorCreatorRegister {
  OperatorCreatorRegister(const char *type, const Maker &maker);
};
OperatorCreatorRegister::OperatorCreatorRegister(const char *type, const Maker &maker) { makers()[type] = maker; }
struct API OperatorFactory {
  static Operator CreateOperator(const char *name, const char *type);
};
Operator OperatorFactory::CreateOperator(const char *name, const char *type) {
  auto found = makers().find(type);
  return found == makers().end() ? Operator(name, type) : found->second(AscendString(name));
}
}  // namespace ge

// In a dry run MindSpore's chip has no name: give it one, by MindSpore's own setters. Returns 0, or what failed.
extern "C" API int name_chip(const char *core, const char *name, const char *version) {
  using Read = std::string (*)(const void *);
  using Set = void (*)(void *, const std::string &);
  void *lib = dlopen(core, RTLD_LAZY | RTLD_NOLOAD);
  if (!lib) return 1;
  auto find = [lib](const char *symbol) { return dlsym(lib, symbol); };
  auto get = reinterpret_cast<std::shared_ptr<char> (*)()>(find("_ZN9mindspore9MsContext11GetInstanceEv"));
  auto read = reinterpret_cast<Read>(find("_ZNK9mindspore9MsContext18ascend_soc_versionEv"));
  auto set_name = reinterpret_cast<Set>(find("_ZN9mindspore9MsContext19set_ascend_soc_nameERKSs"));
  auto set_version = reinterpret_cast<Set>(find("_ZN9mindspore9MsContext22set_ascend_soc_versionERKSs"));
  if (!get || !read || !set_name || !set_version) return 2;
  auto context = get();
  read(context.get());  // the first read lets MindSpore set its own name, which is empty
  set_name(context.get(), name);
  set_version(context.get(), version);
  return read(context.get()) == version ? 0 : 3;
}
