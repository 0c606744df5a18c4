"""The model on other machines, asked over the Open Inference Protocol (KServe v2)."""
