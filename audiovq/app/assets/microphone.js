// Records from the microphone until it is pressed again, or the most seconds are over, and returns a WAV: the server reads no browser's own format.
const bytesOf = (samples, rate) => {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const words = [0x46464952, 36 + 2 * samples.length, 0x45564157, 0x20746d66, 16, 0x10001, rate, 2 * rate, 0x100002];
  words.push(0x61746164, 2 * samples.length);
  words.forEach((word, i) => view.setUint32(4 * i, word, true));
  samples.forEach((x, i) => view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, x))), true));
  return view.buffer;
};
let recorder = null;

export const isRecording = () => Boolean(recorder);
// `onDone` gets the WAV, cut to `mostSeconds`, or null where nothing was recorded, and whether it ended by itself.
export const begin = async (mostSeconds, onDone) => {
  const stream = await navigator.mediaDevices.getUserMedia({audio: true});
  const parts = [];
  recorder = new MediaRecorder(stream);
  let timer, isFull = false;
  recorder.onstart = () => {
    timer = setTimeout(() => {
      isFull = true;
      end();
    }, 1000 * mostSeconds);
  };
  recorder.ondataavailable = event => parts.push(event.data);
  recorder.onstop = async () => {
    recorder = null;
    clearTimeout(timer);
    stream.getTracks().forEach(track => track.stop());
    const context = new AudioContext();
    try {
      const sound = await context.decodeAudioData(await new Blob(parts).arrayBuffer());
      const samples = sound.getChannelData(0).subarray(0, Math.floor(mostSeconds * sound.sampleRate));
      onDone(bytesOf(samples, sound.sampleRate), isFull);
    } catch {  // too short to be a recording
      onDone(null, isFull);
    } finally {
      context.close();
    }
  };
  recorder.start();
};
export const end = () => recorder?.stop();
