#pragma once

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "files/file_system.hpp"

namespace lockstep::testing {

/// What becomes of bytes that were written and not flushed when the power fails; the four of SQLite's crash tests.
enum class Unsynced { kept, dropped, torn, garbage };
/// And of entries of folders that were not flushed; mixed: of one folder so, of the next otherwise.
enum class Entries { kept, dropped, mixed };

/// A disk in memory that tells what was flushed from what was not, and stops after any operation: from then on nothing
/// changes and every operation fails, as for a process whose machine is gone.
class CrashDisk final : public files::FileSystem {
 public:
  CrashDisk() = default;

  /// After so many more operations that change something.
  void cut_after(int operations) { left_ = operations; }
  [[nodiscard]] int operations() const { return operations_; }
  /// What a machine finds that starts again: a disk of its own, all of it flushed.
  [[nodiscard]] std::unique_ptr<CrashDisk> after_crash(Unsynced bytes, Entries entries) const {
    auto disk = std::make_unique<CrashDisk>();
    int folders = 0;
    disk->root_ = survivor(*root_, bytes, entries, folders);
    return disk;
  }
  /// The bytes of a file, to be read and changed behind the file system's back; null if there is none.
  std::string* bytes_of(const std::string& path) {
    const std::shared_ptr<Node> node = find(path);
    return node == nullptr || node->folder ? nullptr : &node->bytes;
  }
  [[nodiscard]] std::vector<std::string> names(const std::string& folder) {
    std::vector<std::string> result;
    (void)list(folder, result);
    std::sort(result.begin(), result.end());
    return result;
  }

  int create(const std::string& path) override {
    const Step step(*this);
    if (!step.allowed) return -EIO;
    const auto [parent, name] = place_of(path);
    if (parent == nullptr) return -ENOENT;
    std::shared_ptr<Node>& node = parent->entries[name];
    if (node == nullptr) node = std::make_shared<Node>();
    if (node->folder) return -EISDIR;
    node->bytes.clear();
    return open_node(node);
  }
  int open(const std::string& path, bool) override {
    const std::lock_guard lock(mutex_);
    const std::shared_ptr<Node> node = find(path);
    return node == nullptr ? -ENOENT : open_node(node);
  }
  ssize_t write(int file, const void* data, std::size_t bytes) override {
    const Step step(*this);
    if (!step.allowed) return -EIO;
    open_.at(file)->bytes.append(static_cast<const char*>(data), bytes);
    return static_cast<ssize_t>(bytes);
  }
  ssize_t read_at(int file, void* to, std::size_t bytes, std::uint64_t offset) override {
    const std::lock_guard lock(mutex_);
    const std::string& from = open_.at(file)->bytes;
    if (offset >= from.size()) return 0;
    return static_cast<ssize_t>(from.copy(static_cast<char*>(to), bytes, offset));
  }
  int status_of(int file, files::Status& status) override {
    const std::lock_guard lock(mutex_);
    status = status_from(*open_.at(file));
    return 0;
  }
  int sync(int file) override {
    const Step step(*this);
    if (!step.allowed) return -EIO;
    open_.at(file)->flushed = open_.at(file)->bytes;
    return 0;
  }
  int close(int file) override {
    const std::lock_guard lock(mutex_);
    open_.erase(file);
    return 0;
  }
  int status(const std::string& path, bool, files::Status& status) override {
    const std::lock_guard lock(mutex_);
    const std::shared_ptr<Node> node = find(path);
    status = node == nullptr ? files::Status{} : status_from(*node);
    return 0;
  }
  int list(const std::string& folder, std::vector<std::string>& names) override {
    const std::lock_guard lock(mutex_);
    const std::shared_ptr<Node> node = find(folder);
    if (node == nullptr) return -ENOENT;
    for (const auto& [name, entry] : node->entries) names.push_back(name);
    return 0;
  }
  int make_folder(const std::string& path) override {
    const Step step(*this);
    if (!step.allowed) return -EIO;
    const auto [parent, name] = place_of(path);
    if (parent == nullptr) return -ENOENT;
    if (parent->entries.contains(name)) return -EEXIST;
    parent->entries[name] = std::make_shared<Node>();
    parent->entries[name]->folder = true;
    return 0;
  }
  int rename(const std::string& from, const std::string& to) override {
    const Step step(*this);
    if (!step.allowed) return -EIO;
    const auto [old_parent, old_name] = place_of(from);
    const auto [parent, name] = place_of(to);
    if (old_parent == nullptr || parent == nullptr || !old_parent->entries.contains(old_name)) return -ENOENT;
    if (parent->entries.contains(name) && !parent->entries[name]->entries.empty()) return -ENOTEMPTY;
    parent->entries[name] = old_parent->entries[old_name];
    old_parent->entries.erase(old_name);
    return 0;
  }
  int unlink(const std::string& path) override { return remove(path, false); }
  int remove_folder(const std::string& path) override { return remove(path, true); }
  int sync_folder(const std::string& path) override {
    const Step step(*this);
    if (!step.allowed) return -EIO;
    const std::shared_ptr<Node> node = find(path);
    if (node == nullptr) return -ENOENT;
    node->flushed_entries = node->entries;
    return 0;
  }
  int free_bytes(const std::string&, std::uint64_t& bytes) override {
    bytes = free;
    return 0;
  }

