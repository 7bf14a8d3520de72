#include "kernels/gemm/gemm_plans.h"

#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "kernels/cuda.h"
#include "kernels/device/device_memory.h"

namespace accrete {
namespace {

constexpr size_t kWorkspaceBytes = 32 << 20;  // what NVIDIA recommends for Hopper
constexpr int kAlignment = 16;                // bytes, of pointers and rows: that of a tensor map and of 16-byte loads
constexpr int kCandidates = 8;   // more cost start-up seconds
constexpr int kLeastRuns = 4;                 // products in a timed graph

cudaStream_t cuda_of(const Stream& stream) { return static_cast<cudaStream_t>(stream.cuda); }

cudaDataType_t cuda_type(DType type) {
  if (type == DType::fp8) return CUDA_R_8F_E4M3;
  CHECK(type == DType::bf16 || type == DType::f32, name_of(type));
  return type == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

// A shape as plans are kept by: exact for a call's plan; without strides and with a bucket's tokens for a tuned algorithm.
struct Shape {
  int64_t tokens, outputs, depth;
  int64_t x_stride, y_stride;  // elements between rows
  DType weights, out;
  auto operator<=>(const Shape&) const = default;

  Shape bucket() const { return {token_bucket(tokens), outputs, depth, 0, 0, weights, out}; }
  std::string text() const {
    return fmt::format("{} x {} x {} {} -> {}", tokens, outputs, depth, name_of(weights), name_of(out));
  }
};

// A single row may have any stride, cuBLASLt wants one that holds it.
Shape shape_of(const GemmOperands& op) {
  const int64_t outputs = op.w.shape[0], depth = op.w.shape[1];
  return {op.x.shape[0], outputs, depth, std::max(op.x.stride[0], depth), std::max(op.y.stride[0], outputs), op.w.dtype, op.y.dtype};
}

void check_cublas(cublasStatus_t status, const char* what, const Shape& shape) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw CudaError(fmt::format("cuBLASLt: {} failed for T x N x K = {}: {} ({}); check that libcublasLt and the driver belong together",
                              what, shape.text(), cublasLtGetStatusString(status), cublasLtGetStatusName(status)));
}

// Row-major [R, C] is column-major [C, R] with the stride as leading dimension: y^T = w x^T, w transposed ("TN").
struct Layouts {
  cublasLtMatrixLayoutOpaque_t w, x, y;
  bool fp8;

  explicit Layouts(const Shape& s) : fp8(s.weights == DType::fp8) {
    check_cublas(cublasLtMatrixLayoutInit(&w, cuda_type(s.weights), s.depth, s.outputs, s.depth), "a weight layout", s);
    check_cublas(cublasLtMatrixLayoutInit(&x, cuda_type(s.weights), s.depth, s.tokens, s.x_stride), "an input layout", s);
    check_cublas(cublasLtMatrixLayoutInit(&y, cuda_type(s.out), s.outputs, s.tokens, s.y_stride), "an output layout", s);
  }
};

struct Plan {
  Layouts layouts;
  cublasLtMatmulAlgo_t algo;
};

struct EndHandle {
  void operator()(cublasLtContext* handle) const { cublasLtDestroy(handle); }
};

// What a capture recorded, instantiated.
class Graph {
 public:
  // Ends the capture that `stream` is in; empty when something in it cannot be captured.
  explicit Graph(cudaStream_t stream) {
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream, &graph) != cudaSuccess) {
      cudaGetLastError();  // not an error of the next call
      return;
    }
    const cudaError_t result = cudaGraphInstantiate(&run_, graph, 0);
    cudaGraphDestroy(graph);
    ACCRETE_CUDA_CHECK(result);
  }
  ~Graph() {
    if (run_) cudaGraphExecDestroy(run_);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  bool empty() const { return !run_; }
  float milliseconds(Stream& stream) {
    DeviceEvent start, stop;
    start.record(stream);
    ACCRETE_CUDA_CHECK(cudaGraphLaunch(run_, cuda_of(stream)));
    stop.record(stream);
    stop.wait();
    return stop.elapsed_ms_since(start);
  }

 private:
  cudaGraphExec_t run_ = nullptr;
};

AnyView<2> matrix(void* data, DType type, int64_t rows, int64_t columns) {
  AnyView<2> view;
  view.data = data;
  view.dtype = type;
  view.shape = {rows, columns};
  view.stride = {columns, 1};
  return view;
}

bool aligned(const AnyView<2>& view) {
  const int64_t row = view.shape[0] > 1 ? view.stride[0] * static_cast<int64_t>(size_of(view.dtype)) : 0;
  return reinterpret_cast<uintptr_t>(view.data) % kAlignment == 0 && row % kAlignment == 0;
}

bool rows_apart(const AnyView<2>& view) { return view.stride[1] == 1 && (view.shape[0] <= 1 || view.stride[0] >= view.shape[1]); }

int64_t bytes_of(const AnyView<2>& view) { return view.shape[0] * view.shape[1] * static_cast<int64_t>(size_of(view.dtype)); }

}  // namespace

