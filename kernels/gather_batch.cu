// Gathers the images of a batch from a dataset on the device. Selection, augmentation and
// normalised values are computed here, so that a step needs nothing from the host. Reads 1 byte and
// writes one Element per pixel; a block holds a part of one image.
#include "device.cuh"

namespace preheat::kernels {
namespace {

constexpr int threads = 128;
constexpr int pixels_per_thread = 2;

// One pixel's channels, including the padding.
template <class T, int channels>
__device__ void write_pixel(const ImageSource& source, const std::uint8_t* pixel, T* out) {
  float values[channels];
#pragma unroll
  for (int c = 0; c < channels; ++c) {
    const bool there = pixel != nullptr && c < source.channels;
    values[c] = there ? __ldg(&source.table[c * 256 + pixel[c]]) : 0.0f;
  }
  store<T, channels>(out, 0, values);
}

template <class T>
__device__ void copy_part(const ImageSource& source, std::int64_t example, const CropFlip& crop,
                          std::int32_t padded_channels, T* out) {
  const std::int32_t positions = source.height * source.width;
  const std::uint8_t* image = source.pixels + example * positions * source.channels;
#pragma unroll
  for (int i = 0; i < pixels_per_thread; ++i) {
    const std::int32_t position =
        static_cast<std::int32_t>(blockIdx.x) * threads * pixels_per_thread + i * threads +
        static_cast<std::int32_t>(threadIdx.x);
    if (position >= positions) return;
    const std::int32_t x = position % source.width;
    const std::int32_t from_y = position / source.width + crop.dy;
    const std::int32_t from_x = (crop.flip ? source.width - 1 - x : x) + crop.dx;
    const bool inside =
        from_y >= 0 && from_y < source.height && from_x >= 0 && from_x < source.width;
    const std::uint8_t* pixel =
        inside ? image + (from_y * source.width + from_x) * source.channels : nullptr;
    T* target = out + static_cast<std::int64_t>(position) * padded_channels;
    // One 16-byte store per pixel if a 16-bit batch is padded to 8 channels.
    if (padded_channels == full_pack<T>) {
      write_pixel<T, full_pack<T>>(source, pixel, target);
      continue;
    }
    for (std::int32_t c = 0; c < padded_channels; ++c) {
      const bool there = pixel != nullptr && c < source.channels;
      target[c] = from_float<T>(there ? __ldg(&source.table[c * 256 + pixel[c]]) : 0.0f);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(threads)
    gather_kernel(const ImageSource source, const BatchAugment augment, const std::uint32_t* orders,
                  const StepState* state, std::int64_t steps_per_epoch, const Pass pass,
                  const Batch batch) {
  __shared__ std::uint32_t shared_example;
  __shared__ CropFlip shared_crop;
  const std::int64_t i = blockIdx.y;
  if (threadIdx.x == 0) {
    const std::int64_t step = state->step;
    const std::int64_t epoch = step / steps_per_epoch;
    const std::int64_t first =
        ((step - epoch * steps_per_epoch) * pass.count + pass.index) * batch.size;
    const std::uint32_t example = orders[(epoch & 1) * source.examples + first + i];
    shared_example = example;
    shared_crop = augment.crop_padding > 0 || augment.flip
                      ? crop_flip(augment.seed, static_cast<std::uint32_t>(epoch), example,
                                  augment.crop_padding, augment.flip)
                      : CropFlip{};
    if (blockIdx.x == 0) batch.labels[i] = source.labels[example];
  }
  __syncthreads();
  const std::int64_t size =
      static_cast<std::int64_t>(source.height) * source.width * batch.padded_channels;
  copy_part<T>(source, shared_example, shared_crop, batch.padded_channels,
               static_cast<T*>(batch.images) + i * size);
}

template <class T>
__global__ void __launch_bounds__(threads)
    gather_in_order_kernel(const ImageSource source, const std::int64_t* position,
                           const Batch batch) {
  const std::int64_t i = blockIdx.y;
  const std::int64_t wanted = *position + i;
  const bool there = wanted < source.examples;
  const std::int64_t example = there ? wanted : 0;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    batch.labels[i] = there ? static_cast<std::int32_t>(source.labels[example]) : -1;
  }
  const std::int64_t size =
      static_cast<std::int64_t>(source.height) * source.width * batch.padded_channels;
  copy_part<T>(source, example, CropFlip{}, batch.padded_channels,
               static_cast<T*>(batch.images) + i * size);
}

// gridDim.y is the image in the batch.
constexpr std::int64_t max_images = 65535;

bool is_valid(const ImageSource& source, const Batch& batch) {
  return source.examples > 0 && source.height > 0 && source.width > 0 && source.channels > 0 &&
         batch.padded_channels >= source.channels && batch.size > 0 && batch.size <= max_images &&
         is_aligned(batch.images);
}

dim3 grid_of(const ImageSource& source, const Batch& batch) {
  constexpr int part = threads * pixels_per_thread;
  return {static_cast<unsigned>((source.height * source.width + part - 1) / part),
          static_cast<unsigned>(batch.size)};
}

}  // namespace

cudaError_t gather_batch(const ImageSource& source, const BatchAugment& augment,
                         const std::uint32_t* orders, const StepState* state,
                         std::int64_t steps_per_epoch, const Pass& pass, Element element,
                         const Batch& batch, cudaStream_t stream) {
  if (!is_valid(source, batch) || steps_per_epoch < 1) return cudaErrorInvalidValue;
  if (pass.index < 0 || pass.index >= pass.count) return cudaErrorInvalidValue;
  // Otherwise the last batch of an epoch would read past its order.
  if (batch.size > source.examples / steps_per_epoch / pass.count) return cudaErrorInvalidValue;
  return with_type(element, [&]<class T>() {
    gather_kernel<T><<<grid_of(source, batch), threads, 0, stream>>>(source, augment, orders, state,
                                                                     steps_per_epoch, pass, batch);
    return cudaGetLastError();
  });
}

cudaError_t gather_in_order(const ImageSource& source, const std::int64_t* position,
                            Element element, const Batch& batch, cudaStream_t stream) {
  if (!is_valid(source, batch)) return cudaErrorInvalidValue;
  return with_type(element, [&]<class T>() {
    gather_in_order_kernel<T>
        <<<grid_of(source, batch), threads, 0, stream>>>(source, position, batch);
    return cudaGetLastError();
  });
}

}  // namespace preheat::kernels
