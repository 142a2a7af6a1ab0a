// Bounded, checked calls of the HDF5 C library.
#include "data/hdf5.h"

#include <algorithm>

#include "core/error.h"

namespace longreach::data::h5 {
namespace {

constexpr size_t kLongestText = 1 << 16;

void require(bool ok, const std::string& path, const char* what, const char* name) {
  check<DataError>(ok, path, ": ", what, " `", name, "`; the file is damaged or not a token store");
}

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
  held_ = std::unique_lock(mutex);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // a setting of each thread
}

bool Handle::reset() {
  if (id_ < 0) return true;
  Lock lock;
  return close_(std::exchange(id_, -1)) >= 0;
}

Handle open_file(const std::string& path) {
  check<DataError>(H5Fis_hdf5(path.c_str()) > 0, path, ": is not an HDF5 file");
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  check<DataError>(static_cast<bool>(file), path, ": HDF5 cannot open it; it was cut short or is damaged");
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
  dataset.element_size = H5Tget_size(type.id());
  require(H5Tget_class(type.id()) == H5T_INTEGER && dataset.element_size <= 8 &&
              (dataset.element_size == 1 || H5Tget_order(type.id()) == H5T_ORDER_LE),
          path, "wrong type of dataset", name);
  dataset.is_signed = H5Tget_sign(type.id()) == H5T_SGN_2;
  const H5D_layout_t kind = H5Pget_layout(layout.id());
  require((kind == H5D_CHUNKED || kind == H5D_CONTIGUOUS) && H5Pget_external_count(layout.id()) == 0, path,
          "wrong layout of dataset", name);
  hsize_t chunk[1] = {0};
  if (kind == H5D_CHUNKED)
    require(H5Pget_chunk(layout.id(), 1, chunk) == 1, path, "wrong chunks of dataset", name);
  dataset.chunk = static_cast<int64_t>(chunk[0]);
  const int filters = H5Pget_nfilters(layout.id());
  for (int i = 0; i < filters; ++i) {
    unsigned flags = 0, config = 0;
    size_t options = 0;
    const auto filter =
        H5Pget_filter2(layout.id(), static_cast<unsigned>(i), &flags, &options, nullptr, 0, nullptr, &config);
    require(filter == H5Z_FILTER_DEFLATE, path, "a filter other than gzip on dataset", name);
  }
  dataset.compressed = filters > 0;
  return dataset;
}

void read(const Dataset& dataset, const std::string& path, int64_t begin, int64_t count, hid_t memory_type,
          void* out) {
  if (count == 0) return;
  const Handle from = range_of(dataset, begin, count), to = vector_space(count);
  const bool ok = H5Dread(dataset.id.id(), memory_type, to.id(), from.id(), H5P_DEFAULT, out) >= 0;
  check<DataError>(ok, path, ": elements ", begin, " to ", begin + count,
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
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  // The 1.10 format checksums its own metadata and indexes the chunks of a growing vector by an array, not a
  // tree.
  H5Pset_libver_bounds(access.id(), H5F_LIBVER_V110, H5F_LIBVER_V110);
  const Handle root(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_obj_track_times(root.id(), false);  // the same tokens give the same file, whenever
  Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, root.id(), access.id()), H5Fclose);
  check<DataError>(static_cast<bool>(file), path, ": cannot be written");
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
  check<DataError>(static_cast<bool>(dataset.id), path, ": dataset `", name,
                   "` cannot be written; is the disk full?");
  return dataset;
}

void write(const Dataset& dataset, const std::string& path, int64_t begin, int64_t count, hid_t memory_type,
           const void* values) {
  if (count == 0) return;
  const Handle to = range_of(dataset, begin, count), from = vector_space(count);
  check<DataError>(H5Dwrite(dataset.id.id(), memory_type, from.id(), to.id(), H5P_DEFAULT, values) >= 0, path,
                   ": cannot be written; is the disk full?");
}

void write_int(const Handle& file, const std::string& path, const char* attribute, int64_t value) {
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle id(H5Acreate2(file.id(), attribute, H5T_STD_I64LE, space.id(), H5P_DEFAULT, H5P_DEFAULT),
                  H5Aclose);
  check<DataError>(id && H5Awrite(id.id(), H5T_NATIVE_INT64, &value) >= 0, path, ": cannot be written");
}

void write_text(const Handle& file, const std::string& path, const char* attribute,
                const std::string& value) {
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose), space(H5Screate(H5S_SCALAR), H5Sclose);
  H5Tset_size(type.id(), std::clamp<size_t>(value.size(), 1, kLongestText));
  const std::string padded = value.empty() ? std::string(1, '\0') : value;
  const Handle id(H5Acreate2(file.id(), attribute, type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT),
                  H5Aclose);
  check<DataError>(id && H5Awrite(id.id(), type.id(), padded.data()) >= 0, path, ": cannot be written");
}

}  // namespace longreach::data::h5