void check_gemm(const GemmOperands& op) {
  const auto [outputs, depth] = op.w.shape;
  CHECK(op.x.shape[1] == depth && op.y.shape[1] == outputs && op.x.shape[0] == op.y.shape[0], op.x.shape[0], op.x.shape[1], outputs,
        depth, op.y.shape[0], op.y.shape[1]);
  CHECK(op.w.dtype == DType::bf16 || op.w.dtype == DType::fp8, name_of(op.w.dtype));
  CHECK(op.x.dtype == op.w.dtype, name_of(op.x.dtype), name_of(op.w.dtype));
  CHECK(op.y.dtype == DType::bf16 || op.y.dtype == DType::f32, name_of(op.y.dtype));
  const int64_t multiple = op.w.dtype == DType::fp8 ? 16 : 8;
  CHECK(outputs > 0 && depth > 0 && outputs % multiple == 0 && depth % multiple == 0, outputs, depth, multiple);
  CHECK(op.w.stride[0] == depth && op.w.stride[1] == 1, op.w.stride[0], op.w.stride[1], depth);
  CHECK(rows_apart(op.x) && rows_apart(op.y), op.x.stride[0], op.x.stride[1], op.y.stride[0], op.y.stride[1]);
  CHECK(aligned(op.x) && aligned(op.w) && aligned(op.y), op.x.data, op.x.stride[0], op.w.data, op.y.data, op.y.stride[0]);
}

class GemmPlans::State {
 public:
  State();
  void multiply(const GemmOperands& op, Stream& stream);
  TunedGemm tune(const GemmToTune& product, const AnyView<2>& x, const AnyView<2>& y, Stream& stream);
  void forget_plans() { plans_.clear(); }

 private:
  static int64_t l2_bytes();
  std::vector<cublasLtMatmulHeuristicResult_t> candidates(Layouts& layouts, const Shape& shape, int most);
  bool possible(Layouts& layouts, const cublasLtMatmulAlgo_t& algo);
  Plan& plan(const Shape& shape);
  cublasStatus_t launch(Plan& plan, const GemmOperands& op, Stream& stream);
  std::optional<float> microseconds(Plan& plan, const std::vector<GemmOperands>& turns, Stream& stream);

  DeviceMemory workspace_{kWorkspaceBytes};
  std::unique_ptr<cublasLtContext, EndHandle> handle_;
  cublasLtMatmulDescOpaque_t* product_of(const Layouts& layouts) { return layouts.fp8 ? &fp8_product_ : &product_; }
  cublasLtMatmulDescOpaque_t product_, fp8_product_;  // w^T x, fp32 sums, no scales
  std::map<Shape, cublasLtMatmulAlgo_t> tuned_;  // by bucket
  std::map<Shape, Plan> plans_;                  // by exact shape
};

