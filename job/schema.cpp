#include "job/schema.hpp"

#include <type_traits>

#include "config/scalar.hpp"
#include "job/fields.hpp"
#include "job/job.hpp"

namespace lockstep::job {

using namespace config;

namespace {

/// Walks the table and builds the section tree; defaults come from the members.
class Describe {
 public:
  explicit Describe(Keys& out) : out_(out) {}

  template <class T>
  void field(const T& member, Field field) {
    set_type(member, field);
    if (field.default_text.empty() && !field.required) field.default_text = default_text(member);
    out_.fields.push_back(std::move(field));
  }

  template <class Config, class Visit>
  void section(const table::About& about, const Config& config, Visit visit) {
    Section section{.name = about.name, .doc = about.doc, .presence = about.presence};
    Describe inner(section.keys);
    visit(config, inner);
    out_.sections.push_back(std::move(section));
  }

  template <class... Alternatives>
  void variant(const table::About& about, const std::string& type, const Alternatives&... alternatives) {
    Section section{
        .name = about.name, .doc = about.doc, .types = Types{.doc = about.types_doc}, .presence = about.presence};
    (section.types->known.push_back(type_of(alternatives)), ...);
    if (about.type_has_default) section.types->default_type = type;
    out_.sections.push_back(std::move(section));
  }

  void scheduler(const SchedulerConfig&) {
    Section section{.name = "scheduler",
                    .doc = "The learning rate over the run. Absent: the optimizer's lr always.",
                    .types = Types{.doc = "Case-sensitive, as in DeepSpeed; docs/schedulers.md has the formulas."},
                    .presence = Presence::nullable};
    for (const std::string& name : sched::types()) {
      Type type{.name = name, .doc = std::string(sched::doc_of(name))};
      type.keys.sections.push_back(
          {.name = "params", .doc = "Parameters of the scheduler.", .keys = {.fields = sched::fields_of(name)}});
      section.types->known.push_back(std::move(type));
    }
    out_.sections.push_back(std::move(section));
  }

  void groups(const std::vector<ParameterGroupConfig>&) {
    Section section{.name = "parameter_groups",
                    .doc =
                        "Parameters with values of their own. Group 0 is every parameter that no group matches; a "
                        "pattern that matches nothing is an error.",
                    .presence = Presence::nullable,
                    .list = true};
    const ParameterGroupConfig none;
    Describe inner(section.keys);
    table::group(none, inner);
    out_.sections.push_back(std::move(section));
  }

 private:
  template <class Alternative>
  static Type type_of(const Alternative& alternative) {
    const table::About& about = alternative.about;
    Type type{.name = about.name, .doc = about.doc, .ignore_case = about.ignore_case};
    Describe inner(type.keys);
    alternative.visit(alternative.config, inner);
    return type;
  }

  template <class T>
  struct Inner {
    using type = T;
  };
  template <class T>
  struct Inner<std::optional<T>> {
    using type = T;
  };

  template <class T>
  static void set_type(const T&, Field& field) {
    using Value = typename Inner<T>::type;
    if constexpr (std::is_same_v<Value, bool>) field.type = FieldType::boolean;
    if constexpr (std::is_same_v<Value, std::int64_t>) field.type = FieldType::integer;
    if constexpr (std::is_same_v<Value, double>) field.type = FieldType::number;
    if constexpr (std::is_same_v<Value, std::vector<std::int64_t>>) field.type = FieldType::integer_list;
    if constexpr (std::is_same_v<Value, std::vector<double>>) field.type = FieldType::number_list;
    if constexpr (std::is_same_v<Value, std::vector<std::string>>) field.type = FieldType::text_list;
    if constexpr (std::is_same_v<Value, std::string>)
      if (!field.choices.empty()) field.type = FieldType::choice;
  }

  static std::string default_text(const std::string& v) { return v.empty() ? "" : to_yaml(v); }
  template <class T>
  static std::string default_text(const std::vector<T>& v) {
    ParamValue::List list;
    for (const T& entry : v) list.emplace_back(entry);
    return list.empty() ? "" : to_yaml(list);
  }
  template <class T>
  static std::string default_text(const std::optional<T>&) {
    return "";
  }
  template <class T>
  static std::string default_text(const T& v) {
    return to_yaml(v);
  }

  Keys& out_;
};

Section make_job_section() {
  Section root{
      .name = "job",
      .doc =
          "A job is one YAML or JSON file. Numbers are decimal and may be written `1e-4` or `5e8`; booleans are "
          "`true` and `false`; every key is checked, and an unknown one is an error."};
  const JobConfig defaults;
  Describe describe(root.keys);
  table::job(defaults, describe);
  root.keys.fields.push_back({.name = "deepspeed",
                              .type = FieldType::path,
                              .doc = "A DeepSpeed configuration file, relative to the job file, in place of the keys "
                                     "that the two have in common."});
  add_advice(root);
  return root;
}

}  // namespace

const Section& job_section() {
  static const Section section = make_job_section();
  return section;
}

}  // namespace lockstep::job