  std::uint64_t free = std::uint64_t{1} << 40;

 private:
  struct Node {
    bool folder = false;
    std::string bytes, flushed;
    std::map<std::string, std::shared_ptr<Node>> entries, flushed_entries;
  };
  /// One operation that changes something, if there is one left.
  struct Step {
    explicit Step(CrashDisk& disk) : lock(disk.mutex_), allowed(disk.left_ != 0) {
      if (disk.left_ > 0) --disk.left_;
      if (allowed) ++disk.operations_;
    }
    std::lock_guard<std::mutex> lock;
    bool allowed;
  };

  static files::Status status_from(const Node& node) {
    return {.kind = node.folder ? files::Kind::folder : files::Kind::file, .bytes = node.bytes.size()};
  }
  std::shared_ptr<Node> find(const std::string& path) const {
    std::shared_ptr<Node> node = root_;
    std::size_t at = 0;
    while (node != nullptr && at < path.size()) {
      const std::size_t end = std::min(path.find('/', at), path.size());
      if (end > at) {
        const auto found = node->entries.find(path.substr(at, end - at));
        node = found == node->entries.end() ? nullptr : found->second;
      }
      at = end + 1;
    }
    return node;
  }
  std::pair<std::shared_ptr<Node>, std::string> place_of(const std::string& path) const {
    const std::size_t slash = path.rfind('/');
    return {find(path.substr(0, slash)), path.substr(slash + 1)};
  }
  int open_node(const std::shared_ptr<Node>& node) {
    open_[next_] = node;
    return next_++;
  }
  int remove(const std::string& path, bool folder) {
    const Step step(*this);
    if (!step.allowed) return -EIO;
    const auto [parent, name] = place_of(path);
    if (parent == nullptr || !parent->entries.contains(name)) return -ENOENT;
    if (parent->entries[name]->folder != folder) return folder ? -ENOTDIR : -EISDIR;
    if (!parent->entries[name]->entries.empty()) return -ENOTEMPTY;
    parent->entries.erase(name);
    return 0;
  }
  static std::string left_of(const Node& file, Unsynced policy) {
    if (policy == Unsynced::kept || file.bytes == file.flushed) return file.bytes;
    if (policy == Unsynced::dropped) return file.flushed;
    constexpr std::size_t sector = 512;
    std::string result = file.bytes;
    for (std::size_t i = 0; i < result.size(); ++i) {
      const bool was_there = i < file.flushed.size();
      if (was_there && file.flushed[i] == result[i]) continue;
      if (policy == Unsynced::torn && i / sector % 2 == 0) continue;  // every other sector has arrived
      result[i] =
          policy == Unsynced::garbage ? static_cast<char>(i * 2654435761U >> 13) : (was_there ? file.flushed[i] : '\0');
    }
    return result;
  }
  static std::shared_ptr<Node> survivor(const Node& node, Unsynced bytes, Entries entries, int& folders) {
    auto result = std::make_shared<Node>();
    result->folder = node.folder;
    if (!node.folder) {
      result->bytes = result->flushed = left_of(node, bytes);
      return result;
    }
    const bool keep = entries == Entries::kept || (entries == Entries::mixed && folders % 2 == 0);
    ++folders;
    for (const auto& [name, entry] : keep ? node.entries : node.flushed_entries)
      result->entries[name] = survivor(*entry, bytes, entries, folders);
    result->flushed_entries = result->entries;
    return result;
  }
  static std::shared_ptr<Node> new_root() {
    auto root = std::make_shared<Node>();
    root->folder = true;
    return root;
  }

