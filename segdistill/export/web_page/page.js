// Takes pictures from files, the clipboard or the camera, has worker.js segment them, and shows what comes out.
//
// window.segdistill.lastMask is the mask on show: {width, height, classes, confidence}. `classes` is a Uint8Array of
// class indexes, row by row from the top left; `confidence` a Float32Array (0 to 1), or null if the network gives none.

import { decoded } from "./decode.js";

const FRAMES_TIMED = 30; // of the camera: their median is shown
const SMALLEST_VIEW = { width: 640, height: 480 }; // asked of the camera, though the network may compute at less

const element = (id) => document.getElementById(id);
const stage = element("stage");
const overlay = element("overlay");
const video = element("video");
const worker = new Worker("worker.js", { type: "module" });
const waiting = []; // for the worker's answers, which come in order

window.segdistill = { lastMask: null };
let settings;
let palette; // Uint32Array: class index -> pixel
let camera = null; // the MediaStream in use
let turn = 0; // counts pictures: what an earlier one still yields is thrown away

element("not-started").remove();
const loaded = load();
loaded.catch((error) => say(`The network could not be loaded: ${error.message}`, { wrong: true }));

async function load() {
  say("Loading the network …");
  const answer = await fetch("model.json", { cache: "no-cache" });
  if (!answer.ok) throw new Error(`model.json: the server answered ${answer.status}`);
  settings = await answer.json();
  palette = new Uint32Array(
    new Uint8ClampedArray(settings.classes.flatMap(({ colour }) => [...colour, 255])).buffer,
  );
  document.title = `${settings.name} – segmentation`;
  element("licence").textContent = settings.licence;
  element("legend").replaceChildren(...settings.classes.map(legendRow));
  const { ready } = await ask({ load: settings });
  showFacts(ready.threads);
  if (turn === 0) say("Ready");
}

function ask(message, transfer = []) {
  worker.postMessage(message, transfer);
  return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
}

worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting.shift();
  if (data.failed === undefined) resolve(data);
  else reject(new Error(data.failed));
};
worker.onerror = () => waiting.shift()?.reject(new Error("this browser cannot run worker.js"));

// Where pictures come from ---------------------------------------------------------------------------------------

element("file").addEventListener("change", ({ target }) => {
  openFile(target.files[0]);
  target.value = ""; // the same file may be chosen again
});
document.addEventListener("paste", ({ clipboardData }) => openFile(clipboardData.files[0]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (relatedTarget === null) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  openFile(event.dataTransfer.files[0]);
});
element("camera").addEventListener("click", () => (camera ? stopCamera("") : startCamera()));

async function openFile(file) {
  if (!file) {
    say("That was no file. Drop, paste or choose an image.", { wrong: true });
    return;
  }
  stopCamera("");
  const mine = ++turn;
  let image, turned;
  try {
    ({ image, turned } = await decoded(file));
  } catch {
    say(`${file.name} is not an image that this browser can read.`, { wrong: true });
    return;
  }
  say(`Segmenting ${file.name} …`);
  try {
    await loaded;
    const { mask } = await ask({ image }, [image]);
    if (mine !== turn) return;
    show(mask);
    element("milliseconds").textContent = rounded(mask.milliseconds);
    element("speed-words").textContent = "ms per frame";
    const smaller = mask.computed.width < mask.width;
    say(
      `${file.name}, ${mask.width} × ${mask.height} pixels` +
        (smaller ? `, computed at ${mask.computed.width} × ${mask.computed.height}` : "") +
        (turned ? ", as it is stored: its EXIF tag has viewers turn it. Save it upright for a better mask" : ""),
    );
  } catch (error) {
    if (mine === turn) say(`${file.name} could not be segmented: ${error.message}`, { wrong: true });
  }
}

async function startCamera() {
  const mine = ++turn;
  if (!navigator.mediaDevices) {
    say("Browsers give the camera only to pages from https:// or localhost.", { wrong: true });
    return;
  }
  let stream;
  try {
    await loaded;
    const [height, width] = settings.size;
    stream = await navigator.mediaDevices.getUserMedia({
      video: {
        facingMode: "environment",
        width: { ideal: Math.max(width, SMALLEST_VIEW.width) },
        height: { ideal: Math.max(height, SMALLEST_VIEW.height) },
      },
    });
  } catch (error) {
    say(cameraWords(error), { wrong: true });
    return;
  }
  if (mine !== turn) {
    stream.getTracks().forEach((track) => track.stop());
    return;
  }
  camera = stream;
  stream.getVideoTracks()[0].onended = () => stopCamera("The camera was switched off.");
  element("camera").textContent = "Stop the camera";
  video.srcObject = stream;
  try {
    await video.play();
    await watch(mine);
  } catch (error) {
    if (mine === turn) stopCamera(`The camera's picture could not be segmented: ${error.message}`, { wrong: true });
  }
}

