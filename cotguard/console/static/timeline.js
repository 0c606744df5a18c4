// What a moderated stream looked like after each of its steps, from what changed in each.

const NONE = { received: 0, released: 0, written: 0, why: [] };

export class Timeline {
  /** `steps` as /try gives them: for each piece that came in a list of channels that changed or hold text. */
  constructor(steps, channels) {
    this.length = steps.length;
    this._entries = channels.map(() => []); // of each channel [number of steps, entry], in order
    this.held = [0]; // characters on hold after so many steps
    const holds = channels.map(() => 0);
    let sum = 0;
    steps.forEach((entries, index) => {
      for (const entry of entries) {
        this._entries[entry.channel].push([index + 1, entry]);
        const now = entry.why.length ? entry.received - entry.released : 0;
        sum += now - holds[entry.channel];
        holds[entry.channel] = now;
      }
      this.held.push(sum);
    });
  }

  /** How a channel stands after `count` steps: {received, released, written, why}. */
  at(channel, count) {
    const entries = this._entries[channel];
    let low = 0;
    let high = entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (entries[middle][0] <= count) low = middle + 1;
      else high = middle;
    }
    return low ? entries[low - 1][1] : NONE;
  }

  /** After how many steps the text before `offset` of a channel is decided; null if it never is. */
  decided(channel, offset) {
    const found = this._entries[channel].find(([, entry]) => entry.released >= offset);
    return found ? found[0] : null;
  }
}
