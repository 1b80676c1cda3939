// SHA-256 of a file in pieces, in a worker: the page stays quick, and no file is held in memory whole.
// The browser's own digest takes one buffer only, and only on https or localhost.

const PIECE_BYTES = 4 * 1024 * 1024;

const CONSTANTS = new Uint32Array(64);
const START = new Uint32Array(8);
for (let candidate = 2, found = 0; found < 64; candidate++) {
  if (!isPrime(candidate)) continue;
  if (found < 8) START[found] = fraction(Math.sqrt(candidate));
  CONSTANTS[found++] = fraction(Math.cbrt(candidate));
}

self.onmessage = async ({ data: file }) => {
  const state = START.slice();
  const words = new Uint32Array(64);
  let tail = new Uint8Array(0);
  for (let from = 0; from < file.size; from += PIECE_BYTES) {
    const bytes = new Uint8Array(await file.slice(from, from + PIECE_BYTES).arrayBuffer());
    const whole = bytes.length - (bytes.length % 64);
    absorb(state, words, bytes, whole);
    tail = bytes.subarray(whole);
    self.postMessage({ hashed: Math.min(from + PIECE_BYTES, file.size) });
  }
  const last = padded(tail, file.size);
  absorb(state, words, last, last.length);
  self.postMessage({ sha256: [...state].map((word) => word.toString(16).padStart(8, "0")).join("") });
};

/** The last bytes, a one bit, zeroes, and the length in bits. */
function padded(tail, size) {
  const block = new Uint8Array(tail.length < 56 ? 64 : 128);
  block.set(tail);
  block[tail.length] = 0x80;
  const view = new DataView(block.buffer);
  view.setUint32(block.length - 8, Math.floor(size / 0x20000000));
  view.setUint32(block.length - 4, (size % 0x20000000) * 8);
  return block;
}

function absorb(state, words, bytes, length) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  for (let at = 0; at < length; at += 64) compress(state, words, view, at);
}

function compress(state, words, view, at) {
  for (let i = 0; i < 16; i++) words[i] = view.getUint32(at + i * 4);
  for (let i = 16; i < 64; i++) {
    const x = words[i - 15];
    const y = words[i - 2];
    const low = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const high = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    words[i] = words[i - 16] + low + words[i - 7] + high;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const high = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const one = (h + high + ((e & f) ^ (~e & g)) + CONSTANTS[i] + words[i]) | 0;
    const low = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const two = (low + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + one) | 0;
    d = c;
    c = b;
    b = a;
    a = (one + two) | 0;
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
  state[5] += f;
  state[6] += g;
  state[7] += h;
}

function isPrime(number) {
  for (let factor = 2; factor * factor <= number; factor++) if (number % factor === 0) return false;
  return true;
}

/** The first 32 bits after the point, which is how the standard takes its constants from the primes. */
function fraction(root) {
  return Math.floor((root - Math.floor(root)) * 0x100000000);
}
