#include "run/memory.hpp"

#include <chrono>

#include "core/text.hpp"
#include "run/checkpoint_shards.hpp"
#include "run/setup.hpp"
#include "tests/support/training.hpp"
#include "tests/support/watched_device.hpp"

namespace lockstep::run {
namespace {

using testing::error_text;

/// A job whose data need no file: symbols are made up.
struct Case {
  job::LoadedJob job;
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<DeviceApi> device = make_cpu_device();

  explicit Case(const std::string& text, int classes = 65)
      : job(job::load_job_text("job.yaml", text, "/")),
        model(make_model(job.config, classes, static_cast<int>(job.config.data.clusters.features))) {}

  [[nodiscard]] MemoryQuestion question(int ranks = 1, bool threads = false) const {
    return {.job = job,
            .model = *model,
            .kernels = kernels::cpu_table(),
            .device = *device,
            .batch = batch_sizes(job.config, ranks, "a test"),
            .host_ranks = ranks,
            .process_ranks = threads ? ranks : 1};
  }
  /// As of ranks of one host.
  [[nodiscard]] MemoryNeed need(int ranks = 1) const { return need(ranks, question(ranks).one_memory()); }
  [[nodiscard]] MemoryNeed need(int ranks, bool one_memory) const {
    const job::BatchSizes batch = batch_sizes(job.config, ranks, "a test");
    return memory_need(*model, kernels::cpu_table(), true, 0, ranks,
                       engine_options(job, *model, batch, 0, true, one_memory));
  }
};

const char* mlp = R"(
model: {type: mlp, hidden: [300, 17]}
data: {type: clusters, classes: 5, features: 8, samples: 400}
train_batch_size: 24
train_micro_batch_size_per_gpu: 2
parameter_groups: [{match: ["*.bias"], weight_decay: 0.0}]
)";

const char* gpt = R"(
model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 48, block_size: 32}
data: {type: text, path: no.txt}
train_batch_size: 24
train_micro_batch_size_per_gpu: 2
)";

TEST(Memory, TheNeedIsWhatTheEngineAllocates) {
  for (const char* text : {mlp, gpt})
    for (const char* how : {"run: {steps: 3}\n", "run: {steps: 3, determinism: invariant}\n"})
      for (const char* more :
           {"", "bf16: {enabled: true}\n", "fp16: {enabled: true}\n", "optimizer: {type: SGD, params: {lr: 0.1}}\n",
            "optimizer: {type: SGD, params: {lr: 0.1, momentum: 0.9}}\n", "optimizer: {type: Lion}\n",
            "optimizer: {type: Adagrad}\n", "optimizer: {type: Lamb}\n", "optimizer: {type: Muon}\n",
            "zero_optimization: {stage: 1, reduce_bucket_size: 20000}\n", "zero_optimization: {stage: 2}\n",
            "zero_optimization: {stage: 3, reduce_bucket_size: 20000}\n",
            "zero_optimization: {stage: 3}\nbf16: {enabled: true}\n",
            "zero_optimization: {stage: 1}\nbf16: {enabled: true}\noptimizer: {type: Muon}\n",
            "zero_optimization: {stage: 2}\noptimizer: {type: Lamb}\n"})
        for (const auto& [ranks, one_memory] :
             {std::pair{1, false}, {2, false}, {3, false}, {4, false}, {2, true}, {3, true}}) {
          const Case example(std::string(text) + how + more, std::string(text) == mlp ? 5 : 65);
          const job::BatchSizes batch = batch_sizes(example.job.config, ranks, "a test");
          comm::run_ranks(ranks, [&, ranks = ranks, one_memory = one_memory](comm::Communicator& comm) {
            const auto device = make_cpu_device();
            const engine::EngineOptions options =
                engine_options(example.job, *example.model, batch, comm.rank(), true, one_memory);

            const MemoryNeed need =
                memory_need(*example.model, kernels::cpu_table(), true, comm.rank(), ranks, options);

            const auto model = make_model(example.job.config, example.model->classes(), 8);
            engine::Engine engine(*model, comm,
                                  {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1}, options);
            EXPECT_EQ(need.total(), engine.bytes()) << text << how << more << ranks << " ranks";
            EXPECT_EQ(need.activations, engine.plan().train_bytes);
            EXPECT_EQ(need.snapshot, ShardSnapshot(engine).bytes()) << text << how << more << ranks << " ranks";
            EXPECT_EQ(need.exchange, engine.exchange_bytes_per_step()) << how << ranks;
            EXPECT_EQ(need.buckets, ranks > 1 ? engine.gradient_sync().bucket_count() : 0);
          });
        }
}

