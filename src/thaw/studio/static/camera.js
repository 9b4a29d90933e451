// A camera of this machine: about one image a second is classified. No image is kept.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { postFile } from "./api.js";
import { Tried } from "./tried.js";

const PERIOD = 1000;
const PROBLEMS = {
  NotFoundError: "No camera was found. Connect one, then start again.",
  OverconstrainedError: "This camera is no longer connected.",
  NotAllowedError: "The browser does not allow Studio to use the camera. Allow it for this address in the settings of the page, then start again.",
  NotReadableError: "The camera cannot be opened; another program may be using it.",
};

const problemOf = (error) => PROBLEMS[error.name] || `The camera cannot be opened: ${error.message}`;

// Resolves to a stream of the camera of an id, or of any.
async function opened(id) {
  // Browsers have cameras for pages of this machine only, or that are encrypted.
  if (!navigator.mediaDevices) throw new Error("this browser has none for this address; open Studio at 127.0.0.1");
  return navigator.mediaDevices.getUserMedia({ audio: false, video: id ? { deviceId: { exact: id } } : true });
}

// The present image of a video as a PNG file.
function taken(video) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

export function Camera({ run }) {
  const [stream, setStream] = useState(null), [problem, fail] = useState("");
  const [cameras, setCameras] = useState([]), [isAsking, asking] = useState(false);
  const start = async (id) => {
    asking(true);
    fail("");
    stop(stream);
    setStream(null);
    try {
      const found = await opened(id);
      // One that is pulled out.
      found.getVideoTracks()[0].addEventListener("ended", () => { setStream(null); fail("The camera was disconnected."); });
      setStream(found);
      setCameras((await navigator.mediaDevices.enumerateDevices()).filter((one) => one.kind === "videoinput"));
    } catch (error) {
      fail(problemOf(error));
    }
    asking(false);
  };
  useEffect(() => () => stop(stream), [stream]);
  const used = stream?.getVideoTracks()[0].getSettings().deviceId;
  return html`<div class="row source">
      ${stream ? html`<button onClick=${() => { stop(stream); setStream(null); }}>Stop the camera</button>`
        : html`<button class="primary" disabled=${isAsking} onClick=${() => start()}>${isAsking ? "Waiting for the camera …" : "Start the camera"}</button>`}
      ${stream && cameras.length > 1 && html`<select aria-label="Camera" value=${used} onChange=${(event) => start(event.target.value)}>
        ${cameras.map((one, index) => html`<option key=${one.deviceId} value=${one.deviceId}>${one.label || `Camera ${index + 1}`}</option>`)}</select>`}
      <span class="quiet">One image a second is classified.</span></div>
    ${problem && html`<p class="alarm" role="alert">${problem}</p>`}
    ${stream && html`<${Live} stream=${stream} run=${run} />`}`;
}

const stop = (stream) => stream?.getTracks().forEach((track) => track.stop());

const BEFORE = { name: "", label: "…", confidence: null, probabilities: [] };

function Live({ stream, run }) {
  const video = useRef(null), [found, setFound] = useState(null), [counts, count] = useState({ images: 0, flagged: 0 });
  useEffect(() => {
    let isOver = false, timer = 0;
    const step = async () => {
      const began = performance.now();
      if (video.current?.videoWidth) {
        let one;
        try {
          one = await postFile(`/api/try/${run}`, await taken(video.current));
        } catch (error) {
          one = { error: error.message };
        }
        if (isOver) return;
        setFound(one);
        if (!one.error) count((now) => ({ images: now.images + 1, flagged: now.flagged + (one.review ? 1 : 0) }));
      }
      timer = setTimeout(step, Math.max(0, PERIOD - (performance.now() - began)));
    };
    video.current.srcObject = stream;
    timer = setTimeout(step, 200);
    return () => { isOver = true; clearTimeout(timer); };
  }, [stream, run]);
  const picture = html`<figure><video ref=${video} autoplay muted playsinline></video><figcaption>camera</figcaption></figure>`;
  return html`<${Tried} one=${found && !found.error ? { ...found, name: told(counts) } : BEFORE}>${picture}<//>
    ${found?.error && html`<p class="alarm">${found.error}</p>`}`;
}

const told = ({ images, flagged }) => `${images.toLocaleString("en")} ${images === 1 ? "image" : "images"} classified, ${flagged.toLocaleString("en")} flagged for review`;
