// What the page knows: tables of numbers, packed as bytes in text, and descriptions of charts.
const data = (() => {
  const read = JSON.parse(document.getElementById("data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const unpack = (text, Kind) => new Kind(bytes(text).buffer);
  // uPlot draws a gap at null, not at NaN.
  const numbers = (text) =>
    Array.from(unpack(text, Float32Array), (value) => Number.isFinite(value) ? value : null);
  const tables = {};
  for (const [name, table] of Object.entries(read.tables)) {
    const columns = {};
    for (const [column, text] of Object.entries(table.columns)) columns[column] = numbers(text);
    tables[name] = {
      step: Array.from(unpack(table.step, Float64Array)),
      columns,
      deed: table.deed && bytes(table.deed),
      reason: table.reason && bytes(table.reason),
    };
  }
  return { ...read, tables, bytes };
})();

// What happened to a step: the bits of `deed`.
const DEED = { rejected: 1, clipped: 2, lossBroken: 4, normBroken: 8, rmsAlarm: 16, ratioAlarm: 32 };

// Numbers as text, like those of the page: 0.05, 300, 2·10⁻⁵.
const plain = (value, digits = 4) => {
  if (value == null) return "–";
  const size = Math.abs(value);
  const signed = (text) => text.replace("-", "\u2212");
  if (value === 0 || (size >= 1e-3 && size < 1e5)) {
    const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size || 1)));
    const text = value.toLocaleString("en-US", { maximumFractionDigits: Math.min(places, 20) });
    return signed(text);
  }
  const [mantissa, exponent] = value.toExponential(digits - 2).split("e");
  const power = "10" + [...String(Number(exponent))].map((one) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(one)]).join("");
  const short = String(Number(mantissa));
  return short === "1" ? power : `${signed(short)}·${power}`;
};

const counted = (step) => Math.round(step).toLocaleString("en-US");

const shortStep = (step) => {
  if (step !== Math.floor(step)) return "";
  if (Math.abs(step) >= 1e6) return `${step / 1e6}M`;
  return Math.abs(step) >= 1e4 ? `${step / 1e3}k` : counted(step);
};

const make = (tag, classes, text) => {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text != null) made.textContent = text;
  return made;
};
