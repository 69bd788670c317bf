// The update of all parameters in one launch. It is memory-bound: w, v and g in, w and v out, 20
// bytes per parameter, so a thread moves 16 bytes of each and nothing else is left to gain. The
// rate is read from the state on the device, without the host.
#include <type_traits>

#include "device.cuh"

namespace preheat::kernels {
namespace {

// Small arenas: as many blocks as possible, to spread over the device. Large ones: more floats per
// block, so that the partial norms stay few, and streaming stores, which do not evict the rest of
// the cache.
constexpr std::int64_t large_arena = std::int64_t{8} << 20;  // floats; w, v and g are 100 MB
constexpr int small_threads = 256;
constexpr int large_threads = 512;
constexpr int large_packs = 2;

constexpr int accumulate_threads = 256;
constexpr int check_threads = 512;
constexpr int max_check_blocks = 2 * tuned_multiprocessors;

bool is_large(std::int64_t size) {
  return size >= large_arena;
}

// Tests the bits: the element-wise path has no double arithmetic.
__device__ bool is_finite(double x) {
  return (static_cast<unsigned long long>(__double_as_longlong(x)) & 0x7ff0000000000000ull) !=
         0x7ff0000000000000ull;
}

__device__ bool is_finite(float x) {
  return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

template <bool streaming>
__device__ float4 read(const float* data, std::int64_t i) {
  const auto* p = reinterpret_cast<const float4*>(data) + i;
  return streaming ? __ldcs(p) : *p;
}

template <bool streaming>
__device__ void write(float* data, std::int64_t i, const float4& value) {
  auto* p = reinterpret_cast<float4*>(data) + i;
  if (streaming) {
    __stcs(p, value);
  } else {
    *p = value;
  }
}

// Stands for no 16-bit type.
struct Nothing {};

// The segment that an entry of Arena::segment_of refers to.
__device__ std::uint16_t number_of(std::uint16_t entry) {
  return entry & static_cast<std::uint16_t>(~has_16bit_gradient);
}

// Four gradients, in the storage type of their chunk.
template <class T, bool streaming>
__device__ float4 read_gradients(const Arena& arena, std::int64_t i, std::uint16_t entry) {
  if constexpr (!std::is_same_v<T, Nothing>) {
    if ((entry & has_16bit_gradient) != 0) {
      float g[4];
      load<T, 4>(static_cast<const T*>(arena.gradients_16bit), i, g);
      return {g[0], g[1], g[2], g[3]};
    }
  }
  return read<streaming>(arena.gradients, i);
}

template <class T>
__device__ void write_16bit(void* weights, std::int64_t i, const float (&w)[4]) {
  store<T, 4>(static_cast<T*>(weights), i, w);
}
template <>
__device__ void write_16bit<Nothing>(void*, std::int64_t, const float (&)[4]) {}

// Sums over the block: shuffles within a warp, then the warps in order.
template <int threads>
__device__ void write_partial(float gradient, float taken, float weight, bool finite,
                              NormPartial* partial) {
  __shared__ float sums[threads / 32][3];
  for (int offset = 16; offset > 0; offset /= 2) {
    gradient += __shfl_down_sync(0xffffffffu, gradient, offset);
    taken += __shfl_down_sync(0xffffffffu, taken, offset);
    weight += __shfl_down_sync(0xffffffffu, weight, offset);
  }
  if (threadIdx.x % 32 == 0) {
    sums[threadIdx.x / 32][0] = gradient;
    sums[threadIdx.x / 32][1] = taken;
    sums[threadIdx.x / 32][2] = weight;
  }
  const bool all_finite = __syncthreads_and(finite ? 1 : 0) != 0;
  if (threadIdx.x != 0) return;
  NormPartial total{0, 0, 0, all_finite ? 1u : 0u};
  for (int warp = 0; warp < threads / 32; ++warp) {
    total.gradient += sums[warp][0];
    total.taken += sums[warp][1];
    total.weight += sums[warp][2];
  }
  *partial = total;
}

template <class T, int threads, int packs, bool streaming, bool norms>
__global__ void __launch_bounds__(threads)
    update(const SgdMomentum rule, const Arena arena, const StepState* state, const BatchLoss* loss,
           const GradientCheck* gradient_check, NormPartial* partials, NonFinite* non_finite) {
  const std::int64_t first = std::int64_t{blockIdx.x} * (threads * packs) + threadIdx.x;
  const std::int64_t end = arena.size / 4;
  // All loads are issued before the first use: the values that decide whether to write, then the
  // entry, which the load of the segment depends on.
  const float lr = state->lr;
  const float previous_lr = state->previous_lr;
  const bool is_training = is_alive(*state);
  const double loss_sum = loss != nullptr ? loss->sum : 0;
  // Scaling and clipping take a pass of their own over the gradients, which then supplies the
  // scale.
  const bool is_checked = gradient_check != nullptr;
  const float scale = is_checked ? gradient_check->scale : 1;
  const bool has_finite_gradients = !is_checked || gradient_check->finite != 0;
  float4 w4[packs];
  float4 v4[packs];
  float4 g4[packs];
  Segment segment[packs];
  std::uint16_t entry[packs];
#pragma unroll
  for (int k = 0; k < packs; ++k) {
    const std::int64_t i = first + k * threads;
    w4[k] = v4[k] = g4[k] = float4{0, 0, 0, 0};
    entry[k] = 0;
    if (i >= end) continue;
    entry[k] = arena.segment_of[i / (chunk_floats / 4)];
    w4[k] = read<streaming>(arena.weights, i);
    v4[k] = read<streaming>(arena.velocity, i);
    g4[k] = read_gradients<T, streaming>(arena, i, entry[k]);
  }
#pragma unroll
  for (int k = 0; k < packs; ++k) segment[k] = arena.segments[number_of(entry[k])];
  UpdateScalars common = update_scalars(rule, lr, previous_lr, 0, 0);
  if (is_checked) common.scale = scale;
  const bool applied = is_training && is_finite(loss_sum) && has_finite_gradients;

  float gradient_sum = 0;
  float taken_sum = 0;
  float weight_sum = 0;
  bool finite = true;
#pragma unroll
  for (int k = 0; k < packs; ++k) {
    const std::int64_t i = first + k * threads;
    if (i >= end) continue;
    const float g[4] = {g4[k].x, g4[k].y, g4[k].z, g4[k].w};
    float w[4] = {w4[k].x, w4[k].y, w4[k].z, w4[k].w};
    float v[4] = {v4[k].x, v4[k].y, v4[k].z, v4[k].w};
    const bool trained = segment[k].trained != 0;
    bool finite_gradient = true;
    if (trained) {
      UpdateScalars scalars = common;
      scalars.lr *= segment[k].lr_scale;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (norms) {
          gradient_sum = fmaf(g[j], g[j], gradient_sum);
          finite_gradient = finite_gradient && is_finite(g[j]);
        }
        if (!applied) continue;
        const float taken = sgd_momentum(rule, scalars, segment[k].weight_decay, g[j], w[j], v[j]);
        if (norms) taken_sum = fmaf(taken, taken, taken_sum);
      }
      if (applied) {
        write<streaming>(arena.weights, i, {w[0], w[1], w[2], w[3]});
        write<streaming>(arena.velocity, i, {v[0], v[1], v[2], v[3]});
        if (arena.weights_16bit != nullptr) write_16bit<T>(arena.weights_16bit, i, w);
      }
    }
    if (norms) {
      bool finite_weight = true;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        weight_sum = fmaf(w[j], w[j], weight_sum);
        finite_weight = finite_weight && is_finite(w[j]);
      }
      finite = finite && finite_gradient && finite_weight;
      // At most once in a run, and min and max make the result independent of the order of threads.
      if (applied && !finite_gradient)
        atomicMax(&non_finite->last_gradient, int{number_of(entry[k])});
      if (applied && !finite_weight) atomicMin(&non_finite->first_weight, int{number_of(entry[k])});
    }
  }
  if (norms) {
    write_partial<threads>(gradient_sum, taken_sum, weight_sum, finite, &partials[blockIdx.x]);
  }
}

template <class T>
__global__ void __launch_bounds__(accumulate_threads)
    accumulate(const Arena arena, float scale, bool adds, float* sum) {
  const std::int64_t i = std::int64_t{blockIdx.x} * accumulate_threads + threadIdx.x;
  if (i >= arena.size / 4) return;
  const float4 g = read_gradients<T, false>(arena, i, arena.segment_of[i / (chunk_floats / 4)]);
  const float4 before = adds ? read<false>(sum, i) : float4{0, 0, 0, 0};
  write<false>(sum, i,
               {fmaf(scale, g.x, before.x), fmaf(scale, g.y, before.y), fmaf(scale, g.z, before.z),
                fmaf(scale, g.w, before.w)});
}

template <class T>
__global__ void __launch_bounds__(check_threads)
    check(const Arena arena, const StepState* state, double clip_norm, NormPartial* partials,
          unsigned* counter, GradientCheck* result) {
  float sum = 0;
  bool finite = true;
  const std::int64_t end = arena.size / 4;
  const std::int64_t stride = std::int64_t{gridDim.x} * check_threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * check_threads + threadIdx.x; i < end;
       i += stride) {
    const std::uint16_t entry = arena.segment_of[i / (chunk_floats / 4)];
    const float4 g = read_gradients<T, false>(arena, i, entry);
    if (arena.segments[number_of(entry)].trained == 0) continue;
    sum = fmaf(g.x, g.x, fmaf(g.y, g.y, fmaf(g.z, g.z, fmaf(g.w, g.w, sum))));
    finite = finite && is_finite(g.x) && is_finite(g.y) && is_finite(g.z) && is_finite(g.w);
  }
  write_partial<check_threads>(sum, 0, 0, finite, &partials[blockIdx.x]);
  if (!is_last_block(counter, gridDim.x)) return;
  double square = 0;
  bool all_finite = true;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += check_threads) {
    square += double{partials[i].gradient};
    all_finite = all_finite && partials[i].finite != 0;
  }
  square = block_sum(square);
  all_finite = __syncthreads_and(all_finite ? 1 : 0) != 0;
  if (threadIdx.x != 0) return;
  const double loss_scale = state->loss_scale;
  const double norm = sqrt(square) / loss_scale;
  const UpdateScalars scalars = update_scalars({}, 0, 0, norm, clip_norm);
  *result = {norm, static_cast<float>(double{scalars.scale} / loss_scale), all_finite ? 1 : 0};
}

