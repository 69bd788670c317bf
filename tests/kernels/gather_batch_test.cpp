// The images of a batch against a loop on the host, bit for bit: each value is 0 or an entry of the
// table, stored in an Element.
#include <numeric>

#include "kernels/device_test.h"

namespace preheat::kernels {
namespace {

// A dataset, on the host and on the device.
struct Examples {
  std::int64_t count;
  std::int32_t height, width, channels;
  std::vector<std::uint8_t> pixels, labels;
  std::vector<float> table;
  Device<std::uint8_t> device_pixels, device_labels;
  Device<float> device_table;

  Examples(std::mt19937& random, std::int64_t n, std::int32_t rows, std::int32_t columns,
           std::int32_t depth)
      : count(n),
        height(rows),
        width(columns),
        channels(depth),
        pixels(random_bytes(random, n * rows * columns * depth, 256)),
        labels(random_bytes(random, n, 10)),
        table(random_values(random, Element::f32, std::size_t{256} * depth)),
        device_pixels(pixels),
        device_labels(labels),
        device_table(table) {}

  ImageSource source() const {
    return {device_pixels.data(),
            device_labels.data(),
            device_table.data(),
            count,
            height,
            width,
            channels};
  }
  std::int64_t positions() const { return std::int64_t{height} * width; }

  // Appends an image as it should be.
  void append(std::int64_t example, const CropFlip& crop, std::int32_t padded_channels,
              Element element, std::vector<float>& out) const {
    for (std::int32_t y = 0; y < height; ++y) {
      for (std::int32_t x = 0; x < width; ++x) {
        const std::int32_t from_y = y + crop.dy;
        const std::int32_t from_x = (crop.flip ? width - 1 - x : x) + crop.dx;
        const bool inside = from_y >= 0 && from_y < height && from_x >= 0 && from_x < width;
        for (std::int32_t c = 0; c < padded_channels; ++c) {
          float value = 0;
          if (inside && c < channels) {
            const std::int64_t at =
                (example * positions() + std::int64_t{from_y} * width + from_x) * channels + c;
            value = table[c * 256 + pixels[at]];
          }
          out.push_back(rounded(element, value));
        }
      }
    }
  }

 private:
  static std::vector<std::uint8_t> random_bytes(std::mt19937& random, std::int64_t count,
                                                unsigned below) {
    std::vector<std::uint8_t> bytes(count);
    for (std::uint8_t& b : bytes) b = static_cast<std::uint8_t>(random() % below);
    return bytes;
  }
};

// The orders of two epochs, one after the other.
std::vector<std::uint32_t> random_orders(std::mt19937& random, std::int64_t examples) {
  std::vector<std::uint32_t> orders(2 * examples);
  for (const auto begin : {orders.begin(), orders.begin() + examples}) {
    std::iota(begin, begin + examples, 0u);
    std::shuffle(begin, begin + examples, random);
  }
  return orders;
}

class KernelsGatherBatch : public KernelTest {
 protected:
  void expect_gathers(const Examples& examples, const BatchAugment& augment, std::int64_t size,
                      std::int32_t padded_channels, Element element, std::int64_t step,
                      const Pass& pass = {}) {
    const std::int64_t steps_per_epoch = examples.count / (size * pass.count);
    const std::vector<std::uint32_t> orders = random_orders(random_, examples.count);
    const Device<std::uint32_t> device_orders(orders);
    StepState state;
    state.step = step;
    const Device<StepState> device_state(state);
    const DeviceElements images(element, size * examples.positions() * padded_channels);
    const Device<std::int32_t> labels(static_cast<std::size_t>(size));
    check(gather_batch(examples.source(), augment, device_orders.data(), device_state.data(),
                       steps_per_epoch, pass, element,
                       {images.data(), labels.data(), size, padded_channels}, nullptr));
    const std::int64_t epoch = step / steps_per_epoch;
    const std::int64_t first = step % steps_per_epoch * size * pass.count + pass.index * size;
    const bool augmented = augment.crop_padding > 0 || augment.flip;
    std::vector<float> expected;
    std::vector<std::int32_t> expected_labels;
    for (std::int64_t i = 0; i < size; ++i) {
      const std::uint32_t example = orders[epoch % 2 * examples.count + first + i];
      const CropFlip crop = augmented ? crop_flip(augment.seed, static_cast<std::uint32_t>(epoch),
                                                  example, augment.crop_padding, augment.flip)
                                      : CropFlip{};
      examples.append(example, crop, padded_channels, element, expected);
      expected_labels.push_back(examples.labels[example]);
    }
    EXPECT_TRUE(same_bits(images.values(), expected));
    EXPECT_EQ(labels.values(), expected_labels);
  }

