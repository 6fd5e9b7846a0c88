// A prediction as it is typed and judged. Which sizes count as right is in the recording's data.

const SIZE = /^(\d{1,24})(?:[.,](\d{1,9}))?([BKMGTPEZYkmgt]?)(iB?|B)?$/;

/** Return the bytes of a size such as 19.9G, or null if it is not one; as cloudlab reads sizes. */
export function parseSize(text) {
  const [match, whole, part = "", letter, suffix = ""] = SIZE.exec(text.replaceAll(" ", "")) ?? [];
  if (!match || (/^B?$/.test(letter) && (part || (suffix && letter + suffix !== "Bi")))) return null;
  const base = suffix === "B" ? 1000n : 1024n;
  const scale = 10n ** BigInt(part.length);
  const power = BigInt("BKMGTPEZY".indexOf(letter.toUpperCase() || "B"));
  const bytes = (BigInt(whole + part) * base ** power * 2n + scale) / (2n * scale);
  return bytes < 2n ** 63n ? Number(bytes) : null;
}

/** Return what is wrong with a size that was typed; empty if nothing is. */
export function sizeProblem(text, layer) {
  const size = text.trim();
  if (!size) return "such as 19.9G";
  if (/^\d+\.?\d*$/.test(size))
    return `The prediction '${size}' for the ${layer} has no unit. Write ${size}G or ${size}M.`;
  if (parseSize(size) === null)
    return `The prediction '${size}' for the ${layer} is not a size. Write a size such as 19.9G.`;
  return "";
}

/** Return a prediction in the words of the table of results. */
export function inWords(choice, layer) {
  const room = layer === "partition" ? "the disk" : "its partition";
  return { stays: "stays as it is", fills: `fills ${room}` }[choice] ?? choice;
}

/** Return whether a prediction was right, in words. */
export function verdict(choice, measured) {
  if (choice in measured.verdicts) return measured.verdicts[choice];
  if (!measured.bytes) return "not measured";
  const [lowest, highest] = measured.right_bytes;
  const bytes = parseSize(choice);
  return lowest <= bytes && bytes <= highest ? "right" : "wrong";
}
