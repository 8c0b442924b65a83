#include <cmath>

#include "data/dataset.hpp"
#include "fuzz/target.hpp"
#include "fuzz/targets.hpp"

namespace lockstep::fuzz {

void csv(std::string_view input) {
  static InputFile file("input.csv");
  file.set(input);
  for (const bool regression : {false, true})
    (void)accepts(file.path(), [&] {
      const auto dataset =
          data::make_csv({.path = file.path(), .target = "y", .regression = regression, .validation_fraction = 0.25});
      const data::DataShape shape = dataset->shape();
      promise(shape.classes >= 1 && shape.features >= 1, "a table without classes or features");
      data::HostBatch batch;
      dataset->train_batch(0, 3, batch);
      for (const float value : batch.features) promise(std::isfinite(value), "a feature that is not finite");
      for (const std::int32_t label : batch.targets)
        promise(label >= 0 && (regression || label < shape.classes), "no class of the table");
      dataset->eval_batch(0, dataset->eval_samples(), batch);
    });
}

}  // namespace lockstep::fuzz
