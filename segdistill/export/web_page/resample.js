// Resizing as OpenCV does it, so that a mask does not depend on the browser's own way of scaling images.

const UNIT = 2048; // OpenCV interpolates bytes in integers: so much is a weight of 1

// INTER_AREA along an axis that shrinks, then INTER_LINEAR along one that grows: as segdistill resizes images.
//
// pixels: (height, width, channels), 0 to 255; from, to: {height, width}. Returns a Uint8ClampedArray, which
// rounds as OpenCV does, or `pixels` if that is their size.
export function resized(pixels, channels, from, to) {
  const smaller = { height: Math.min(from.height, to.height), width: Math.min(from.width, to.width) };
  const averaged = resampled(pixels, channels, from, smaller, areaTaps, mean);
  return resampled(averaged, channels, smaller, to, linearTaps, interpolated);
}

function resampled(pixels, channels, from, to, taps, mixed) {
  if (from.width === to.width && from.height === to.height) return pixels;
  const columns = taps(from.width, to.width);
  const narrow = new Float32Array(from.height * to.width * channels);
  for (let y = 0, place = 0; y < from.height; y++) {
    for (const { first, weights } of columns) {
      const start = (y * from.width + first) * channels;
      for (let channel = 0; channel < channels; channel++, place++) {
        narrow[place] = mean(pixels, start + channel, channels, weights);
      }
    }
  }
  const stride = to.width * channels;
  const result = new Uint8ClampedArray(to.height * stride);
  taps(from.height, to.height).forEach(({ first, weights }, y) => {
    for (let x = 0; x < stride; x++) result[y * stride + x] = mixed(narrow, first * stride + x, stride, weights);
  });
  return result;
}

function mean(values, first, step, weights) {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) sum += weights[i] * values[first + i * step];
  return sum;
}

// From sums that already have one factor UNIT; it drops the bits that OpenCV drops.
function interpolated(values, first, step, weights) {
  let sum = 2;
  for (let i = 0; i < weights.length; i++) sum += (weights[i] * (values[first + i * step] >> 4)) >> 16;
  return sum >> 2;
}

// INTER_NEAREST_EXACT for one channel: `values` (height, width) of any typed array, the result of the same type.
export function nearest(values, from, to) {
  if (from.width === to.width && from.height === to.height) return values;
  const columns = nearestPlaces(from.width, to.width);
  const result = new values.constructor(to.height * to.width);
  let place = 0;
  for (const y of nearestPlaces(from.height, to.height)) {
    for (const x of columns) result[place++] = values[y * from.width + x];
  }
  return result;
}

// Taps: for each of `target` places along an axis, the first of the `source` places that it takes, and their weights.

// The mean of what a place covers.
function areaTaps(source, target) {
  const scale = source / target;
  return Array.from({ length: target }, (_, place) => {
    const start = place * scale;
    const end = Math.min(start + scale, source);
    const first = Math.floor(start);
    // Rounding errors must not reach beyond the last place.
    const count = Math.max(1, Math.ceil(end - 1e-6) - first);
    const covered = (_, i) => (Math.min(first + i + 1, end) - Math.max(first + i, start)) / (end - start);
    return { first, weights: Array.from({ length: count }, covered) };
  });
}

function linearTaps(source, target) {
  const scale = source / target;
  return Array.from({ length: target }, (_, place) => {
    const inside = Math.min(Math.max((place + 0.5) * scale - 0.5, 0), source - 1);
    const first = Math.min(Math.floor(inside), Math.max(source - 2, 0));
    const second = Math.round((inside - first) * UNIT);
    return { first, weights: source === 1 ? [UNIT] : [UNIT - second, second] };
  });
}

// The source place under the centre of each target place. Where a centre falls between two places, OpenCV's choice
// depends on its version; here it is the later.
function nearestPlaces(source, target) {
  return Array.from({ length: target }, (_, place) => Math.floor(((2 * place + 1) * source) / (2 * target)));
}
