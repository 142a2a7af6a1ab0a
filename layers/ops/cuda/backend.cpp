// dlopen with RTLD_GLOBAL: the plug-in and ATen's CUDA operators share one c10_cuda.
#include "layers/ops/cuda/backend.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include <atomic>
#include <memory>

#include "core/error.h"

namespace longreach::cuda {
namespace {

void* open_library(const char* name, const char* way_out) {
  void* library = ::dlopen(name, RTLD_NOW | RTLD_GLOBAL);
  if (library != nullptr) return library;
  throw UserError(text("CUDA: ", one_line(::dlerror(), 300), "; ", way_out));
}

void* look_up(const char* name) {
  void* plugin = open_library("liblongreach_cuda.so", "it is built on machines with nvcc");
  void* found = ::dlsym(plugin, name);
  check<UserError>(found != nullptr, "CUDA: liblongreach_cuda.so is not of this version: no ", name);
  return found;
}

template <class Function>
Function find_in_plugin(const char* name) {
  return reinterpret_cast<Function>(look_up(name));
}

MakeBackend load_libraries() {
  open_library("libtorch_cuda.so",
               "it comes with the full LibTorch set-up, which ./longreach takes on machines with nvcc");
  return find_in_plugin<MakeBackend>(kMakeBackend);
}

MakeBackend maker() {
  static const MakeBackend made = load_libraries();
  return made;
}

std::atomic<Backend*> replacement{nullptr};

}  // namespace

void load() { maker(); }

void replace_backend(Backend* other) { replacement = other; }
bool backend_is_replaced() { return replacement != nullptr; }

Backend& backend() {
  if (Backend* other = replacement) return *other;
  static const std::unique_ptr<Backend> made(maker()());
  return *made;
}

std::string libraries() { return find_in_plugin<Libraries>(kLibraries)(); }

void* exported(const char* name) {
  load();
  return look_up(name);
}

std::string static_table() { return find_in_plugin<StaticTable>(kStaticTable)(); }

}  // namespace longreach::cuda