GemmPlans::State::State() {
  const Shape none{};
  cublasLtHandle_t handle = nullptr;
  check_cublas(cublasLtCreate(&handle), "cublasLtCreate", none);
  handle_.reset(handle);
  check_cublas(cublasLtMatmulDescInit(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a descriptor", none);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check_cublas(cublasLtMatmulDescSetAttribute(&product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)), "a descriptor", none);
  // Sums of fp8 products stay in the tensor cores' own registers all along K, which have fewer bits than fp32: 8 % more prompt tokens a second
  // on a 70B, 0.1 % more perplexity on SmolLM2. bf16 refuses the attribute.
  fp8_product_ = product_;
  const int8_t fast = 1;
  check_cublas(cublasLtMatmulDescSetAttribute(&fp8_product_, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof(fast)), "a descriptor", none);
}

// Partial sums over K are added as fp32 in the workspace, never in the output's type.
std::vector<cublasLtMatmulHeuristicResult_t> GemmPlans::State::candidates(Layouts& layouts, const Shape& shape, int most) {
  cublasLtMatmulPreferenceOpaque_t preference;
  check_cublas(cublasLtMatmulPreferenceInit(&preference), "a preference", shape);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
    check_cublas(cublasLtMatmulPreferenceSetAttribute(&preference, what, &value, sizeof(value)), "a preference", shape);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (auto side : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    prefer(side, static_cast<uint32_t>(kAlignment));
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(most);
  int count = 0;
  check_cublas(cublasLtMatmulAlgoGetHeuristic(handle_.get(), product_of(layouts), &layouts.w, &layouts.x, &layouts.y, &layouts.y, &preference,
                                              most, results.data(), &count),
               "its heuristic", shape);
  results.resize(count);
  std::erase_if(results, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS || result.workspaceSize > kWorkspaceBytes; });
  if (results.empty()) check_cublas(CUBLAS_STATUS_NOT_SUPPORTED, "its heuristic", shape);
  return results;
}

bool GemmPlans::State::possible(Layouts& layouts, const cublasLtMatmulAlgo_t& algo) {
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status =
      cublasLtMatmulAlgoCheck(handle_.get(), product_of(layouts), &layouts.w, &layouts.x, &layouts.y, &layouts.y, &algo, &result);
  return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= kWorkspaceBytes;
}

Plan& GemmPlans::State::plan(const Shape& shape) {
  if (const auto known = plans_.find(shape); known != plans_.end()) return known->second;
  Plan made{Layouts(shape), {}};
  const auto tuned = tuned_.find(shape.bucket());
  if (tuned != tuned_.end() && possible(made.layouts, tuned->second)) made.algo = tuned->second;
  else made.algo = candidates(made.layouts, shape, 1).front().algo;
  return plans_.emplace(shape, made).first->second;
}

cublasStatus_t GemmPlans::State::launch(Plan& plan, const GemmOperands& op, Stream& stream) {
  const float one = 1, zero = 0;
  Layouts& layouts = plan.layouts;
  return cublasLtMatmul(handle_.get(), product_of(layouts), &one, op.w.data, &layouts.w, op.x.data, &layouts.x, &zero, op.y.data, &layouts.y,
                        op.y.data, &layouts.y, &plan.algo, workspace_.data(), kWorkspaceBytes, cuda_of(stream));
}

void GemmPlans::State::multiply(const GemmOperands& op, Stream& stream) {
  const Shape shape = shape_of(op);
  check_cublas(launch(plan(shape), op, stream), "cublasLtMatmul", shape);
}

// The time of one of the products, the better of two replays; nothing when the algorithm refuses or cannot be captured.
std::optional<float> GemmPlans::State::microseconds(Plan& plan, const std::vector<GemmOperands>& turns, Stream& stream) {
  if (launch(plan, turns.front(), stream) != CUBLAS_STATUS_SUCCESS) return std::nullopt;
  ACCRETE_CUDA_CHECK(cudaStreamBeginCapture(cuda_of(stream), cudaStreamCaptureModeThreadLocal));
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  for (size_t i = 0; i < turns.size() && status == CUBLAS_STATUS_SUCCESS; ++i) status = launch(plan, turns[i], stream);
  Graph graph(cuda_of(stream));
  if (status != CUBLAS_STATUS_SUCCESS || graph.empty()) return std::nullopt;
  graph.milliseconds(stream);
  const float best = std::min(graph.milliseconds(stream), graph.milliseconds(stream));
  return best * 1000 / static_cast<float>(turns.size());
}

int64_t GemmPlans::State::l2_bytes() {
  int device = 0, bytes = 0;
  ACCRETE_CUDA_CHECK(cudaGetDevice(&device));
  ACCRETE_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, device));
  return bytes;
}