  std::mutex mutex_;
  std::shared_ptr<Node> root_ = new_root();
  std::map<int, std::shared_ptr<Node>> open_;
  int next_ = 3;
  int left_ = -1;  ///< operations until the cut; below 0: none comes
  int operations_ = 0;
};

/// Passes everything on to another disk, but the n-th call.
class FaultyDisk final : public files::FileSystem {
 public:
  /// What happens to it. `error` 0: it does half of what it should (only reads and writes can).
  FaultyDisk(files::FileSystem& disk, int call, int error) : disk_(disk), call_(call), error_(error) {}
  /// Whether there was such a call.
  [[nodiscard]] bool met() const { return met_; }

  int create(const std::string& path) override { return strikes(true) ? -error_ : disk_.create(path); }
  int open(const std::string& path, bool follow) override { return strikes(true) ? -error_ : disk_.open(path, follow); }
  ssize_t write(int file, const void* data, std::size_t bytes) override {
    if (!strikes(true, bytes > 1)) return disk_.write(file, data, bytes);
    return error_ == 0 ? disk_.write(file, data, bytes / 2) : -error_;
  }
  ssize_t read_at(int file, void* to, std::size_t bytes, std::uint64_t offset) override {
    if (!strikes(true, bytes > 1)) return disk_.read_at(file, to, bytes, offset);
    return error_ == 0 ? disk_.read_at(file, to, bytes / 2, offset) : -error_;
  }
  int status_of(int file, files::Status& status) override {
    return strikes(false) ? -error_ : disk_.status_of(file, status);
  }
  int sync(int file) override { return strikes(true) ? -error_ : disk_.sync(file); }
  int close(int file) override {
    const int result = disk_.close(file);
    return strikes(false) ? -error_ : result;
  }
  int status(const std::string& path, bool follow, files::Status& status) override {
    return strikes(false) ? -error_ : disk_.status(path, follow, status);
  }
  int list(const std::string& folder, std::vector<std::string>& names) override {
    return strikes(false) ? -error_ : disk_.list(folder, names);
  }
  int make_folder(const std::string& path) override { return strikes(false) ? -error_ : disk_.make_folder(path); }
  int rename(const std::string& from, const std::string& to) override {
    return strikes(false) ? -error_ : disk_.rename(from, to);
  }
  int unlink(const std::string& path) override { return strikes(false) ? -error_ : disk_.unlink(path); }
  int remove_folder(const std::string& path) override { return strikes(false) ? -error_ : disk_.remove_folder(path); }
  int sync_folder(const std::string& path) override { return strikes(true) ? -error_ : disk_.sync_folder(path); }
  int free_bytes(const std::string& path, std::uint64_t& bytes) override { return disk_.free_bytes(path, bytes); }

 private:
  /// Whether this is the call. Not all of them can be interrupted, and few do a part.
  bool strikes(bool interruptible, bool has_parts = false) {
    const std::lock_guard lock(mutex_);
    if ((error_ == EINTR && !interruptible) || (error_ == 0 && !has_parts)) return false;
    if (call_-- != 0) return false;
    met_ = true;
    return true;
  }

  files::FileSystem& disk_;
  std::mutex mutex_;
  int call_;
  int error_;
  bool met_ = false;
};

}  // namespace lockstep::testing
