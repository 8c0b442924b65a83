#pragma once

#include <atomic>

#include "files/file_system.hpp"

namespace lockstep::run {

/// Another disk that can be made to fail: a full one or a broken one, for rehearsals (Faults).
class FaultDisk final : public files::FileSystem {
 public:
  explicit FaultDisk(files::FileSystem& disk) : disk_(disk) {}
  /// From now on whatever would put something on the disk fails with this errno; what is there can still be read and
  /// removed. 0: all is well again.
  void fail_with(int error) { error_ = error; }

  int create(const std::string& path) override { return error_ != 0 ? -error_ : disk_.create(path); }
  int open(const std::string& path, bool follow) override { return disk_.open(path, follow); }
  ssize_t write(int file, const void* data, std::size_t bytes) override {
    return error_ != 0 ? -error_ : disk_.write(file, data, bytes);
  }
  ssize_t read_at(int file, void* to, std::size_t bytes, std::uint64_t offset) override {
    return disk_.read_at(file, to, bytes, offset);
  }
  int status_of(int file, files::Status& status) override { return disk_.status_of(file, status); }
  int sync(int file) override { return error_ != 0 ? -error_ : disk_.sync(file); }
  int close(int file) override { return disk_.close(file); }
  int status(const std::string& path, bool follow, files::Status& status) override {
    return disk_.status(path, follow, status);
  }
  int list(const std::string& folder, std::vector<std::string>& names) override { return disk_.list(folder, names); }
  int make_folder(const std::string& path) override { return error_ != 0 ? -error_ : disk_.make_folder(path); }
  int rename(const std::string& from, const std::string& to) override {
    return error_ != 0 ? -error_ : disk_.rename(from, to);
  }
  int unlink(const std::string& path) override { return disk_.unlink(path); }
  int remove_folder(const std::string& path) override { return disk_.remove_folder(path); }
  int sync_folder(const std::string& path) override { return disk_.sync_folder(path); }
  int free_bytes(const std::string& path, std::uint64_t& bytes) override { return disk_.free_bytes(path, bytes); }

 private:
  files::FileSystem& disk_;
  std::atomic<int> error_{0};
};

}  // namespace lockstep::run
