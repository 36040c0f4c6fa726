// A colour map whose lightness rises evenly (after magma of matplotlib, CC0): seventeen of its colours, lines between.
const STOPS = [
  0x000004, 0x0a0822, 0x190f3d, 0x2c115f, 0x420f75, 0x57157e, 0x6c1d81, 0x812581, 0x982d80,
  0xad347c, 0xc43c75, 0xd8456c, 0xeb5760, 0xf7705c, 0xfc8f66, 0xfec488, 0xfcfdbf,
];

// 256 colours as the 32-bit words of an ImageData on a little-endian machine.
export const MAP = new Uint32Array(256);
for (let level = 0; level < 256; level += 1) {
  const at = (level / 255) * (STOPS.length - 1);
  const index = Math.min(STOPS.length - 2, Math.floor(at));
  const part = at - index;
  let word = 0xff000000;
  for (const [shift, place] of [[16, 0], [8, 8], [0, 16]]) {
    const a = (STOPS[index] >> shift) & 255;
    const b = (STOPS[index + 1] >> shift) & 255;
    word |= Math.round(a + (b - a) * part) << place;
  }
  MAP[level] = word >>> 0;
}
