// Bounded, checked calls of the HDF5 C library.
#include "data/corpora/hdf5.h"

#include <algorithm>

#include "core/error.h"

namespace longreach::data::h5 {
namespace {

constexpr size_t kLongestText = 1 << 16;

void require(bool ok, const std::string& path, const char* what, const char* name) {
  check<DamagedFile>(ok, path, ": ", what, " `", name, "`; the file is damaged or not a token store");
}

// The first cause of the last failure in the library's own words; of a failed system call, the system's.
std::string reason() {
  std::string first;
  const auto take = [](unsigned, const H5E_error2_t* error, void* to) -> herr_t {
    if (error->desc != nullptr) *static_cast<std::string*>(to) = error->desc;
    return 1;  // enough
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take, &first);
  constexpr std::string_view kSystem = "error message = '";
  if (const size_t at = first.find(kSystem); at != std::string::npos) {
    first.erase(0, at + kSystem.size());
    first.resize(std::min(first.find('\''), first.size()));
  }
  return first.empty() ? "no reason given" : one_line(first, 200);
}

void require_written(bool ok, const std::string& path) {
  check<DataError>(ok, path, ": cannot be written (", ok ? "" : reason(), "); is the disk full?");
}

// Where the file system has no locks the library would refuse to open a file at all. Who may write and read
// is settled outside of it (FileLock, SharedLock).
Handle without_locks() {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(access.id(), false, true);
#endif
  return access;
}

bool in_copy = false;  // this process is one that apart() forked

Handle range_of(const Dataset& dataset, int64_t begin, int64_t count) {
  Handle space(H5Dget_space(dataset.id.id()), H5Sclose);
  const hsize_t start[1] = {static_cast<hsize_t>(begin)}, size[1] = {static_cast<hsize_t>(count)};
  H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, start, nullptr, size, nullptr);
  return space;
}

Handle vector_space(int64_t count) {
  const hsize_t size[1] = {static_cast<hsize_t>(count)};
  return Handle(H5Screate_simple(1, size, nullptr), H5Sclose);
}

}  // namespace

Lock::Lock() {
  static std::recursive_mutex mutex;
  // The thread that forked a copy holds the lock there too, but under a number that is no longer its own.
  if (!in_copy) held_ = std::unique_lock(mutex);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // a setting of each thread
}

bool Handle::reset() {
  if (id_ < 0) return true;
  Lock lock;
  return close_(std::exchange(id_, -1)) >= 0;
}

std::string apart(const std::function<std::string()>& work, const WorkLimits& limits) {
  const Lock lock;  // no other thread is inside the library while it is copied
  return run_forked(
      [&] {
        in_copy = true;
        return work();
      },
      limits);
}

Handle open_file(const std::string& path) {
  const Handle access = without_locks();
  check<DamagedFile>(H5Fis_hdf5(path.c_str()) > 0, path, ": is not an HDF5 file");
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()), H5Fclose);
  check<DamagedFile>(static_cast<bool>(file), path, ": HDF5 cannot open it (", file ? "" : reason(),
                     "); it was cut short or is damaged");
  return file;
}

bool has(hid_t file, const char* name) { return H5Lexists(file, name, H5P_DEFAULT) > 0; }

