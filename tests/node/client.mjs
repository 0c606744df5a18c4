// Reads one streamed response with a real SDK and prints what its user sees, as JSON.
// node client.mjs openai|anthropic|ai|responses BASE_URL
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

const [sdk, url] = process.argv.slice(2);
const prompt = [{ role: "user", content: "Hello" }];
const seen = { reasoning: "", text: "", calls: [], finish: null, error: null };

const clients = {
  async openai() {
    const client = new OpenAI({ apiKey: "none", baseURL: `${url}/v1`, maxRetries: 0 });
    const tools = [{ type: "function", function: { name: "send", parameters: { type: "object" } } }];
    const stream = await client.chat.completions.create({ model: "m", messages: prompt, stream: true, tools });
    for await (const chunk of stream) {
      for (const choice of chunk.choices) {
        seen.reasoning += choice.delta.reasoning_content ?? "";
        seen.text += choice.delta.content ?? "";
        for (const call of choice.delta.tool_calls ?? []) {
          seen.calls[call.index] ??= { name: call.function.name, arguments: "" };
          seen.calls[call.index].arguments += call.function.arguments ?? "";
        }
        seen.finish = choice.finish_reason ?? seen.finish;
      }
    }
  },

  async responses() {
    const client = new OpenAI({ apiKey: "none", baseURL: `${url}/v1`, maxRetries: 0 });
    const tools = [{ type: "function", name: "send", parameters: { type: "object" }, strict: false }];
    const stream = await client.responses.create({ model: "m", input: "Hello", stream: true, tools });
    for await (const event of stream) {
      if (event.type === "response.reasoning_text.delta") seen.reasoning += event.delta;
      if (event.type === "response.output_text.delta") seen.text += event.delta;
      if (event.type === "response.output_item.done" && event.item.type === "function_call") {
        seen.calls.push({ name: event.item.name, arguments: event.item.arguments });
      }
      if (event.type === "response.completed") seen.finish = event.response.status;
      if (event.type === "response.incomplete") seen.finish = event.response.incomplete_details.reason;
    }
  },

  async anthropic() {
    const client = new Anthropic({ apiKey: "none", baseURL: url, maxRetries: 0 });
    const tools = [{ name: "send", input_schema: { type: "object" } }];
    const message = await client.messages
      .stream({ model: "m", max_tokens: 99, messages: prompt, tools })
      .finalMessage();
    for (const block of message.content) {
      if (block.type === "thinking") seen.reasoning += block.thinking;
      if (block.type === "text") seen.text += block.text;
      if (block.type === "tool_use") seen.calls.push({ name: block.name, arguments: JSON.stringify(block.input) });
    }
    seen.finish = message.stop_reason;
  },

  async ai() {
    const provider = createOpenAICompatible({ name: "proxy", baseURL: `${url}/v1`, apiKey: "none" });
    const tools = { send: tool({ description: "s", inputSchema: jsonSchema({ type: "object" }) }) };
    const result = streamText({ model: provider("m"), messages: prompt, tools, maxRetries: 0, onError: () => {} });
    for await (const part of result.fullStream) {
      if (part.type === "reasoning-delta") seen.reasoning += part.text;
      if (part.type === "text-delta") seen.text += part.text;
      if (part.type === "tool-call") seen.calls.push({ name: part.toolName, arguments: JSON.stringify(part.input) });
      if (part.type === "error") throw part.error instanceof Error ? part.error : new Error(part.error.message);
      if (part.type === "finish") seen.finish = part.finishReason;
    }
  },
};

try {
  await clients[sdk]();
} catch (error) {
  seen.error = error.message;
}
console.log(JSON.stringify(seen));
