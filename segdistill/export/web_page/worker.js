// Runs the network off the page's own thread.
//
// Messages in: {load: settings} once, then {image: ImageBitmap}. Each is answered, in order, by {ready}, {mask} or
// {failed: words}.

import { nearest, resized } from "./resample.js";

// A network for images of any size computes larger ones at this many pixels: more do not fit into the memory that
// browsers give to WebAssembly.
const MOST_PIXELS = 1920 * 1080;

let ort, session, settings;
let queue = Promise.resolve();

self.onmessage = ({ data }) => {
  queue = queue.then(async () => {
    try {
      if (data.load) {
        self.postMessage({ ready: await load(data.load) });
      } else {
        const mask = await segment(data.image);
        self.postMessage({ mask }, [mask.image, mask.classes.buffer]);
      }
    } catch (error) {
      self.postMessage({ failed: String(error?.message ?? error) });
    }
  });
};

async function load(given) {
  settings = given;
  ort = await import(`./${settings.runtime}/ort.wasm.bundle.min.js`);
  ort.env.wasm.wasmPaths = { wasm: new URL(`${settings.runtime}/ort-wasm-simd-threaded.wasm`, import.meta.url).href };
  // Browsers share memory between threads only on pages that are isolated by COOP and COEP headers.
  const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1;
  ort.env.wasm.numThreads = threads;
  const answer = await fetch(settings.file, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${settings.file}: the server answered ${answer.status}`);
  session = await ort.InferenceSession.create(new Uint8Array(await answer.arrayBuffer()));
  // The first run prepares memory and code; its time says nothing of the next.
  const [height, width] = settings.fixed_size ?? settings.size;
  await run(new Uint8ClampedArray(height * width * 4), { height, width });
  return { threads };
}

// What the page shows: {image, classes, confidence, width, height, computed, milliseconds}; `image` is given back,
// `computed` is the size at which the network ran.
async function segment(image) {
  const started = performance.now();
  const own = { width: image.width, height: image.height };
  const computed = inputSize(own);
  const resizes = computed.height !== own.height || computed.width !== own.width;
  const rgba = resizes ? resized(pixels(image), 4, own, computed) : pixels(image);
  const { classes, confidence } = await run(rgba, computed);
  return {
    image,
    ...own,
    computed,
    classes: nearest(classes, computed, own),
    confidence: confidence && nearest(confidence, computed, own),
    milliseconds: performance.now() - started,
  };
}

function inputSize({ width, height }) {
  if (settings.fixed_size) return { height: settings.fixed_size[0], width: settings.fixed_size[1] };
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  return { height: Math.max(1, Math.round(height * scale)), width: Math.max(1, Math.round(width * scale)) };
}

function pixels(image) {
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height).data;
}

// rgba: (height, width, 4). Returns classes (height, width) and, if the network gives it, their confidence.
async function run(rgba, { height, width }) {
  const count = height * width;
  const batch = settings.fixed_batch ?? 1;
  const tensor = new Uint8Array(batch * 3 * count);
  const [pixelStep, channelStep] = settings.layout === "nchw" ? [1, count] : [3, 1];
  for (let pixel = 0; pixel < count; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      tensor[pixel * pixelStep + channel * channelStep] = rgba[pixel * 4 + channel];
    }
  }
  // A network for a fixed batch gets the same image in every place.
  for (let place = 1; place < batch; place++) tensor.copyWithin(place * 3 * count, 0, 3 * count);
  const shape = settings.layout === "nchw" ? [batch, 3, height, width] : [batch, height, width, 3];
  const outputs = await session.run({ [settings.input]: new ort.Tensor("uint8", tensor, shape) });
  const first = (name) => outputs[name].data.slice(0, count);
  return {
    classes: first(settings.class_index),
    confidence: settings.confidence && first(settings.confidence),
  };
}
