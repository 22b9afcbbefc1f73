// Paragraphs, lists, code and bold as nodes: nothing else of Markdown, and no HTML.

export function* markdown(source) {
  const lines = source.split("\n");
  const ITEM = /^\s*(?:[-*+]|(\d+)[.)])\s+(.*)/, FENCE = /^\s*```/, HEADING = /^#{1,6}\s+(.*)/;
  const upTo = (ends) => lines.splice(0, (lines.findIndex(ends) + 1 || lines.length + 1) - 1);
  const plain = (line) => line.trim() && ![ITEM, FENCE, HEADING].some((kind) => kind.test(line));
  while (lines.length) {
    const first = lines[0];
    const item = first.match(ITEM);
    if (FENCE.test(first)) {
      lines.shift();
      yield node("pre", node("code", upTo((line) => FENCE.test(line)).join("\n")));
      lines.shift();
    } else if (item) {
      const list = node(item[1] ? "ol" : "ul");
      if (item[1]) list.start = item[1];
      for (let next = item; next && Boolean(next[1]) === Boolean(item[1]); next = lines[0]?.match(ITEM)) {
        list.append(node("li", ...inline(next[2])));
        lines.shift();
      }
      yield list;
    } else if (HEADING.test(first)) {
      yield node("p", node("strong", lines.shift().match(HEADING)[1]));
    } else if (first.trim()) {
      const paragraph = upTo((line) => !plain(line));
      yield node("p", ...paragraph.flatMap((line, i) => (i ? [node("br"), ...inline(line)] : inline(line))));
    } else {
      lines.shift();
    }
  }
}

function inline(line) {
  return line.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (/^`[^`]+`$/.test(part)) return node("code", part.slice(1, -1));
    return /^\*\*[^*]+\*\*$/.test(part) ? node("strong", part.slice(2, -2)) : part;
  });
}

export function node(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}
