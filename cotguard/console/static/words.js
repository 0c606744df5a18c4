// What names that the gateway uses mean to people.

export const CHANNELS = [
  "reasoning", "output", "tool_call", "refusal", "other", "system", "user", "assistant", "tool_result", "tool_description",
];

/** Channels whose text is sent to the model; the others are written by it. */
export const SENT = new Set(CHANNELS.slice(5));

export const MEANINGS = {
  allow: "The value is delivered as it stands.",
  flag: "The value is delivered and counted.",
  mask: "One * stands for each character.",
  pseudonymize: "A label such as [PERSON_XXXXX]: the same for the same value within an exchange.",
  hash: "A keyed hash: the same for the same value in every exchange.",
  redact: "The entity's name stands for the value, such as [EMAIL_ADDRESS].",
  withhold: "The rest of the channel is dropped and the notice stands for it; other channels go on.",
  block: "The exchange ends before the value.",

  reasoning: "What the model thinks before it answers.",
  output: "The answer.",
  tool_call: "Arguments of tools that the model calls.",
  refusal: "The model's words when it refuses.",
  other: "Other text of the response, which no other channel takes.",
  system: "The system prompt, sent to the model.",
  user: "What the user wrote, sent to the model.",
  assistant: "Earlier answers, sent to the model again.",
  tool_result: "What tools gave back, sent to the model.",
  tool_description: "Descriptions of tools, sent to the model.",

  enforce: "Decisions are carried out.",
  shadow: "Nothing is altered; what would have happened is counted.",
  closed: "The exchange ends, and nothing undecided is delivered.",
  open: "The text goes on unmoderated, or unrecorded.",
  ignore: "Texts of requests are not looked at.",
  read: "Values in requests are found, so that they are known when they come back.",
  moderate: "Rules are carried out on requests, too.",
  pass: "It goes to the model.",
  refuse: "The request is refused.",
  widen: "The whole target of a link is rewritten with the value in it.",
  keep: "The rest of a link's target stays.",

  ALL: "Every entity, also those of detectors of your own.",
  PII: "Group: personal data.",
  NETWORK: "Group: addresses of machines.",
  FINANCIAL: "Group: cards, accounts, wallets.",
  GOVERNMENT: "Group: numbers that states give to people.",
  HEALTH: "Group: medical data.",
  ASSET: "Group: numbers of vehicles and customers.",
  SECRET: "Group: keys, tokens, passwords.",
  PROMPT: "Group: the system prompt, canaries, known values.",
  TOOL: "Group: what is known of tools.",
  HAZARD: "Group: dangerous content.",
};

const OUTCOMES = {
  allowed: "delivered as it stands",
  flagged: "delivered, and counted",
  redacted: "replaced",
  blocked: "the exchange was ended before it",
  withheld: "withheld with what follows in its channel",
  restored: "the value was put back in the place of a placeholder",
  failed_closed: "moderating failed, and the exchange was ended",
  bypassed: "moderating failed, and the text went on unmoderated",
  would_have: "delivered as it stands, since the policy only counts (shadow)",
};

/** What happened to a value, as the end of a sentence. */
export function outcome(name) {
  return Object.hasOwn(OUTCOMES, name) ? OUTCOMES[name] : name;
}

const REASONS = {
  patterns: "what stands there may be the beginning of a value that a pattern finds.",
  "seed-phrase": "words of a wallet's seed phrase may follow.",
  "known-values": "it may be the beginning of a value of the operator's own list.",
  recalled: "it may be the beginning of a value that stands in the request.",
  "system-prompt": "it may be the beginning of a passage of the system prompt.",
  injection: "it may be the beginning of an instruction to the model that follows the text.",
  links: "it may be the beginning of a link, whose target is decided as a whole.",
  placeholders: "it may be the beginning of a placeholder.",
  pem: "it may be the beginning of a private key.",
  classifier: "the classifier reads some words ahead before it decides.",
  guard: "the guard model has not judged this passage yet.",
  marker: "a value may go on behind the marker that stands there.",
  token: "a number, an escape or the like is not complete yet.",
  link: "it stands in the target of a link, which is decided as a whole.",
  value: "a value was found that overlaps with what is not decided yet.",
  seam: "it is decided, and waits for what comes from another channel: a value may begin here and end there.",
};

/** Why text is on hold, as a sentence, from the name that the gateway gives. */
export function reason(name) {
  return `${name}: ${Object.hasOwn(REASONS, name) ? REASONS[name] : "this detector is not sure yet what stands there."}`;
}