TEST(Memory, TheNeedOfADeviceThatPutsWorkOffIsThatOfItsEngine) {
  const Case example(std::string(gpt) + "run: {steps: 3}\n");
  const auto device = make_emulated_device(1);
  const auto comm = comm::make_single(device.get());
  const engine::EngineOptions options =
      engine_options(example.job, *example.model, batch_sizes(example.job.config, 1, "a test"), 0);

  const MemoryNeed need = memory_need(*example.model, kernels::emulated_table(), false, 0, 1, options);

  const engine::Engine engine(*example.model, *comm,
                              {.device = device.get(), .kernels = &kernels::emulated_table(), .threads = 1}, options);
  EXPECT_EQ(need.total(), engine.bytes());
}

const char* largest = R"(
model: {type: gpt2, preset: 1.5B}
data: {type: text, path: no.txt}
run: {steps: 3}
train_batch_size: 8
train_micro_batch_size_per_gpu: 4
)";

TEST(Memory, TheLargestPresetIsKnownInAMoment) {
  const auto begin = std::chrono::steady_clock::now();

  const Case example(largest, 50257);
  const MemoryNeed need = example.need(2, false);
  const auto took = std::chrono::steady_clock::now() - begin;

  // 1,557,611,200 parameters of 16 bytes: weight, gradient and two moments in fp32; the vocabulary is padded to 50,304.
  const double parameters = 1557611200.0 + (50304 - 50257) * 1600.0;
  EXPECT_NEAR(static_cast<double>(need.state), parameters * 16, 1e6);
  EXPECT_LT(std::chrono::duration<double>(took).count(), 0.3);
}

TEST(Memory, ZeroTakesWhatItsPageSays) {
  // The tables of docs/zero.md: bytes a parameter on each of 2 ranks.
  const double fp32[] = {16, 8 + 8.0 / 2, 4 + 12.0 / 2, 16.0 / 2}, bf16[] = {18, 6 + 12.0 / 2, 2 + 16.0 / 2, 18.0 / 2};
  const double fp32_one_copy[] = {4 + 12.0 / 2, 4 + 12.0 / 2, 16.0 / 2, 16.0 / 2},
               bf16_one_copy[] = {4 + 14.0 / 2, 4 + 14.0 / 2, 18.0 / 2, 18.0 / 2};
  for (const bool half : {false, true})
    for (const bool one_memory : {false, true})
      for (int stage = 0; stage < 4; ++stage) {
        const Case example(std::string(largest) + fmt::format("zero_optimization: {{stage: {}}}\n", stage) +
                               (half ? "bf16: {enabled: true}\n" : ""),
                           50257);
        const MemoryNeed::State parts = example.need(2, one_memory).parts;
        const double parameters = 1557611200.0;
        const auto bytes = static_cast<double>(parts.total() - parts.windows - parts.gathered);
        const double expected =
            one_memory ? (half ? bf16_one_copy : fp32_one_copy)[stage] : (half ? bf16 : fp32)[stage];
        EXPECT_NEAR(bytes / parameters, expected, 0.02) << stage << ", half " << half << ", one copy " << one_memory;
        EXPECT_EQ(parts.windows > 0, stage >= 2);
        EXPECT_EQ(parts.gathered > 0, stage == 3);
      }
}

constexpr std::uint64_t gib = std::uint64_t{1} << 30;