async function watch(mine) {
  const times = [];
  say(`Camera, ${video.videoWidth} × ${video.videoHeight} pixels`);
  while (mine === turn) {
    await new Promise(requestAnimationFrame);
    const image = await createImageBitmap(video);
    const { mask } = await ask({ image }, [image]);
    if (mine !== turn) return;
    show(mask);
    times.push(mask.milliseconds);
    if (times.length > FRAMES_TIMED) times.shift();
    element("milliseconds").textContent = rounded(median(times));
    element("speed-words").textContent = `ms per frame, median of ${times.length}`;
  }
}

function stopCamera(words, { wrong = false } = {}) {
  if (!camera) return;
  turn++;
  camera.getTracks().forEach((track) => track.stop());
  camera = null;
  video.srcObject = null;
  element("camera").textContent = "Use the camera";
  say(words, { wrong });
}

function cameraWords(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "The camera was not permitted. Allow it for this page in the browser's settings, then try again.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No camera was found.";
    case "NotReadableError":
      return "The camera cannot be used now; another program may have it.";
    default:
      return `The camera cannot be used: ${error.message}`;
  }
}

// What is shown --------------------------------------------------------------------------------------------------

function show(mask) {
  const { width, height, classes, confidence, image } = mask;
  window.segdistill.lastMask = { width, height, classes, confidence };
  for (const canvas of [element("image"), overlay]) {
    canvas.hidden = false;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
  }
  element("hint").hidden = true;
  stage.classList.add("filled");
  stage.style.setProperty("--ratio", width / height);
  element("image").getContext("2d").drawImage(image, 0, 0);
  image.close();

  const counts = new Array(settings.classes.length).fill(0);
  const painted = new ImageData(width, height);
  const pixels = new Uint32Array(painted.data.buffer);
  for (let place = 0; place < classes.length; place++) {
    pixels[place] = palette[classes[place]];
    counts[classes[place]]++;
  }
  overlay.getContext("2d").putImageData(painted, 0, 0);
  [...element("legend").rows].forEach((row, index) => {
    row.classList.toggle("absent", counts[index] === 0);
    row.cells[1].textContent = percent(counts[index] / classes.length);
  });
}

function legendRow({ name, colour }) {
  const row = document.createElement("tr");
  const heading = document.createElement("th");
  const swatch = document.createElement("span");
  heading.scope = "row";
  swatch.className = "swatch";
  swatch.style.backgroundColor = `rgb(${colour})`;
  heading.append(swatch, name);
  row.append(heading, document.createElement("td"));
  return row;
}

function showFacts(threads) {
  const facts = {
    Network: settings.name,
    Stream: settings.stream,
    Size: `${(settings.bytes / 1e6).toFixed(1)} MB, ${settings.precision}`,
    mIoU: settings.miou === null ? "not scored" : `${percent(settings.miou)} on ${settings.scored_on}`,
    Threads: threads,
  };
  element("facts").replaceChildren(
    ...Object.entries(facts).map(([term, value]) => {
      const pair = document.createElement("div");
      pair.append(document.createElement("dt"), document.createElement("dd"));
      pair.firstChild.textContent = term;
      pair.lastChild.textContent = value;
      return pair;
    }),
  );
}

element("opacity").addEventListener("input", showOpacity);
showOpacity();

function showOpacity() {
  overlay.style.opacity = element("opacity").value / 100;
}

overlay.addEventListener("pointermove", point);
overlay.addEventListener("pointerdown", point);
overlay.addEventListener("pointerleave", () => (element("pointed").hidden = true));

// Tell the class under the pointer, beside it.
function point({ offsetX, offsetY }) {
  const { width, height, classes, confidence } = window.segdistill.lastMask;
  const { clientWidth, clientHeight } = overlay;
  const x = Math.min(Math.max(Math.floor((offsetX / clientWidth) * width), 0), width - 1);
  const y = Math.min(Math.max(Math.floor((offsetY / clientHeight) * height), 0), height - 1);
  const { name, colour } = settings.classes[classes[y * width + x]];
  const pointed = element("pointed");
  pointed.hidden = false;
  pointed.firstChild.style.backgroundColor = `rgb(${colour})`;
  element("pointed-class").textContent = confidence ? `${name}, ${percent(confidence[y * width + x])} sure` : name;
  const left = Math.min(offsetX + 14, clientWidth - pointed.offsetWidth);
  const top = offsetY + 18 + pointed.offsetHeight > clientHeight ? offsetY - pointed.offsetHeight - 8 : offsetY + 18;
  pointed.style.transform = `translate(${left}px, ${top}px)`;
}

function say(words, { wrong = false } = {}) {
  element("status").textContent = words;
  element("status").classList.toggle("wrong", wrong);
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function rounded(milliseconds) {
  return milliseconds < 10 ? milliseconds.toFixed(1) : String(Math.round(milliseconds));
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