Dataset open_dataset(const Handle& file, const std::string& path, const char* name) {
  Dataset dataset;
  require(has(file.id(), name), path, "has no dataset", name);
  Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
  H5Pset_chunk_cache(access.id(), 521, 8 << 20, 1.0);  // 1.0: chunks read in whole go first
  dataset.id = Handle(H5Dopen2(file.id(), name, access.id()), H5Dclose);
  require(static_cast<bool>(dataset.id), path, "cannot open dataset", name);
  const Handle space(H5Dget_space(dataset.id.id()), H5Sclose);
  const Handle type(H5Dget_type(dataset.id.id()), H5Tclose);
  const Handle layout(H5Dget_create_plist(dataset.id.id()), H5Pclose);
  require(space && type && layout, path, "cannot read the header of dataset", name);
  hsize_t length[1] = {0};
  require(H5Sget_simple_extent_ndims(space.id()) == 1 &&
              H5Sget_simple_extent_dims(space.id(), length, nullptr) == 1 && length[0] < (hsize_t{1} << 56),
          path, "wrong shape of dataset", name);
  dataset.length = static_cast<int64_t>(length[0]);
  dataset.element_size = static_cast<int64_t>(H5Tget_size(type.id()));
  require(H5Tget_class(type.id()) == H5T_INTEGER && dataset.element_size <= 8 &&
              (dataset.element_size == 1 || H5Tget_order(type.id()) == H5T_ORDER_LE),
          path, "wrong type of dataset", name);
  dataset.is_signed = H5Tget_sign(type.id()) == H5T_SGN_2;
  hsize_t chunk[1] = {0};
  require(H5Pget_layout(layout.id()) == H5D_CHUNKED && H5Pget_chunk(layout.id(), 1, chunk) == 1 &&
              chunk[0] > 0 && chunk[0] <= (hsize_t{1} << 31),
          path, "wrong layout of dataset", name);
  dataset.chunk = static_cast<int64_t>(chunk[0]);
  const int filters = H5Pget_nfilters(layout.id());
  unsigned flags = 0, config = 0;
  size_t options = 0;
  require(filters == 0 || (filters == 1 && H5Pget_filter2(layout.id(), 0, &flags, &options, nullptr, 0,
                                                          nullptr, &config) == H5Z_FILTER_DEFLATE),
          path, "a filter other than gzip on dataset", name);
  dataset.compressed = filters > 0;
  return dataset;
}

std::vector<Chunk> list_chunks(const Dataset& dataset, const std::string& path, int64_t file_bytes) {
  const int64_t expected = (dataset.length + dataset.chunk - 1) / dataset.chunk;
  const Handle space(H5Dget_space(dataset.id.id()), H5Sclose);
  hsize_t stored = 0;
  const bool counted = H5Dget_num_chunks(dataset.id.id(), space.id(), &stored) >= 0;
  check<DamagedFile>(counted && stored == static_cast<hsize_t>(expected), path, ": has ", stored, " of ",
                     expected, " chunks of a dataset; the file is damaged");
  if (expected > kMostListedChunks) return {};
  std::vector<Chunk> chunks(static_cast<size_t>(expected), Chunk{-1});
  for (hsize_t i = 0; i < stored; ++i) {
    hsize_t begin[1] = {0}, bytes = 0;
    unsigned unfiltered = 0;
    haddr_t place = HADDR_UNDEF;
    const bool found =
        H5Dget_chunk_info(dataset.id.id(), space.id(), i, begin, &unfiltered, &place, &bytes) >= 0;
    const hsize_t number = begin[0] / static_cast<hsize_t>(dataset.chunk);
    const auto end = static_cast<hsize_t>(file_bytes);
    const bool packed = dataset.compressed && (unfiltered & 1) == 0;
    const hsize_t whole = static_cast<hsize_t>(dataset.chunk) * static_cast<hsize_t>(dataset.element_size);
    check<DamagedFile>(found && number < stored && bytes <= end && place <= end - bytes &&
                           (packed ? bytes > 0 : bytes == whole),
                       path, ": chunk ", i, " of a dataset lies outside the file; the file is damaged");
    chunks[number] = {static_cast<int64_t>(place), static_cast<int64_t>(bytes), packed};
  }
  check<DamagedFile>(std::none_of(chunks.begin(), chunks.end(), [](auto& chunk) { return chunk.place < 0; }),
                     path, ": a chunk of a dataset is missing; the file is damaged");
  return chunks;
}

void read(const Dataset& dataset, const std::string& path, int64_t begin, int64_t count, hid_t memory_type,
          void* out) {
  if (count == 0) return;
  const Handle from = range_of(dataset, begin, count), to = vector_space(count);
  const bool ok = H5Dread(dataset.id.id(), memory_type, to.id(), from.id(), H5P_DEFAULT, out) >= 0;
  check<DamagedFile>(ok, path, ": elements ", begin, " to ", begin + count,
                     " cannot be read; the file is damaged");
}