template <class T, bool norms>
cudaError_t launch_update(const SgdMomentum& rule, const Arena& arena, const StepState* state,
                          const BatchLoss* loss, const GradientCheck* gradient_check,
                          NormPartial* partials, NonFinite* non_finite, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(update_blocks(arena.size));
  if (is_large(arena.size)) {
    update<T, large_threads, large_packs, true, norms><<<blocks, large_threads, 0, stream>>>(
        rule, arena, state, loss, gradient_check, partials, non_finite);
  } else {
    update<T, small_threads, 1, false, norms><<<blocks, small_threads, 0, stream>>>(
        rule, arena, state, loss, gradient_check, partials, non_finite);
  }
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_update(const SgdMomentum& rule, const Arena& arena, const StepState* state,
                          const BatchLoss* loss, const GradientCheck* gradient_check,
                          NormPartial* partials, NonFinite* non_finite, cudaStream_t stream) {
  return partials != nullptr ? launch_update<T, true>(rule, arena, state, loss, gradient_check,
                                                      partials, non_finite, stream)
                             : launch_update<T, false>(rule, arena, state, loss, gradient_check,
                                                       partials, non_finite, stream);
}

bool is_valid(const Arena& arena) {
  return arena.size > 0 && arena.size % chunk_floats == 0 && arena.segment_of != nullptr &&
         arena.segments != nullptr;
}

// Calls work.template operator()<T>() with the 16-bit type of the arena, or Nothing.
template <class Work>
cudaError_t with_16bit_type(const Arena& arena, Work&& work) {
  if (arena.weights_16bit == nullptr && arena.gradients_16bit == nullptr) {
    return work.template operator()<Nothing>();
  }
  return with_type(arena.element_16bit, work);
}

}  // namespace

