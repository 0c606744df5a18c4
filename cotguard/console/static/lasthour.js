// The samples of the last hour as columns, which is what charts are drawn from. A gap in time is a row of nulls.

const HOUR = 3600;

export class LastHour {
  constructor() {
    this.interval = 2;
    this.columns = { time: [] };
  }

  get latest() {
    return this.columns.time.at(-1) ?? null;
  }

  /** Take over what the gateway remembers; of what was seen here, only what is older stays. */
  merge({ interval, columns }) {
    const seen = this.columns;
    const times = columns.time ?? []; // a gateway that has just started remembers nothing
    const from = times[0] ?? Infinity;
    const older = seen.time.findIndex((at) => at >= from);
    const kept = older < 0 ? seen.time.length : older;
    this.interval = interval;
    this.columns = { time: [] };
    for (let row = 0; row < kept; row++) this.push(rowOf(seen, row));
    for (let row = 0; row < times.length; row++) this.push(rowOf(columns, row));
  }

  /** Add a sample. One that is not newer than the last is left out: it came with the history. */
  push(sample) {
    const { columns, interval, latest } = this;
    if (latest !== null && sample.time <= latest) return;
    if (latest !== null && sample.time - latest > 3 * interval) this.#add({ time: latest + interval });
    this.#add(sample);
    const out = columns.time.findIndex((at) => at >= sample.time - HOUR);
    if (out > 0) for (const column of Object.values(columns)) column.splice(0, out);
  }

  #add(sample) {
    const { columns } = this;
    for (const name of Object.keys(sample)) columns[name] ??= columns.time.map(() => null);
    for (const [name, column] of Object.entries(columns)) column.push(sample[name] ?? null);
  }

  /** The row nearest to a time. */
  rowAt(time) {
    const times = this.columns.time;
    let low = 0;
    let high = times.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (times[middle] <= time) low = middle;
      else high = middle;
    }
    return high >= 0 && Math.abs(times[high] - time) <= Math.abs(times[low] - time) ? high : low;
  }
}

function rowOf(columns, row) {
  return Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, column[row]]));
}