TunedGemm GemmPlans::State::tune(const GemmToTune& product, const AnyView<2>& x, const AnyView<2>& y, Stream& stream) {
  const int64_t matrices = static_cast<int64_t>(product.weights.size());
  const int64_t past_l2 = 2 * l2_bytes() / bytes_of(product.weights.front()) + 1;
  std::vector<GemmOperands> turns;
  for (int64_t i = 0; i < std::max<int64_t>(kLeastRuns, std::min(matrices, past_l2)); ++i) {
    turns.push_back({x, product.weights[i % matrices], y});
    check_gemm(turns.back());
  }
  const Shape shape = shape_of(turns.front());
  Plan plan{Layouts(shape), {}};
  TunedGemm tuned{shape.tokens, shape.outputs, shape.depth, shape.weights, shape.out};
  for (const auto& candidate : candidates(plan.layouts, shape, kCandidates)) {
    plan.algo = candidate.algo;
    const std::optional<float> took = microseconds(plan, turns, stream);
    if (!took) continue;
    if (tuned.candidates == 0) tuned.first_us = *took;
    if (tuned.candidates == 0 || *took < tuned.best_us) {
      tuned.best_us = *took;
      tuned_[shape.bucket()] = plan.algo;
    }
    ++tuned.candidates;
  }
  if (tuned.candidates == 0) check_cublas(CUBLAS_STATUS_NOT_SUPPORTED, "every algorithm", shape);
  return tuned;
}

GemmPlans::GemmPlans() : state_(std::make_unique<State>()) {}
GemmPlans::~GemmPlans() = default;

void GemmPlans::multiply(const GemmOperands& op, Stream& stream) { state_->multiply(op, stream); }

std::vector<TunedGemm> GemmPlans::tune(std::span<const GemmToTune> products, std::span<const int64_t> tokens, Stream& stream) {
  std::vector<int64_t> buckets;
  for (int64_t count : tokens) {
    CHECK(count > 0, count);
    buckets.push_back(token_bucket(count));
  }
  std::sort(buckets.begin(), buckets.end());
  buckets.erase(std::unique(buckets.begin(), buckets.end()), buckets.end());
  if (buckets.empty()) return {};
  int64_t x_bytes = 0, y_bytes = 0;
  for (const GemmToTune& product : products) {
    CHECK(!product.weights.empty());
    const AnyView<2>& w = product.weights.front();
    x_bytes = std::max(x_bytes, buckets.back() * w.shape[1] * static_cast<int64_t>(size_of(w.dtype)));
    y_bytes = std::max(y_bytes, buckets.back() * w.shape[0] * static_cast<int64_t>(size_of(product.out)));
  }
  const DeviceMemory x(x_bytes), y(y_bytes);
  fill_device(x.data(), 0x3c, x_bytes, stream);  // 0.0115 in bf16, 1.5 in e4m3: what is not a number might cost other time
  std::vector<TunedGemm> all;
  for (const GemmToTune& product : products) {
    const AnyView<2>& w = product.weights.front();
    for (int64_t bucket : buckets) {
      all.push_back(state_->tune(product, matrix(x.data(), w.dtype, bucket, w.shape[1]), matrix(y.data(), product.out, bucket, w.shape[0]), stream));
    }
  }
  state_->forget_plans();
  return all;
}

}  // namespace accrete