std::int64_t update_blocks(std::int64_t arena_size) {
  const std::int64_t floats =
      4 * (is_large(arena_size) ? large_threads * large_packs : small_threads);
  return (arena_size + floats - 1) / floats;
}

std::int64_t check_blocks(std::int64_t arena_size) {
  const std::int64_t blocks = (arena_size / 4 + check_threads - 1) / check_threads;
  return blocks < max_check_blocks ? blocks : max_check_blocks;
}

cudaError_t accumulate_gradients(const Arena& arena, float scale, bool adds, float* sum,
                                 cudaStream_t stream) {
  if (!is_valid(arena)) return cudaErrorInvalidValue;
  const std::int64_t blocks = (arena.size / 4 + accumulate_threads - 1) / accumulate_threads;
  return with_16bit_type(arena, [&]<class T>() {
    accumulate<T>
        <<<static_cast<unsigned>(blocks), accumulate_threads, 0, stream>>>(arena, scale, adds, sum);
    return cudaGetLastError();
  });
}

cudaError_t check_gradients(const Arena& arena, const StepState* state, double clip_norm,
                            NormPartial* partials, unsigned* counter, GradientCheck* result,
                            cudaStream_t stream) {
  if (!is_valid(arena)) return cudaErrorInvalidValue;
  return with_16bit_type(arena, [&]<class T>() {
    check<T><<<static_cast<unsigned>(check_blocks(arena.size)), check_threads, 0, stream>>>(
        arena, state, clip_norm, partials, counter, result);
    return cudaGetLastError();
  });
}

cudaError_t sgd_momentum(const SgdMomentum& rule, const Arena& arena, const StepState* state,
                         const BatchLoss* loss, const GradientCheck* check, NormPartial* partials,
                         NonFinite* non_finite, cudaStream_t stream) {
  if (!is_valid(arena)) return cudaErrorInvalidValue;
  return with_16bit_type(arena, [&]<class T>() {
    return launch_update<T>(rule, arena, state, loss, check, partials, non_finite, stream);
  });
}

}  // namespace preheat::kernels
