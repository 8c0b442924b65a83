#pragma once

#include <string>

#include "config/schema.hpp"

// What the table of the job file is written with. Each of its functions takes a config struct and a visitor, and shows
// the visitor every member beside the description of its key.

namespace lockstep::job::table {

using config::FieldType;
using config::Presence;

/// What a block, or one of its types, is called and for.
struct About {
  std::string name;
  std::string doc;
  Presence presence = Presence::optional;  ///< of a block
  std::string types_doc = {};              ///< of a block with types: what the `type` key says
  bool type_has_default = false;           ///< of a block with types: the `type` key may be left out
  bool ignore_case = false;                ///< of a type: its name may be spelled in any case
};

/// One value of a `type` key, with the member that holds its block.
template <class Config, class Visit>
struct Alternative {
  About about;
  Config& config;
  Visit visit;
};
template <class Config, class Visit>
Alternative(About, Config&, Visit) -> Alternative<Config, Visit>;

}  // namespace lockstep::job::table