  void expect_gathers_in_order(const Examples& examples, std::int64_t position, std::int64_t size,
                               std::int32_t padded_channels, Element element) {
    const Device<std::int64_t> device_position(std::vector<std::int64_t>{position});
    const DeviceElements images(element, size * examples.positions() * padded_channels);
    const Device<std::int32_t> labels(static_cast<std::size_t>(size));
    check(gather_in_order(examples.source(), device_position.data(), element,
                          {images.data(), labels.data(), size, padded_channels}, nullptr));
    std::vector<float> expected;
    std::vector<std::int32_t> expected_labels;
    for (std::int64_t i = position; i < position + size; ++i) {
      const bool there = i < examples.count;
      examples.append(there ? i : 0, {}, padded_channels, element, expected);
      expected_labels.push_back(there ? std::int32_t{examples.labels[i]} : -1);
    }
    EXPECT_TRUE(same_bits(images.values(), expected));
    EXPECT_EQ(labels.values(), expected_labels);
    EXPECT_EQ(device_position.value(), position);
  }
};

TEST_F(KernelsGatherBatch, EveryPaddingAndElement) {
  // 63 positions are less than one block's share, 1024 that of several blocks, 15 x 17 one too few.
  struct Size {
    std::int32_t height, width;
  };
  for (const Size& size : {Size{9, 7}, Size{32, 32}, Size{15, 17}, Size{1, 1}}) {
    for (const std::int32_t channels : {1, 3, 4}) {
      const Examples examples(random_, 37, size.height, size.width, channels);
      for (const Element element : all_elements) {
        for (const std::int32_t padded_channels : {channels, 4, 5, 8, 16}) {
          SCOPED_TRACE(name_of(element) + " " + std::to_string(size.height) + "x" +
                       std::to_string(size.width) + "x" + std::to_string(channels) + " padded to " +
                       std::to_string(padded_channels));
          expect_gathers(examples, {4, true, random_()}, 9, padded_channels, element,
                         random_() % 16);
        }
      }
    }
  }
}

TEST_F(KernelsGatherBatch, EveryAugmentation) {
  const Examples examples(random_, 40, 12, 11, 3);
  for (const std::int32_t crop_padding : {0, 1, 4, 15}) {
    for (const bool flip : {false, true}) {
      SCOPED_TRACE("padding " + std::to_string(crop_padding) + (flip ? ", flipped" : ""));
      const std::uint64_t seed = (std::uint64_t{random_()} << 32) + random_();
      expect_gathers(examples, {crop_padding, flip, seed}, 40, 3, Element::f32, random_() % 9);
    }
  }
}

TEST_F(KernelsGatherBatch, EveryStepOfSomeEpochs) {
  // 37 examples are 4 batches of 9: the last example of an order is left out.
  const Examples examples(random_, 37, 6, 6, 3);
  for (std::int64_t step = 0; step < 4 * 4; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    expect_gathers(examples, {2, true, 5}, 9, 8, Element::bf16, step);
  }
  expect_gathers(examples, {2, true, 5}, 9, 8, Element::bf16, 4'000'000'001);
}

TEST_F(KernelsGatherBatch, InOrderAndBeyondTheEnd) {
  const Examples examples(random_, 37, 17, 16, 3);
  for (const Element element : all_elements) {
    for (const std::int32_t padded_channels : {3, 4, 8}) {
      for (const std::int64_t position : {0, 5, 27, 28, 36, 37, 50}) {
        SCOPED_TRACE(name_of(element) + " padded to " + std::to_string(padded_channels) + ", at " +
                     std::to_string(position));
        expect_gathers_in_order(examples, position, 10, padded_channels, element);
      }
    }
  }
}

TEST_F(KernelsGatherBatch, APassHasItsShareOfTheBatch) {
  const Examples examples(random_, 61, 5, 7, 3);
  for (const std::int64_t index : {0, 1, 2}) {
    for (const std::int64_t step : {0, 3, 9}) {  // the last update of an epoch, and the next epoch
      SCOPED_TRACE(std::to_string(index) + " of update " + std::to_string(step));
      expect_gathers(examples, {2, true, 11}, 5, 3, Element::f32, step, {index, 3});
    }
  }
}

TEST_F(KernelsGatherBatch, TwoLaunchesGiveTheSameBits) {
  const Examples examples(random_, 37, 32, 32, 3);
  const Device<std::uint32_t> orders(random_orders(random_, 37));
  StepState state;
  state.step = 6;
  const Device<StepState> device_state(state);
  std::vector<std::vector<float>> found;
  for (int launch = 0; launch < 2; ++launch) {
    const DeviceElements images(Element::f16, std::size_t{9} * 1024 * 8);
    const Device<std::int32_t> labels(std::size_t{9});
    check(gather_batch(examples.source(), {4, true, 7}, orders.data(), device_state.data(), 4, {},
                       Element::f16, {images.data(), labels.data(), 9, 8}, nullptr));
    found.push_back(images.values());
  }
  EXPECT_TRUE(same_bits(found[0], found[1]));
}

TEST_F(KernelsGatherBatch, RefusesWhatItCannotDo) {
  const Examples examples(random_, 5, 4, 4, 3);
  const Device<std::uint32_t> orders(random_orders(random_, 5));
  const Device<StepState> state(StepState{});
  const DeviceElements images(Element::f32, std::size_t{2} * 16 * 3);
  const Device<std::int32_t> labels(std::size_t{2});
  const auto gathers = [&](std::int64_t size, std::int32_t padded_channels, std::int64_t steps,
                           const Pass& pass = {}) {
    return gather_batch(examples.source(), {}, orders.data(), state.data(), steps, pass,
                        Element::f32, {images.data(), labels.data(), size, padded_channels},
                        nullptr);
  };
  EXPECT_EQ(gathers(2, 2, 2), cudaErrorInvalidValue);  // fewer channels than the images have
  EXPECT_EQ(gathers(0, 3, 2), cudaErrorInvalidValue);
  EXPECT_EQ(gathers(2, 3, 0), cudaErrorInvalidValue);
  EXPECT_EQ(gathers(2, 3, 3), cudaErrorInvalidValue);  // more examples than an order has
  EXPECT_EQ(gathers(2, 3, 2, {0, 2}), cudaErrorInvalidValue);
  EXPECT_EQ(gathers(2, 3, 1, {2, 2}), cudaErrorInvalidValue);
  EXPECT_EQ(gathers(2, 3, 1, {-1, 2}), cudaErrorInvalidValue);
  EXPECT_EQ(gathers(2, 3, 2), cudaSuccess);
  EXPECT_EQ(gathers(2, 3, 1, {1, 2}), cudaSuccess);
}

}  // namespace
}  // namespace preheat::kernels
