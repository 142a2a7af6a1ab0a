// The HDF5 C library in RAII: handles that close themselves, one lock around every call (the library may be
// built without thread safety), its error printing silenced, and the few reads and writes the token store
// needs, with bounds.
//
// The library crashes or loops on some damaged files, and in its exit handler after a write that failed. So a
// forked copy of the process (data/corpora/forked.h) calls it: apart() for a task, whose end leaves nothing
// behind.
#pragma once
#include <hdf5.h>

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "data/corpora/forked.h"

namespace longreach::data::h5 {

// Hold one while calling the library. Recursive: handles take it when they close.
class Lock {
 public:
  Lock();

 private:
  std::unique_lock<std::recursive_mutex> held_;
};

class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      reset();
      id_ = std::exchange(other.id_, -1);
      close_ = other.close_;
    }
    return *this;
  }
  hid_t id() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  // False when closing failed, which for a file being written means that data did not reach the disk.
  bool reset();

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

// Runs `work`, which calls the library, in a forked copy of this process that holds no lock of another
// thread. Throws what `work` throws, and WorkDied.
std::string apart(const std::function<std::string()>& work, const WorkLimits& limits);

struct Chunk {
  int64_t place = 0, bytes = 0;  // in the file
  bool packed = false;           // by gzip, which leaves what it cannot make smaller as it is
};

// A dataset of one dimension, opened and described. Every failure is a DamagedFile that begins with `path`.
struct Dataset {
  Handle id;
  int64_t length = 0;
  int64_t chunk = 0;  // elements a chunk
  int64_t element_size = 0;
  bool is_signed = false;
  bool compressed = false;
};

Handle open_file(const std::string& path);
bool has(hid_t file, const char* name);
// Checks that it is a one-dimensional dataset of little-endian integers in chunks, uncompressed or deflate
// only.
Dataset open_dataset(const Handle& file, const std::string& path, const char* name);
// Walks the index of the chunks: every one must be there and lie inside `file_bytes`. Returns their places in
// order; of more than kMostListedChunks none.
std::vector<Chunk> list_chunks(const Dataset& dataset, const std::string& path, int64_t file_bytes);
// The library finds chunk i in time i, so the list costs the square of its length: 0.5 s at this number (of
// chunks of tokens: a billion tokens).
inline constexpr int64_t kMostListedChunks = 16384;
// Reads [begin, begin + count) as `memory_type`.
void read(const Dataset& dataset, const std::string& path, int64_t begin, int64_t count, hid_t memory_type,
          void* out);

int64_t read_int(const Handle& file, const std::string& path, const char* attribute);
std::string read_text(const Handle& file, const std::string& path, const char* attribute);

Handle create_file(const std::string& path);
// Extendible, in chunks of `chunk` elements; gzip_level 0: uncompressed.
Dataset create_dataset(const Handle& file, const std::string& path, const char* name, hid_t type,
                       int64_t length, int64_t chunk, int gzip_level);
void write(const Dataset& dataset, const std::string& path, int64_t begin, int64_t count, hid_t memory_type,
           const void* values);
// Closes: what the library still holds reaches the disk here.
void finish_file(Handle& file, const std::string& path);
void write_int(const Handle& file, const std::string& path, const char* attribute, int64_t value);
void write_text(const Handle& file, const std::string& path, const char* attribute, const std::string& value);

}  // namespace longreach::data::h5
