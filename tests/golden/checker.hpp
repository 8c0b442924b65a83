#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace lockstep::testing {
class Session;
}

namespace lockstep::golden {

/// What differs, one sentence each; empty means that everything agrees.
using Mismatches = std::vector<std::string>;

/// Checks one recorded trace. An unreadable file, a file without a kind and an unknown kind are mismatches.
/// With a session what kernels decide and compute is done by its kernels, else by the rules that they are made of.
Mismatches check_file(const std::filesystem::path& file, const testing::Session* session = nullptr);

/// Whether a trace has to do with kernels.
bool concerns_kernels(const std::filesystem::path& file);

/// Every *.json of a folder, sorted by name. Throws ErrorKind::data for a folder that is missing or has none.
std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder);

/// The folders of a colon-separated list.
std::vector<std::filesystem::path> split_folders(std::string_view list);

// One function a kind. Each throws on a trace that lacks a field; check_file turns that into a mismatch.
Mismatches check_lr_schedule(const nlohmann::json& trace);
Mismatches check_loss_scaler(const nlohmann::json& trace, const testing::Session* session);
Mismatches check_engine(const nlohmann::json& trace, const testing::Session* session);
Mismatches check_optimizer(const nlohmann::json& trace, const testing::Session* session);
Mismatches check_batch_rules(const nlohmann::json& trace);

}  // namespace lockstep::golden
