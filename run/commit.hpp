#pragma once

namespace lockstep::run {

/// The commit that the program was built from: "3f2a91c0d6e1", with " with changes" if the tree had some; "unknown"
/// where the sources were no checkout.
[[nodiscard]] const char* build_commit();

}  // namespace lockstep::run
