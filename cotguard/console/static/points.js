// Texts by code points, as the gateway counts: a string's own offsets count an emoji as two.

/** A text that is cut by code points. A text without characters beyond U+FFFF costs nothing. */
export class Points {
  constructor(text) {
    this.text = text;
    this.all = /[\ud800-\udfff]/.test(text) ? Array.from(text) : null;
    this.length = this.all ? this.all.length : text.length;
  }

  slice(start, end = this.length) {
    return this.all ? this.all.slice(start, end).join("") : this.text.slice(start, end);
  }
}