TEST(Memory, AShortageNamesWhatIsNeededWhatIsFreeAndWhatFits) {
  const Case example(largest, 256);
  const MemoryQuestion question = example.question(2);
  const FreeMemory free{.host = 56 * gib, .host_limit = "the control group /jobs"};

  const std::string text = memory_shortage(example.need(2), free, question).value();

  EXPECT_NE(text.find("the job needs " + human_bytes(2.0 * static_cast<double>(example.need(2).total())) +
                      " of memory for 2 ranks"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("but 28.0 GiB a rank are free (limit: the control group /jobs)"), std::string::npos) << text;
  EXPECT_NE(text.find("  What fits:\n    train_micro_batch_size_per_gpu: "), std::string::npos) << text;
  EXPECT_NE(text.find("\n    mpirun -n 1: "), std::string::npos) << text;
  EXPECT_EQ(memory_shortage(example.need(2), {.host = 1000 * gib, .host_limit = "the machine"}, question),
            std::nullopt);
}

/// A GPU has memory of its own: what is free there counts, for the ranks that share it.
TEST(Memory, OfADeviceIsItsOwn) {
  const Case example(std::string(gpt) + "run: {steps: 1}\n", 256);
  testing::WatchedDevice device;
  const job::BatchSizes batch = batch_sizes(example.job.config, 2, "a test");
  const auto question = [&](int sharing) {
    return MemoryQuestion{.job = example.job,
                          .model = *example.model,
                          .kernels = kernels::emulated_table(),
                          .device = device,
                          .batch = batch,
                          .host_ranks = 2,
                          .device_ranks = sharing};
  };
  const std::size_t need = memory_need(*example.model, kernels::emulated_table(), false, 0, 2,
                                       engine_options(example.job, *example.model, batch, 0, false))
                               .total();
  const auto train = [&](int sharing) {
    comm::run_ranks(2, [&](comm::Communicator& comm) { require_memory(question(sharing), comm); });
  };

  device.limit = need + 10'000;
  EXPECT_NO_THROW(train(1));
  const std::string shared = testing::error_text(ErrorKind::environment, [&] { train(2); });
  device.limit = need - 10'000;
  const std::string text = testing::error_text(ErrorKind::environment, [&] { train(1); });

  EXPECT_NE(shared.find(" for 2 ranks of this GPU, "), std::string::npos) << shared;
  EXPECT_NE(text.find("the job needs " + human_bytes(static_cast<double>(need)) + " of memory ("), std::string::npos)
      << text;
  EXPECT_NE(text.find("but " + human_bytes(static_cast<double>(device.limit)) + " are free (limit: watched)"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("  What fits:\n    train_micro_batch_size_per_gpu: 1"), std::string::npos) << text;
}

/// It may have less than it said: others use it too.
TEST(Memory, ADeviceThatRunsOutAllTheSameSaysWhatFits) {
  const Case example(std::string(gpt) + "run: {steps: 1}\n", 256);
  testing::WatchedDevice device;
  const auto comm = comm::make_single(&device);
  const job::BatchSizes batch = batch_sizes(example.job.config, 1, "a test");
  engine::EngineOptions options = engine_options(example.job, *example.model, batch, 0, false);
  const MemoryQuestion question{.job = example.job,
                                .model = *example.model,
                                .kernels = kernels::emulated_table(),
                                .device = device,
                                .batch = batch};
  device.limit = memory_need(*example.model, kernels::emulated_table(), false, 0, 1, options).total() - 20'000;

  const std::string text = testing::error_text(ErrorKind::environment, [&] {
    with_memory_advice(question, [&] {
      const engine::Engine engine(*example.model, *comm,
                                  {.device = &device, .kernels = &kernels::emulated_table(), .threads = 1}, options);
    });
  });

  EXPECT_EQ(text.find("out of GPU memory: "), 0U) << text;
  EXPECT_NE(text.find(" asked for, "), std::string::npos) << text;
  EXPECT_NE(text.find("\n  What fits:\n    train_micro_batch_size_per_gpu: 1"), std::string::npos) << text;
}

/// The job with other settings.
Case with(const std::string& text, const std::string& settings, int classes) { return Case(text + settings, classes); }

TEST(Memory, TheMicroBatchThatIsNamedIsTheLargestThatFits) {
  const std::string text =
      "model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 48, block_size: 32}\n"
      "data: {type: text, path: no.txt}\nrun: {steps: 3}\ntrain_batch_size: 24\n";
  const auto need = [&](int micro) {
    return with(text, fmt::format("train_micro_batch_size_per_gpu: {}\n", micro), 65).need().total();
  };
  const Case whole = with(text, "train_micro_batch_size_per_gpu: 24\n", 65);
  ASSERT_LT(need(6), need(8));

  const auto advice = [&](std::uint64_t free) {
    return memory_shortage(whole.need(), {.host = free, .host_limit = "the machine"}, whole.question()).value();
  };

  EXPECT_NE(advice(need(8)).find("train_micro_batch_size_per_gpu: 8: "), std::string::npos) << advice(need(8));
  EXPECT_NE(advice(need(8) - 1).find("train_micro_batch_size_per_gpu: 6: "), std::string::npos) << advice(need(8) - 1);
  EXPECT_EQ(advice(need(1) / 3).find("What fits"), std::string::npos) << advice(need(1) / 3);
  EXPECT_NE(advice(need(1) / 3).find("Nothing fits: even with "), std::string::npos) << advice(need(1) / 3);
}

TEST(Memory, InvariantSumsMayBeWhatIsTooMuch) {
  const Case invariant = with(gpt, "run: {steps: 3, determinism: invariant}\n", 65);
  const Case exact = with(gpt, "run: {steps: 3}\n", 65);
  const FreeMemory free{.host = exact.need().total(), .host_limit = "the machine"};

  const std::string text = memory_shortage(invariant.need(), free, invariant.question()).value();

  EXPECT_NE(text.find("    run.determinism: exact: "), std::string::npos) << text;
}

TEST(Memory, ACheckpointsBatchIsNotToBeChanged) {
  const Case example(largest, 256);
  MemoryQuestion question = example.question(2);
  question.fixed_batch = true;

  const std::string text =
      memory_shortage(example.need(2), {.host = 56 * gib, .host_limit = "the machine"}, question).value();

  EXPECT_EQ(text.find("train_micro_batch_size_per_gpu"), std::string::npos) << text;
  EXPECT_NE(text.find("mpirun -n 1"), std::string::npos) << text;
}

TEST(Memory, TheLineSaysOneRankAndSmallSizesAsTheyAre) {
  const Case example(mlp + std::string("run: {steps: 3}\n"), 5);
  const FreeMemory free{.host = 3 * gib, .host_limit = "the machine"};

  const std::string one = memory_line(example.need(), free, example.question());
  const std::string two = memory_line(example.need(2), free, example.question(2));

  EXPECT_NE(one.find(", 3.00 GiB free; "), std::string::npos) << one;
  EXPECT_NE(one.find(" kFLOP a micro-batch"), std::string::npos) << one;
  EXPECT_EQ(one.find("gradient exchange"), std::string::npos) << "with itself: " << one;
  EXPECT_NE(two.find(" a rank (activations "), std::string::npos) << two;
  EXPECT_NE(two.find(", 1.50 GiB free for each; "), std::string::npos) << two;
  EXPECT_NE(two.find(" a step in 3 buckets"), std::string::npos) << two;
}

TEST(Memory, AbsurdSizesAreErrorsWithNumbers) {
  const std::string text =
      "model: {type: gpt2, n_layer: 1000, n_head: 1, n_embd: 1000000, block_size: 1000000}\n"
      "data: {type: text, path: no.txt}\nrun: {steps: 3}\ntrain_batch_size: 1\n";
  const Case huge(text);

  const MemoryNeed need = huge.need();
  const std::string shortage =
      memory_shortage(need, {.host = 4 * gib, .host_limit = "the machine"}, huge.question()).value();

  EXPECT_GT(static_cast<double>(need.state), 1.9e17) << "1.2e16 parameters";
  EXPECT_NE(shortage.find("PiB of memory"), std::string::npos) << shortage;
  EXPECT_NE(shortage.find("Nothing fits"), std::string::npos) << shortage;
}

}  // namespace
}  // namespace lockstep::run
