"""Text generation without channels: OpenAI legacy completions, llama.cpp, TGI, SGLang."""