int64_t read_int(const Handle& file, const std::string& path, const char* attribute) {
  const Handle id(H5Aopen(file.id(), attribute, H5P_DEFAULT), H5Aclose);
  require(static_cast<bool>(id), path, "has no attribute", attribute);
  const Handle space(H5Aget_space(id.id()), H5Sclose), type(H5Aget_type(id.id()), H5Tclose);
  int64_t value = 0;
  require(H5Sget_simple_extent_npoints(space.id()) == 1 && H5Tget_class(type.id()) == H5T_INTEGER &&
              H5Aread(id.id(), H5T_NATIVE_INT64, &value) >= 0,
          path, "cannot read attribute", attribute);
  return value;
}

std::string read_text(const Handle& file, const std::string& path, const char* attribute) {
  const Handle id(H5Aopen(file.id(), attribute, H5P_DEFAULT), H5Aclose);
  require(static_cast<bool>(id), path, "has no attribute", attribute);
  const Handle space(H5Aget_space(id.id()), H5Sclose), type(H5Aget_type(id.id()), H5Tclose);
  const size_t size = H5Tget_size(type.id());
  require(H5Sget_simple_extent_npoints(space.id()) == 1 && H5Tget_class(type.id()) == H5T_STRING &&
              H5Tis_variable_str(type.id()) == 0 && size <= kLongestText,
          path, "cannot read attribute", attribute);
  std::string value(size, '\0');
  require(H5Aread(id.id(), type.id(), value.data()) >= 0, path, "cannot read attribute", attribute);
  value.resize(std::min(value.find('\0'), value.size()));
  return value;
}

Handle create_file(const std::string& path) {
  const Handle access = without_locks();
  // The 1.10 format checksums its own metadata and indexes the chunks of a growing vector by an array, not a
  // tree.
  H5Pset_libver_bounds(access.id(), H5F_LIBVER_V110, H5F_LIBVER_V110);
  const Handle root(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_obj_track_times(root.id(), false);  // the same tokens give the same file, whenever
  Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, root.id(), access.id()), H5Fclose);
  require_written(static_cast<bool>(file), path);
  return file;
}

Dataset create_dataset(const Handle& file, const std::string& path, const char* name, hid_t type,
                       int64_t length, int64_t chunk, int gzip_level) {
  Dataset dataset;
  dataset.length = length;
  dataset.chunk = chunk;
  const hsize_t size[1] = {static_cast<hsize_t>(length)}, limit[1] = {H5S_UNLIMITED};
  const hsize_t chunks[1] = {static_cast<hsize_t>(chunk)};
  const Handle space(H5Screate_simple(1, size, limit), H5Sclose),
      layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_chunk(layout.id(), 1, chunks);
  H5Pset_obj_track_times(layout.id(), false);
  if (gzip_level > 0) H5Pset_deflate(layout.id(), static_cast<unsigned>(gzip_level));
  dataset.id =
      Handle(H5Dcreate2(file.id(), name, type, space.id(), H5P_DEFAULT, layout.id(), H5P_DEFAULT), H5Dclose);
  require_written(static_cast<bool>(dataset.id), path);
  return dataset;
}

void write(const Dataset& dataset, const std::string& path, int64_t begin, int64_t count, hid_t memory_type,
           const void* values) {
  if (count == 0) return;
  const Handle to = range_of(dataset, begin, count), from = vector_space(count);
  require_written(H5Dwrite(dataset.id.id(), memory_type, from.id(), to.id(), H5P_DEFAULT, values) >= 0, path);
}

void finish_file(Handle& file, const std::string& path) { require_written(file.reset(), path); }

void write_int(const Handle& file, const std::string& path, const char* attribute, int64_t value) {
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle id(H5Acreate2(file.id(), attribute, H5T_STD_I64LE, space.id(), H5P_DEFAULT, H5P_DEFAULT),
                  H5Aclose);
  require_written(id && H5Awrite(id.id(), H5T_NATIVE_INT64, &value) >= 0, path);
}

void write_text(const Handle& file, const std::string& path, const char* attribute,
                const std::string& value) {
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose), space(H5Screate(H5S_SCALAR), H5Sclose);
  H5Tset_size(type.id(), std::clamp<size_t>(value.size(), 1, kLongestText));
  const std::string padded = value.empty() ? std::string(1, '\0') : value;
  const Handle id(H5Acreate2(file.id(), attribute, type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT),
                  H5Aclose);
  require_written(id && H5Awrite(id.id(), type.id(), padded.data()) >= 0, path);
}

}  // namespace longreach::data::h5
